"""What ``moments.json`` beside the tensors of a sample holds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from ..errors import quoted
from ..schema import Strict, each_once

_PAIR = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.[\w.]+")


def _space(name: str) -> str:
    if not _PAIR.fullmatch(name):
        raise ValueError(f"found {quoted(name)}, expected a pair of spaces such as 0.1.query_input")
    return name


_Count = Annotated[int, Field(ge=0, le=1 << 53)]
_Name = Annotated[str, Field(max_length=4096)]
_Pair = Annotated[str, AfterValidator(_space)]


class _Source(Strict):
    """As `Source`."""

    teacher: _Name
    student: _Name
    teacher_config: _Name
    student_config: _Name
    teacher_weights: _Name
    student_weights: _Name
    pairing: _Name
    texts: tuple[_Name, ...]


class Manifest(Strict):
    """What ``moments.json`` holds."""

    format: int
    source: _Source
    pairs: _Count
    paired_tokens: _Count
    student_tokens: _Count
    held_out_texts: _Count | None = None
    spaces: Annotated[tuple[_Pair, ...], Field(max_length=1 << 13), AfterValidator(each_once)]
    counts: dict[str, _Count]
