"""Where each transferred start stands in a setting, over all of its tasks, languages and kinds of module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..tasks.records import Metric
from .comparison import ENOUGH_FOR_INTERVAL, Comparison, compare, interval
from .groups import Group, by_unit, ordered, split_by
from .table import fixed

_LEVEL = 0.95


@dataclass(frozen=True)
class Standing:
    """A transferred start in one setting.

    Attributes:
        setting: its name.
        row: the start.
        measured: of the gains.
        comparisons: with the baseline, per task and kind of module.
        rivals: how many transferred starts the setting has, this one among them.
    """

    setting: str
    row: str
    measured: Metric
    comparisons: Sequence[Comparison]
    rivals: int

    @property
    def cells(self) -> tuple[float, ...]:
        """The gain per cell of task, language and kind of module, seeds averaged."""
        return tuple(gain for comparison in self.comparisons for gain in comparison.by_language.values())

    @property
    def gain(self) -> float:
        """The mean gain over the cells."""
        return fmean(self.cells)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean gain: over the cells or, where they are too few for one, over their seeds."""
        return interval(self._values)

    @property
    def picked_interval(self) -> tuple[float, float] | None:
        """The same, widened for having picked the start among its rivals by these very gains (Bonferroni)."""
        return interval(self._values, 1 - (1 - _LEVEL) / self.rivals)

    @property
    def _values(self) -> tuple[float, ...]:
        if len(self.cells) >= ENOUGH_FOR_INTERVAL:
            return self.cells
        return tuple(pair.gain for comparison in self.comparisons for pair in comparison.group.pairs(self.row))

    @property
    def wins(self) -> int:
        """In how many cells it is better than the baseline."""
        return sum(comparison.wins for comparison in self.comparisons)

    @property
    def ties(self) -> int:
        """In how many cells it is neither better nor worse."""
        return sum(comparison.ties for comparison in self.comparisons)

    def written(self, value: float) -> str:
        """Write a gain, without its unit."""
        return fixed(value, self.measured.digits, signed=True)

    def between(self, ends: tuple[float, float]) -> str:
        """Write an interval of the gain."""
        return f"{self.written(ends[0])} to {self.written(ends[1])}"


def standings(groups: Sequence[Group]) -> list[list[Standing]]:
    """Sum up the starts of each setting; those of one whose gains are in several units, for each unit."""
    return [of_setting(own) for every in split_by("setting", groups) for own in by_unit(every)]


def of_setting(groups: Sequence[Group]) -> list[Standing]:
    """Sum up the starts of one setting with gains in one unit."""
    comparisons = [comparison for group in groups for comparison in compare(group)]
    starts = ordered(comparison.row for comparison in comparisons)
    return [
        Standing(
            groups[0].setting,
            start,
            groups[0].measured,
            [comparison for comparison in comparisons if comparison.row == start],
            len(starts),
        )
        for start in starts
    ]
