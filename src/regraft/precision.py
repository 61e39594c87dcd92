"""Which numbers a training computes in."""

from __future__ import annotations

import torch

from .errors import TaskError, unknown_choice

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def mixed_precision(precision: str) -> str | None:
    """Say in which type a training computes besides float32; None for none.

    Args:
        precision: one of `PRECISIONS`; ``"auto"`` is bfloat16, or else float16, where a GPU can, and float32 elsewhere.

    Raises:
        TaskError: an unknown precision, or one that this machine cannot train in.
    """
    if precision not in PRECISIONS:
        raise TaskError(unknown_choice("precision", precision, PRECISIONS))
    if precision == "float16" and not torch.cuda.is_available():
        raise TaskError("got precision float16 without a GPU, expected float32 or bfloat16; 'auto' chooses what serves")
    if precision == "auto" and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return precision if precision in ("bfloat16", "float16") else None
