"""What the students of an experiment start from, and whether they are trained with labels or without."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..distillation.options import RefineOptions, Steps
from ..errors import PlanError
from ..port.options import BASELINE, PortOptions, parse_start
from ..schema import make

_REFINE, _GROW = "refine", "growall"


@dataclass(frozen=True)
class Start:
    """A row of the tables.

    Attributes:
        port: how the teacher's module is ported; None for a module of random numbers.
        steps: for how many steps it is refined on the teacher's answers, or ``"auto"``; None where it is trained with
            labels instead.
        grows: whether it grows to all linear layers before it is refined.
    """

    port: PortOptions | None
    steps: Steps | None = None
    grows: bool = False

    def __str__(self) -> str:
        """Name it; the inverse of `parse`."""
        parts = [] if self.steps is None else [f"{_REFINE}{self.steps}"]
        return "+".join([BASELINE if self.port is None else str(self.port), *parts, *([_GROW] if self.grows else [])])


def parse(name: str) -> Start:
    """Read the name of a start: ``student`` or what `port.options.parse_start` reads, and how it is refined.

    ``refine200`` (or ``refineauto``) behind a ``+`` is for a module that is refined on the teacher's answers and never
    sees a label, ``growall`` for one that grows to all linear layers first.

    Raises:
        PlanError: a part that is unknown or that another one contradicts.
    """
    first, *parts = name.split("+")
    refined = [part for part in parts if part.startswith(_REFINE)]
    grown = [part for part in parts if part == _GROW]
    for several in (refined, grown):
        if len(several) > 1:
            raise PlanError(f"the start {name} names both {several[0]} and {several[1]}, expected one of them")
    if grown and not refined:
        raise PlanError(f"the start {name} grows and is not refined, expected +{_REFINE}STEPS beside +{_GROW}")
    rest = "+".join([first, *(part for part in parts if part not in (*refined, *grown))])
    port = parse_start(rest, (f"{_REFINE}STEPS", _GROW))
    if not refined:
        return Start(port)
    steps = make(RefineOptions, {"steps": refined[0].removeprefix(_REFINE)}, PlanError).steps
    return Start(port, steps, bool(grown))


def without_refining(name: str) -> tuple[str, str]:
    """Name what a row that is refined shares with others, from its name alone, which may be that of another's results.

    Returns:
        The name without how long it is refined: what rows of one start and several lengths have in common; and that
        without growing too: the row that starts alike and learns from labels.
    """
    start = "+".join(part for part in name.split("+") if not re.fullmatch(rf"{_REFINE}(\d+|auto)", part))
    return start, start.removesuffix(f"+{_GROW}")
