"""Settle what users leave open, or by name: layers, alignment, whether to fit in sequence, the scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .checkpoint import Module
from .errors import SamplingError
from .evidence import Evidence, best_layers
from .layers import BEST
from .methods import AUTO
from .models import BaseModel
from .sequential import check_scale


def chosen_layers(
    module: Module,
    teacher: BaseModel,
    student: BaseModel,
    layers: str | Sequence[int],
    texts: Sequence[str] | None = None,
    pairing: str = "offsets",
    **sampling: Any,
) -> tuple[str | Sequence[int], Evidence | None]:
    """Turn ``"best"`` into the layers that it stands for; anything else stays as it is.

    Args:
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        layers: as for `port.transfer`.
        texts: as for `port.transfer`.
        pairing: as for `port.transfer`.
        sampling: as for `port.transfer`.

    Returns:
        What `make_plan` takes, and why; None where nothing was compared.

    Raises:
        SamplingError: ``"best"`` without texts, or with such as do not serve.
    """
    if layers != BEST:
        return layers, None
    if texts is None:
        raise SamplingError(
            f"layers {BEST!r} compares all pairs of layers, which moments do not hold; give --texts FILE"
        )
    evidence = best_layers(module, teacher, student, texts, pairing, **sampling)
    return evidence.chosen, evidence


def default_align(sampled: bool) -> str:
    """Name the alignment of those who name none: ``"auto"`` where activations can be compared, else ``"none"``."""
    return AUTO if sampled else "none"


def how_to_fit(align: str, with_texts: bool, sequential: bool | None, scale: float | str) -> tuple[bool, float | None]:
    """Settle ``sequential`` and ``scale`` of `port.transfer`; the factor is None where it is searched.

    Raises:
        PlanError: a scale that is none, or a search for it without fitting in sequence.
        SamplingError: to be fitted in sequence, and no texts.
    """
    if sequential is None:
        sequential = align == AUTO and with_texts
    factor = check_scale(scale, sequential)
    if sequential and not with_texts:
        raise SamplingError("sequential runs both models with the module in place, which no moments hold; give --texts")
    return sequential, factor
