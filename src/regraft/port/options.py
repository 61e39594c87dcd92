"""Settle what users leave open: alignment, whether to fit in sequence, the scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast, get_args

from ..alignment.methods import AUTO, METHODS, method_named
from ..errors import PlanError, SamplingError, unknown_choice
from ..modules.peft_types import Convention
from .layers import MATCHINGS


def default_align(sampled: bool) -> str:
    """Name the alignment of those who name none: ``"auto"`` where activations can be compared, else ``"none"``."""
    return AUTO if sampled else "none"


def default_spaces(align: str) -> Convention:
    """Name the spaces that maps are fitted on unless the user says: the authors' where they or a control assign."""
    return "released" if method_named(align).kind == "one-to-one" else "measured"


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


def check_scale(scale: float | str, sequential: bool) -> float | None:
    """Read a scale: a number, or ``"auto"`` (None).

    Raises:
        PlanError: neither, or a search without the models at hand.
    """
    if scale == AUTO:
        if not sequential:
            raise PlanError("scale auto runs both models with the module in place; fit --sequential, with --texts")
        return None
    try:
        factor = float(scale)
    except (TypeError, ValueError):
        factor = math.nan
    if not math.isfinite(factor):
        raise PlanError(f"found scale {scale!r}, expected a number or auto")
    return factor


BASELINE = "student"
_PREFIX = "tm-"
_SPACES = get_args(Convention)
_HEAD = "head"
_SEQUENTIAL = "sequential"
_SCALE = "scale"


@dataclass(frozen=True)
class Start:
    """How the teacher's module becomes the student's first one.

    Attributes:
        layers: a key of `layers.MATCHINGS`, or one teacher layer per student layer.
        align: a key of `methods.METHODS`.
        spaces: which space maps what a module writes.
        sequential: whether maps are fitted layer by layer with the module in place; ``auto`` always does.
        scale: factor of all that the module writes; None for the best.
        head: whether the teacher's task head is ported too.
    """

    layers: str | tuple[int, ...]
    align: str = "none"
    spaces: Convention = "released"
    sequential: bool = False
    scale: float | None = 1.0
    head: bool = False

    @property
    def needs_texts(self) -> bool:
        """Whether the models have to run for this very module, so that moments of the pair do not do."""
        return self.sequential

    def __str__(self) -> str:
        layers = self.layers if isinstance(self.layers, str) else ",".join(map(str, self.layers))
        parts = [layers]
        parts += [self.align] if self.align != "none" else []
        parts += [self.spaces] if self.spaces != default_spaces(self.align) else []
        parts += [_SEQUENTIAL] if self.sequential and self.align != AUTO else []
        scale = AUTO if self.scale is None else str(self.scale).removesuffix(".0")
        parts += [] if self.scale == 1 else [_SCALE + scale]
        parts += [_HEAD] if self.head else []
        return _PREFIX + "+".join(parts)


def parse_start(name: str) -> Start | None:
    """Read the name of a start: ``tm-LAYERS``, then any of these, each behind a ``+``.

    An alignment, spaces, ``sequential``, ``scale`` with a number or ``auto`` (``scale0.5``), and ``head``.

    Returns:
        The start; None for the baseline, which starts from random numbers.

    Raises:
        PlanError: a part that is unknown or that another one contradicts.
    """
    if name == BASELINE:
        return None
    layers, *parts = name.removeprefix(_PREFIX).split("+")
    if not name.startswith(_PREFIX) or not (layers in MATCHINGS or all(map(str.isdecimal, layers.split(",")))):
        raise PlanError(
            unknown_choice("start", name.split("+")[0], (BASELINE, *(_PREFIX + known for known in MATCHINGS)))
            + " (or teacher layers such as tm-0,2,4)"
        )
    chosen: dict[str, str] = {}
    aligns = [align for align in METHODS if align != "none"]
    options = {**dict.fromkeys(aligns, "align"), **dict.fromkeys(_SPACES, "spaces")}
    options |= {_SEQUENTIAL: _SEQUENTIAL, _HEAD: _HEAD}
    for part in parts:
        option = _SCALE if part.startswith(_SCALE) else options.get(part, "")
        if not option:
            raise PlanError(unknown_choice(f"part of the start {name}:", part, (*options, f"{_SCALE}NUMBER")))
        if option in chosen:
            raise PlanError(f"the start {name} names both {chosen[option]} and {part}, expected one of them")
        chosen[option] = part
    align = chosen.get("align", "none")
    sequential = align == AUTO or _SEQUENTIAL in chosen
    return Start(
        layers if layers in MATCHINGS else tuple(int(number) for number in layers.split(",")),
        align,
        cast(Convention, chosen.get("spaces", default_spaces(align))),
        sequential,
        check_scale(chosen.get(_SCALE, f"{_SCALE}1").removeprefix(_SCALE), sequential),
        _HEAD in chosen,
    )
