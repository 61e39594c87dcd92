"""The processes of this run: one, unless a launcher such as ``accelerate launch`` started several."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def one_device(arguments: Any) -> Any:
    """Keep a Trainer to one device per process, where it would spread a batch, enlarged, over all that it sees.

    Args:
        arguments: transformers' ``TrainingArguments``; several devices are the launcher's business.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def processes() -> Any:
    """Give accelerate's view of the processes; on CPUs it would see one of several unless it is told."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
