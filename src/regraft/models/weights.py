"""Weights that were loaded: whether they are those of a trained model, and where they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ..errors import ModelError, first_line, quoted

# Types of weights that are not quantised.
_EXACT = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_files(directory: Path) -> None:
    """Refuse a directory of a model that is not there, or has a pipe or a device in it: who loads it may wait for ever.

    Raises:
        ModelError: it is none, or holds one.
    """
    if not directory.is_dir():
        raise ModelError(f"there is no directory {directory}, expected that of a model")
    for path in directory.iterdir():
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path} is no regular file, expected one that save_pretrained wrote; get it anew")


@contextmanager
def unreported() -> Iterator[None]:
    """Keep transformers from listing keys: `check_weights` judges them, and a head is missing that a module brings."""
    before = logging.get_verbosity()
    logging.set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def check_weights(model: Any, missing: Iterable[str], name: str) -> None:
    """Refuse a checkpoint that does not hold the bare model, since transformers draws at random what it lacks.

    Args:
        model: what was loaded, of transformers.
        missing: which keys its checkpoint lacks; those of a pooler or a head may be among them.
        name: what to call it in messages.

    Raises:
        ModelError: a weight of the bare model is missing, or one holds NaN or infinity.
    """
    prefix = f"{model.base_model_prefix}."
    own = missing if model.base_model is model else [key for key in missing if key.startswith(prefix)]
    lost = sorted(path for key in own if not (path := key.removeprefix(prefix)).startswith("pooler."))
    if lost:
        raise ModelError(
            f"{name} lacks {lost[0]}, expected all weights of a {model.config.model_type} model; use a whole checkpoint"
        )
    for path, weight in model.named_parameters():
        if weight.dtype in _EXACT and weight.numel() and not weight.is_meta and not _finite(weight):
            raise ModelError(f"{name} has NaN or infinity in {path}, expected numbers; use another checkpoint")


def _finite(weight: torch.Tensor) -> bool:
    # NaN anywhere is the largest and the smallest; so one pass tells, without a copy.
    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(weight.detach()))


def default_device() -> str:
    """Name where models run if nobody says it: on a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def moved(model: Any, dtype: torch.dtype | None, device: str | torch.device | None) -> Any:
    """Move a model to a device, by default `default_device()`, and into a type.

    Raises:
        ModelError: this machine has no such device.
    """
    device = device or default_device()
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("nothing is computed there")
        return model.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"cannot run on device {quoted(str(device))}, expected one of this machine: {first_line(error)}"
        ) from error
