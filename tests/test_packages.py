"""What a package exports is there, and is loaded when it is first asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "name", ["alignment", "distillation", "experiment", "models", "modules", "report", "tasks", "training"]
)
def test_a_package_exports_what_its_stub_says_and_no_name_of_its_files(name: str) -> None:
    package = importlib.import_module(f"regraft.{name}")
    assert package.__all__
    assert all(getattr(package, exported) is not None for exported in package.__all__)
    assert not {path.stem for path in Path(package.__path__[0]).glob("*.py")} & set(package.__all__)
