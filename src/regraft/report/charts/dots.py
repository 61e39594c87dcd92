"""Gains per language of a group, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..comparison import Comparison, compare
from ..groups import Group, split_by
from ..table import fixed, of_task, proper
from .scales import WIDTH, Frame, Panel, Tick, scale

_LEFT, _TOP, _RIGHT = 52, 10, WIDTH - 14
_LANE = 10  # between the starts of a language
_GAP = 12  # between languages
_MEAN = "mean"


@dataclass(frozen=True)
class Dot:
    """A gain in pixels, and from where to where it reaches over seeds."""

    row: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class GainPanel(Panel):
    """Gains of one group.

    Attributes:
        places: heights of the languages, and last of their mean where there are several.
        pitch: from one place to the next.
        dots: one per place and start.
        zero: where there is no gain.
    """

    places: Sequence[Tick]
    pitch: int
    dots: Sequence[Dot]
    zero: float


def gain_panels(groups: Sequence[Group]) -> list[GainPanel]:
    """Draw gains over the baseline per language, groups of one task on one scale."""
    panels = []
    for own in split_by("task", groups):
        by_group = [starts for group in own if (starts := compare(group))]
        ends = [0.0, *(pair.gain for group in own for row in group.transferred for pair in group.pairs(row))]
        panels += [_panel(starts, ends) for starts in by_group]
    return panels


def _panel(comparisons: Sequence[Comparison], ends: Sequence[float]) -> GainPanel:
    group = comparisons[0].group
    names = sorted({language for comparison in comparisons for language in comparison.by_language})
    names += [_MEAN] if len(names) > 1 else []
    pitch = _LANE * len(comparisons) + _GAP
    frame = Frame(_LEFT, _TOP, _RIGHT, _TOP + pitch * len(names))
    x = scale(ends, frame.left, frame.right)
    dots = []
    for place, name in enumerate(names):
        for lane, comparison in enumerate(comparisons):
            y = frame.top + pitch * place + (_GAP + _LANE) / 2 + _LANE * lane
            pairs = group.pairs(comparison.row)
            gain = comparison.by_language.get(name)
            reach: Sequence[float] = [pair.gain for pair in pairs if pair.result.language == name]
            if name == _MEAN:
                gain, reach = comparison.gain, comparison.interval or (comparison.gain,)
            if gain is not None:
                dots.append(Dot(comparison.row, x(gain), y, x(min(reach)), x(max(reach))))
    unit, digits = group.measured.unit, group.measured.digits
    means = ", ".join(f"{comparison.row} {fixed(comparison.gain, digits, signed=True)}" for comparison in comparisons)
    return GainPanel(
        title=f"{of_task(group.task)} {proper(group.peft)}",
        description=f"Mean gain over the baseline in {unit}: {means}. The table per language has the scores.",
        frame=frame,
        x=x.ticks(5, signed=True),
        places=[Tick(frame.top + pitch * (place + 0.5), name) for place, name in enumerate(names)],
        pitch=pitch,
        dots=dots,
        zero=x(0),
    )
