"""The processes of this run: one, unless a launcher such as ``accelerate launch`` started several."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def processes() -> Any:
    """Give accelerate's view of the processes; on CPUs it would see one of several unless it is told."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
