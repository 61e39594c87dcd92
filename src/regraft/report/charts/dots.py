"""Gains per language of a group, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..comparison import Comparison, compare
from ..groups import Group, split_by
from ..table import fixed, of_task, proper
from .scales import WIDTH, Frame, Panel, Tick, scale

_LEFT, _TOP, _RIGHT = 60, 24, WIDTH - 14
_LANE = 10  # between the starts of a language
_GAP = 12  # between languages
_MEAN = "mean"


@dataclass(frozen=True)
class Dot:
    """A mean gain, in pixels.

    Attributes:
        row: the start.
        x: the gain.
        y: its lane.
        seeds: the gains that it is the mean of, where these are of seeds.
        between: its 95% interval; None where there is none, or it is not of the last row.
    """

    row: str
    x: float
    y: float
    seeds: Sequence[float]
    between: tuple[float, float] | None


@dataclass(frozen=True)
class GainPanel(Panel):
    """Gains of one group.

    Attributes:
        places: heights of the languages, and last of their mean where there are several.
        pitch: from one place to the next.
        dots: one per place and start.
        zero: where there is no gain.
        x_name: what gains are in.
    """

    places: Sequence[Tick]
    pitch: int
    dots: Sequence[Dot]
    zero: float
    x_name: str


def gain_panels(groups: Sequence[Group]) -> list[GainPanel]:
    """Draw gains over the baseline per language, groups of one task on one scale."""
    panels = []
    for own in split_by("task", groups):
        by_group = [starts for group in own if (starts := compare(group))]
        ends = [0.0, *(pair.gain for group in own for row in group.transferred for pair in group.pairs(row))]
        ends += [end for starts in by_group for comparison in starts for end in comparison.interval or ()]
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
            own = [pair.gain for pair in group.pairs(comparison.row) if pair.result.language == name]
            gain = comparison.gain if name == _MEAN else comparison.by_language.get(name)
            between = comparison.interval if name == names[-1] else None
            if gain is not None:
                seeds = [x(one) for one in own] if len(own) > 1 else []
                ends_in_pixels = None if between is None else (x(between[0]), x(between[1]))
                dots.append(Dot(comparison.row, x(gain), y, seeds, ends_in_pixels))
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
        x_name=f"gain over the baseline, {unit}",
    )
