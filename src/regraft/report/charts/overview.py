"""All starts of a report on one picture, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..standings import Standing
from .scales import Frame, Panel, Scale, scale

_WIDTH = 400
_TOP, _PITCH, _HEADING = 2, 22, 24
_LETTER, _LONGEST = 7.0, 24  # the width of a letter, and of names that are not cut
_FIGURE = 48  # behind a row


@dataclass(frozen=True)
class OverviewRow:
    """A start in one setting, in pixels.

    Attributes:
        row: the start.
        name: of it, as there is room for.
        x: the mean gain.
        y: its lane.
        between: the 95% interval; None where there is none.
        figure: the gain in figures.
    """

    row: str
    name: str
    x: float
    y: float
    between: tuple[float, float] | None
    figure: str


@dataclass(frozen=True)
class OverviewPanel(Panel):
    """The mean gain of every start whose gains are in one unit, all settings on one scale.

    Attributes:
        width: of the picture.
        headings: height and name of each setting.
        rows: the starts.
        zero: where there is no gain.
        x_name: what gains are in.
    """

    width: int
    headings: Sequence[tuple[float, str]]
    rows: Sequence[OverviewRow]
    zero: float
    x_name: str


def overview_panels(settings: Sequence[Sequence[Standing]]) -> list[OverviewPanel]:
    """Draw the mean gain of each start over the baseline, with its 95% interval; a panel for each unit."""
    by_unit: dict[str, list[Sequence[Standing]]] = {}
    for own in settings:
        if own:
            by_unit.setdefault(own[0].measured.unit, []).append(own)
    return [_panel(unit, several) for unit, several in by_unit.items()]


def _panel(unit: str, settings: Sequence[Sequence[Standing]]) -> OverviewPanel:
    every = [standing for own in settings for standing in own]
    left = 14.0 + _LETTER * min(_LONGEST, max(len(standing.row) for standing in every))
    ends = [0.0, *(standing.gain for standing in every)]
    ends += [end for standing in every for end in standing.interval or ()]
    x = scale(ends, left, _WIDTH - _FIGURE - 8)
    headings, rows, y = [], [], float(_TOP)
    for own in settings:
        headings.append((y + _HEADING / 2, own[0].setting))
        y += _HEADING
        for standing in own:
            rows.append(_row(standing, x, y + _PITCH / 2))
            y += _PITCH
    return OverviewPanel(
        title=f"Mean gain over the baseline, {unit}",
        description=f"Mean gain of each start in {unit}: {'; '.join(map(_told, every))}.",
        frame=Frame(left, _TOP, _WIDTH - _FIGURE - 8, y),
        x=x.ticks(5, signed=True),
        width=_WIDTH,
        headings=headings,
        rows=rows,
        zero=x(0),
        x_name=f"{unit}; bars: 95% interval of the mean",
    )


def _row(standing: Standing, x: Scale, y: float) -> OverviewRow:
    name = standing.row if len(standing.row) <= _LONGEST else f"{standing.row[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    ends = standing.interval
    between = None if ends is None else (x(ends[0]), x(ends[1]))
    return OverviewRow(standing.row, name, x(standing.gain), y, between, standing.written(standing.gain))


def _told(standing: Standing) -> str:
    between = "no interval" if standing.interval is None else standing.between(standing.interval)
    return f"{standing.setting}, {standing.row} {standing.written(standing.gain)} ({between})"
