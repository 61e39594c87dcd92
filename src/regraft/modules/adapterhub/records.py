"""What AdapterHub's two configuration files may hold, of what is read from them; the library writes more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from ...errors import ModuleFileError
from ...schema import make


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())


class _Named(_Read):
    model_type: str | None = None
    model_class: str | None = None
    model_name: str | None = None
    name: str | None = None


class _Method(_Read):
    architecture: str | None = None
    non_linearity: str | None = None
    leave_out: list[int] | None = None
    attn_matrices: list[str] = []


class Adapter(_Named):
    """``adapter_config.json``."""

    type: str | None = None
    version: str | None = None
    config: _Method


class _Flexible(_Read):
    head_type: str
    label2id: dict[str, int | str] | None = None


class Head(_Named):
    """``head_config.json``: of a flexible head, whose fields stand in ``config``, or of a static one."""

    config: _Flexible | None = None
    label2id: dict[str, int | str] | None = None


def check_file(content: Mapping[str, Any], record: type[BaseModel], source: str, file: str) -> None:
    """Check what a configuration file holds.

    Args:
        content: what was read.
        record: `Adapter` or `Head`.
        source: what to call the module in messages.
        file: the file's name.

    Raises:
        ModuleFileError: a field that is missing or of another type.
    """
    make(record, content, lambda problem: ModuleFileError(f"{source}, {file}: {problem}; mend it"))
