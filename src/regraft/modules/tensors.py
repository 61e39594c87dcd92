"""What the tensors of a module may be, whoever wrote them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ModuleFileError, quoted

_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Half precision ends long before.
_LARGEST = 1e9
# Longer than the path of any layer.
_LONGEST_KEY = 512
# The rows of these weights are the labels of a task head.
_HEAD_OUTPUT = re.compile(r"(?:^|\.)(?:classifier|classifier\.out_proj|score|qa_outputs)\.weight$")


def check_tensors(tensors: Mapping[str, Tensor], source: str) -> None:
    """Check that they can be tensors of a trained module; what it needs is checked where it is ported.

    Args:
        tensors: PEFT's tensors by key.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: names, types, shapes or values that no module has.
    """
    if not tensors:
        raise ModuleFileError(f"{source} holds no tensor, expected those of a module; save it again")
    for key, tensor in tensors.items():
        if not key.isprintable() or not 0 < len(key) <= _LONGEST_KEY:
            raise ModuleFileError(f"{source} holds a tensor called {quoted(key)}, expected the path of one in a model")
        if tensor.dtype not in _TYPES:
            raise ModuleFileError(
                f"{source} has {quoted(key)} in {str(tensor.dtype).removeprefix('torch.')}, expected one of "
                f"{', '.join(str(dtype).removeprefix('torch.') for dtype in _TYPES)}; save it so"
            )
        if not tensor.dim():
            raise ModuleFileError(f"{source} has a single number in {quoted(key)}, expected a vector or a matrix")
        if not tensor.isfinite().all():
            raise ModuleFileError(
                f"{source} has NaN or infinity in {quoted(key)}; its training diverged, port another one"
            )
        if tensor.numel() and (largest := float(tensor.abs().max())) > _LARGEST:
            raise ModuleFileError(
                f"{source} has {largest:.0e} in {quoted(key)}, which no training gives; it is damaged, get it anew"
            )


def head_rows(tensors: Mapping[str, Tensor]) -> int | None:
    """Count the labels of a module's task head; None where it has none."""
    return next((len(tensor) for key, tensor in tensors.items() if _HEAD_OUTPUT.search(key)), None)
