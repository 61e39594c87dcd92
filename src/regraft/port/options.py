"""How a module is ported, and what users leave open of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from cyclopts import Parameter
from pydantic import BeforeValidator

from ..activations.options import SampleOptions
from ..errors import PlanError, SamplingError, quoted, unknown_choice
from ..modules.axes import Convention
from ..schema import TOKEN, Names, Seed, make
from .layers import MATCHINGS

AUTO: Literal["auto"] = "auto"
Evidence = Literal["none", "moments", "texts"]
"""What dimensions can be matched by."""

BASELINE = "student"
_PREFIX = "tm-"
_HEAD = "head"
_SEQUENTIAL = "sequential"
_SCALE = "scale"


def parse_layers(value: Any) -> Any:
    """Read a list of layers that commas separate; a name, or a list of numbers, stays as it is."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, Iterable) else value
    numbers = [part.strip() for part in value.split(",") if part.strip()]
    return tuple(map(int, numbers)) if numbers and all(map(_is_layer, numbers)) else value


def _is_layer(number: str) -> bool:
    return number.isdecimal() and len(number) <= 6  # no model is deeper


def _scale(value: Any) -> Any:
    if value == AUTO:
        return value
    try:
        factor = float(value)
    except (TypeError, ValueError):
        factor = math.nan
    if not math.isfinite(factor):
        raise ValueError(f"found {quoted(value)}, expected a number or auto")
    if factor < 0:
        raise ValueError(f"found {quoted(value)}, expected 0 or more: below it the module would undo what it learnt")
    return factor


Layers = Annotated[str | tuple[int, ...], BeforeValidator(parse_layers), TOKEN]


class PortOptions(SampleOptions):
    """How a module is ported: everything that decides the outcome."""

    layers: Layers = "skip"
    """skip, avg, avg_released, last, or 0,2,4."""
    align: str | None = None
    """See 'regraft methods'. Default: auto with texts."""
    spaces: Convention | None = None
    """released or measured: which space maps writes."""
    sequential: Annotated[bool | None, Parameter(name="--sequential", negative="--apart")] = None
    """Fit layer by layer with the module in place."""
    scale: Annotated[float | Literal["auto"], BeforeValidator(_scale), TOKEN] = 1.0
    """Factor of what the module writes: N or auto."""
    head: Literal["teacher", "fresh"] | None = None
    """teacher or fresh. Default: teacher, if it fits."""
    labels: Names = None
    """Student's labels: A,B. Default: the teacher's."""
    drop: Annotated[bool, Parameter(negative=())] = False
    """Leave out what cannot be ported."""
    teacher_labels: Names = None
    """Teacher's, in order, if it names none: A,B."""
    seed: Seed = 0
    """Of everything that is drawn."""

    def settled(self, evidence: Evidence, same: bool = False) -> Self:
        """Fill in what was left open, and refuse what contradicts itself.

        Without an alignment it is ``"auto"`` where activations can be compared, else ``"none"``; fitting is in sequence
        where ``"auto"`` has texts; spaces are the alignment's own. The head is settled by the plan.

        Args:
            evidence: what there is to compare activations by.
            same: whether the student is the teacher itself, which nothing has to be mapped to.

        Raises:
            PlanError: an unknown alignment, or a search for a scale without fitting in sequence.
            SamplingError: to be fitted in sequence, and no texts.
        """
        copied = evidence == "none" or (same and self.scale != AUTO)
        align = self.align or ("none" if copied else AUTO)
        spaces = self.spaces or default_spaces(align)
        sequential = (align == AUTO and evidence == "texts") if self.sequential is None else self.sequential
        if self.scale == AUTO and not sequential:
            raise PlanError("scale auto runs both models with the module in place; fit --sequential, with --texts")
        if sequential and evidence != "texts":
            raise SamplingError(
                "sequential runs both models with the module in place, which no moments hold; give --texts"
            )
        return self.model_copy(update={"align": align, "spaces": spaces, "sequential": sequential})

    @property
    def factor(self) -> float | None:
        """The scale; None where it is searched."""
        return None if self.scale == AUTO else float(self.scale)

    def __str__(self) -> str:
        """Name it as a start of an experiment; the inverse of `parse_start`."""
        align = self.align or "none"
        parts = [self.layers if isinstance(self.layers, str) else ",".join(map(str, self.layers))]
        parts += [align] if align != "none" else []
        parts += [self.spaces] if self.spaces not in (None, default_spaces(align)) else []
        parts += [_SEQUENTIAL] if self.sequential and align != AUTO else []
        parts += [] if self.scale == 1 else [_SCALE + str(self.scale).removesuffix(".0")]
        parts += [_HEAD] if self.head == "teacher" else []
        return _PREFIX + "+".join(parts)


def default_spaces(align: str) -> Convention:
    """Name the spaces that maps are fitted on unless the user says: the authors' where they, or a control, assign.

    Raises:
        PlanError: an unknown alignment.
    """
    from ..alignment.methods import method_named  # which imports torch

    return "released" if method_named(align).kind == "one-to-one" else "measured"


def parse_start(name: str, others: Sequence[str] = ()) -> PortOptions | None:
    """Read the name of a start: ``tm-LAYERS``, then any of these, each behind a ``+``.

    An alignment, spaces, ``sequential``, ``scale`` with a number or ``auto`` (``scale0.5``), and ``head``; without the
    last the task head is fresh.

    Args:
        name: the name.
        others: parts that stand for something else than the port, which the caller has taken off: for messages.

    Returns:
        How it is ported; None for the baseline, which starts from random numbers.

    Raises:
        PlanError: a part that is unknown or that another one contradicts.
    """
    from ..alignment.methods import METHODS  # which imports torch

    if name == BASELINE:
        return None
    layers, *parts = name.removeprefix(_PREFIX).split("+")
    if not name.startswith(_PREFIX) or not (layers in MATCHINGS or all(map(_is_layer, layers.split(",")))):
        raise PlanError(
            unknown_choice("start", name.split("+")[0], (BASELINE, *(_PREFIX + known for known in MATCHINGS)))
            + " (or teacher layers such as tm-0,2,4)"
        )
    aligns = [align for align in METHODS if align != "none"]
    fields = {**dict.fromkeys(aligns, "align"), **dict.fromkeys(get_args(Convention), "spaces")}
    fields |= {_SEQUENTIAL: _SEQUENTIAL, _HEAD: _HEAD}
    values: dict[str, str] = {}
    for part in parts:
        field = _SCALE if part.startswith(_SCALE) else fields.get(part, "")
        if not field:
            raise PlanError(unknown_choice(f"part of the start {name}:", part, (*fields, f"{_SCALE}NUMBER", *others)))
        if field in values:
            raise PlanError(f"the start {name} names both {values[field]} and {part}, expected one of them")
        values[field] = part
    align = values.get("align", "none")
    return make(
        PortOptions,
        {
            "layers": layers,
            "align": align,
            "spaces": values.get("spaces", default_spaces(align)),
            "sequential": align == AUTO or _SEQUENTIAL in values,
            "scale": values.get(_SCALE, f"{_SCALE}1").removeprefix(_SCALE),
            "head": "teacher" if _HEAD in values else "fresh",
        },
        PlanError,
    ).settled("texts")
