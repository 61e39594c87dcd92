"""Settle what users leave open: alignment, whether to fit in sequence, the scale."""

from __future__ import annotations

from .alignment.methods import AUTO
from .errors import SamplingError
from .sequential import check_scale


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
