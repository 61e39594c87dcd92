"""Let PEFT know of the bottleneck whoever imports which library first, without importing PEFT for it."""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_METHOD = "regraft.modules.bottleneck"


class _AfterPeft(MetaPathFinder):
    """Finds PEFT as all others do, and has the bottleneck registered as soon as it is imported."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "peft":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(_METHOD)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_bottleneck() -> None:
    """Register the bottleneck with PEFT: now where PEFT is imported, else as soon as it is."""
    if "peft" in sys.modules:
        importlib.import_module(_METHOD)
    else:
        sys.meta_path.insert(0, _AfterPeft())
