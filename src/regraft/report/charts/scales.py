"""Axes of charts: from numbers to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..table import fixed

WIDTH = 360


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in pixels."""

    at: float
    text: str


@dataclass(frozen=True)
class Frame:
    """The part of a panel in which data are drawn, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Panel:
    """A chart of one group.

    Attributes:
        title: what is shown.
        description: what is to be seen, in words.
        frame: where the data are; below it the template writes the axis.
        x: ticks of the horizontal axis.
    """

    title: str
    description: str
    frame: Frame
    x: Sequence[Tick]


@dataclass(frozen=True)
class Scale:
    """A linear axis.

    Attributes:
        low: the number at `start`.
        high: the number at `end`.
        start: in pixels.
        end: in pixels.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, number: float) -> float:
        """Return the pixel of a number."""
        share = (number - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, about: int, signed: bool = False) -> list[Tick]:
        """Return round numbers on the axis, about so many."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [Tick(self(number * step), fixed(number * step, digits, signed)) for number in numbers]


def scale(numbers: Sequence[float], start: float, end: float, margin: float = 0.04) -> Scale:
    """Make an axis that holds all the numbers, with a share of its length to spare at both ends."""
    low, high = min(numbers), max(numbers)
    spare = margin * (high - low) if high > low else 1.0
    return Scale(low - spare, high + spare, start, end)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move labels so that none is closer to another than `gap`, keeping their order and, about, their middle."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + gap)
    shift = (sum(moved) - sum(heights)) / len(heights)
    return [round(height - shift, 1) for height in moved]
