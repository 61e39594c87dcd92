"""What ``regraft.json`` beside a module may hold, whoever wrote it: what is read of it is what it has to be.

What it holds besides is for people: other versions of regraft write more, or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..errors import ModuleFileError
from ..schema import make


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())


class _PortSettings(_Part):
    teacher_labels: list[str] | None = None


class _Made(_Part):
    action: str


class _Port(_Part):
    module: str
    teacher: str
    layers: str
    align: str
    sequential: bool = False
    spaces: str
    scale: float = 1.0
    sampled: str | None = None
    seed: int
    head: str | None = None
    options: _PortSettings = _PortSettings()
    tensors: dict[str, _Made]
    left: dict[str, Any]


class _Training(_Part):
    task: str
    data: str
    seed: int
    step: int = -1
    scores: dict[str, dict[str, float]]


class _Texts(_Part):
    learnt: int
    held_out: int
    hash: str


class _Agreement(_Part):
    percent: float
    divergence: float


class _Agreements(_Part):
    before: _Agreement
    after: _Agreement


class _Labelled(_Part):
    rows: int
    data: str
    data_hash: str


class _Refinement(_Part):
    teacher: str
    teacher_model: str
    texts: _Texts
    steps_taken: int
    step: int
    seed: int
    metric: str
    agreement: _Agreements
    labelled: _Labelled | None = None


class _Provenance(_Part):
    labels: list[str] = []
    hash: str | None = None
    port: _Port | None = None
    training: _Training | None = None
    refinement: _Refinement | None = None
    converted: dict[str, Any] | None = None


def checked(content: Any, place: str) -> Mapping[str, Any]:
    """Check the content of a ``regraft.json``.

    Args:
        content: what was read.
        place: what to call the file in messages.

    Raises:
        ModuleFileError: it is not what regraft writes.
    """
    if not isinstance(content, dict):
        raise ModuleFileError(f"{place} holds no object, expected what regraft wrote; remove it")
    wrong = "expected what regraft wrote: mend or remove it"
    make(_Provenance, content, lambda said: ModuleFileError(f"{place}, {said}; {wrong}"))
    return content
