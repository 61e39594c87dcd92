"""Results as a grid: per setting, task and kind of module, rows x languages x seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from ..errors import ReportError
from ..tasks.records import Metric, metric_named
from .results import LEAST, MOST, Result

TEACHER, BASELINE = "teacher", "student"

Place = tuple[str, int | None]  # language and seed of a training

# The paper's order; whatever it does not have follows by name.
_FIRST = ("matching", "incompatible", "ner", "pi", "nli", "adapter", "bottleneck", "lora", TEACHER, BASELINE)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Sort settings, tasks, kinds or rows as the paper does."""
    return tuple(sorted(set(names), key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)))


def in_order(place: Place) -> tuple[str, bool, int]:
    """Sort places by language and seed, the unknown seed first."""
    language, seed = place
    return language, seed is not None, seed or 0


class Pair(NamedTuple):
    """A result, and the baseline's of the same language and seed."""

    result: Result
    baseline: Result

    @property
    def gain(self) -> float:
        """How much better the result is, in units of the metric."""
        return self.result.measured.gain(self.result.score, self.baseline.score)


@dataclass(frozen=True)
class Spread:
    """A mean and, where there are several seeds, how far it varies between them."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Group:
    """All results of one setting, task and kind of module.

    Attributes:
        setting: name of the pair of models.
        task: its name.
        metric: its name.
        peft: kind of the module.
        cells: row -> (language, seed) -> result.
    """

    setting: str
    task: str
    metric: str
    peft: str
    cells: Mapping[str, Mapping[Place, Result]]

    @property
    def measured(self) -> Metric:
        """How its scores are read."""
        return metric_named(self.metric)

    @property
    def rows(self) -> tuple[str, ...]:
        """All rows: the teacher, the baseline, then the transferred starts."""
        return ordered(self.cells)

    @property
    def transferred(self) -> tuple[str, ...]:
        """The rows that start from the teacher's module and are trained as the baseline is."""
        return tuple(row for row in self.rows if row not in (TEACHER, BASELINE, *self.label_free))

    @property
    def label_free(self) -> tuple[str, ...]:
        """The rows that were trained on the teacher's answers alone."""
        return tuple(row for row in self.rows if any(result.refined for result in self.results(row)))

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that any row has."""
        return tuple(sorted({language for own in self.cells.values() for language, _ in own}))

    def places(self, row: str) -> set[Place]:
        """Return the places that a row has."""
        return set(self.cells.get(row, ()))

    def results(self, row: str) -> list[Result]:
        """Return all results of a row."""
        return list(self.cells.get(row, {}).values())

    def shared(self, language: str | None = None) -> set[Place]:
        """Return the places, of one language or all, on which rows compare: those that all students have.

        The teacher serves all seeds, so it only needs to have the language. A row that has no place in common with
        those before it is left out; the baseline comes first, then the starts, those with most places first, then the
        teacher.
        """
        places = {place for row in self.rows for place in self.places(row) if language in (None, place[0])}
        for row in (BASELINE, *sorted(self.transferred, key=lambda row: -len(self.places(row)))):
            places = places & self.places(row) or places
        taught = {language for language, _ in self.places(TEACHER)}
        return {place for place in places if place[0] in taught} or places

    def left_out(self) -> tuple[str, ...]:
        """Return the rows that have none of the places on which rows compare."""
        return tuple(row for row in self.rows if self.average(row, self.shared()) is None)

    def whole(self) -> bool:
        """Say whether all rows have all places, so that comparisons leave nothing out."""
        shared = self.shared()
        students = (row for row in self.rows if row != TEACHER)
        return {language for language, _ in shared} == set(self.languages) and all(
            self.places(row) == shared for row in students
        )

    def average(self, row: str, places: Collection[Place]) -> Spread | None:
        """Average a row over places, seeds first and then languages; the teacher over its own seeds.

        The deviation is the sample standard deviation, over the seeds that have all languages, of the average over
        languages.

        Returns:
            None where the row lacks a place, or there is none.
        """
        runs = [self.runs(row, language, places) for language in {language for language, _ in places}]
        if not runs or not all(runs):
            return None
        seeds = set(runs[0]).intersection(*runs[1:])
        averages = [fmean(by_seed[seed].score for by_seed in runs) for seed in seeds]
        mean = fmean(fmean(result.score for result in by_seed.values()) for by_seed in runs)
        return Spread(mean, stdev(averages) if len(averages) > 1 else None)

    def runs(self, row: str, language: str, places: Collection[Place]) -> dict[int | None, Result]:
        """Return a row's results in the places of one language by seed; none where it lacks one of them.

        The teacher, which serves all seeds, has its own.
        """
        own = self.cells.get(row, {})
        here = [place for place in (own if row == TEACHER else places) if place[0] == language]
        return {place[1]: own[place] for place in here} if all(place in own for place in here) else {}

    def pairs(self, row: str) -> list[Pair]:
        """Pair a row's results with the baseline's of the same language and seed."""
        places = sorted(self.places(row) & self.places(BASELINE), key=in_order)
        return [Pair(self.cells[row][place], self.cells[BASELINE][place]) for place in places]


def groups(results: Iterable[Result]) -> list[Group]:
    """Arrange results; their order does not matter.

    Raises:
        ReportError: there are none, one is there twice, a score is none that can be, or a task has two metrics.
    """
    cells: dict[tuple[str, str, str], dict[str, dict[Place, Result]]] = defaultdict(dict)
    metrics: dict[str, str] = {}
    for result in results:
        place = f"{result.setting}, {result.task}, {result.peft}, {result.row}, {result.language}, seed {result.seed}"
        if not LEAST <= result.score <= MOST:
            raise ReportError(f"the score of {place} is {result.score:g}, expected a number in percent; leave it out")
        if metrics.setdefault(result.task, result.metric) != result.metric:
            raise ReportError(
                f"task {result.task} has results in {metrics[result.task]} and in {result.metric}, which do not "
                "compare; report them apart"
            )
        runs = cells[result.setting, result.task, result.peft].setdefault(result.row, {})
        if (result.language, result.seed) in runs:
            raise ReportError(f"found two results for {place}, expected one; remove one or give each its own seed")
        runs[result.language, result.seed] = result
    if not cells:
        raise ReportError("found no results, expected at least one trained module; train one first")
    return [
        Group(setting, task, metrics[task], peft, cells[setting, task, peft])
        for setting in ordered(setting for setting, _, _ in cells)
        for task in ordered(task for _, task, _ in cells)
        for peft in ordered(peft for _, _, peft in cells)
        if (setting, task, peft) in cells
    ]


def by_unit(groups: Sequence[Group]) -> list[list[Group]]:
    """Put together the groups whose gains are in one unit, so that they can be averaged."""
    units = dict.fromkeys(group.measured.unit for group in groups)
    return [[group for group in groups if group.measured.unit == unit] for unit in units]


def split_by(field: Literal["setting", "task", "peft"], groups: Sequence[Group]) -> list[list[Group]]:
    """Put together the groups that have the same setting, task or kind of module, in the paper's order."""
    values = ordered(getattr(group, field) for group in groups)
    return [[group for group in groups if getattr(group, field) == value] for value in values]
