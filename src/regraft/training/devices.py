"""Which numbers a training computes in."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..errors import TaskError
from .options import Precision


def mixed_precision(precision: Precision) -> str | None:
    """Say in which type a training computes besides float32; None for none.

    Args:
        precision: ``"auto"`` is bfloat16, or else float16, where a GPU can, and float32 elsewhere.

    Raises:
        TaskError: this machine cannot train in it.
    """
    if precision == "float16" and not torch.cuda.is_available():
        raise TaskError("got precision float16 without a GPU, expected float32 or bfloat16; 'auto' chooses what serves")
    if precision == "auto" and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return precision if precision in ("bfloat16", "float16") else None


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
