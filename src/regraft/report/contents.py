"""What a report holds, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from .charts.curves import CurvePanel, curve_panel
from .charts.dots import GainPanel, gain_panels
from .findings import Finding, findings, missing
from .groups import TEACHER, Group, groups, ordered
from .results import Result
from .table import Table, plural
from .tables import gains, scores
from .tables.forecasts import foretold
from .tables.reference import Reference, beside, published


@dataclass(frozen=True)
class Setting:
    """What a report says of one pair of models.

    Attributes:
        name: of the setting.
        scores: tables of scores and gains.
        gains: charts of the gains per language.
        curves: charts of the learning curves.
        training: the table of how training went, if anything is known.
        alignments: heat maps.
    """

    name: str
    scores: Sequence[Table]
    gains: Sequence[GainPanel]
    curves: Sequence[CurvePanel]
    training: Table | None
    alignments: Sequence[Table]


@dataclass(frozen=True)
class Contents:
    """All of a report.

    Attributes:
        title: its title.
        facts: how much it is about, in a few words each.
        findings: one per setting.
        missing: what the results lack.
        wins: the table of wins, where there is a baseline.
        settings: one part per setting.
        languages: scores per language, one table per task.
        foretold: what was known before training beside the gains; empty where too little was.
        reference: the run beside published results, if that was asked for.
        starts: the names of the transferred starts.
    """

    title: str
    facts: Sequence[str]
    findings: Sequence[Finding]
    missing: Sequence[str]
    wins: Table | None
    settings: Sequence[Setting]
    languages: Sequence[Table]
    foretold: Sequence[Table]
    reference: Table | None
    starts: Sequence[str]

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order of the page."""
        found: list[Table | None] = [self.wins]
        for setting in self.settings:
            found += [*setting.scores, setting.training, *setting.alignments]
        return [table for table in (*found, *self.languages, *self.foretold, self.reference) if table]


def contents(results: Iterable[Result], title: str, reference: Reference | None = None) -> Contents:
    """Work out a report.

    Args:
        results: one per trained module, in any order.
        title: what was done.
        reference: published results to set beside them.

    Raises:
        ReportError: there are no results, or some contradict each other.
    """
    results = list(results)
    grid = groups(results)
    source = published(results)
    report = Contents(
        title=title,
        facts=_facts(results),
        findings=findings(grid),
        missing=missing(grid),
        wins=gains.wins(grid),
        settings=[
            _setting([group for group in grid if group.setting == setting], source)
            for setting in ordered(group.setting for group in grid)
        ],
        languages=[
            scores.per_language([group for group in grid if group.task == task])
            for task in ordered(group.task for group in grid)
        ],
        foretold=foretold(grid),
        reference=beside(grid, reference) if reference else None,
        starts=ordered(row for group in grid for row in group.transferred),
    )
    return _named_apart(report)


def _named_apart(report: Contents) -> Contents:
    """Number the tables whose names are the same, such as those of the settings "a b" and "a-b"."""
    taken: set[str] = set()

    def apart(table: Table) -> Table:
        names = (f"{table.name}-{number}" for number in count(2))
        name = table.name if table.name not in taken else next(name for name in names if name not in taken)
        taken.add(name)
        return replace(table, name=name)

    return replace(
        report,
        settings=[
            replace(
                setting,
                scores=[*map(apart, setting.scores)],
                training=setting.training and apart(setting.training),
                alignments=[*map(apart, setting.alignments)],
            )
            for setting in report.settings
        ],
        languages=[*map(apart, report.languages)],
    )


def _setting(groups: Sequence[Group], source: Reference | None) -> Setting:
    averages, gained = scores.averages(groups), gains.gains(groups)
    if source:
        averages = replace(averages, notes=[*averages.notes, *source.discrepancies(groups[0].setting)])
    return Setting(
        name=groups[0].setting,
        scores=[averages, gained] if gained else [averages],
        gains=gain_panels(groups),
        curves=[panel for group in groups if (panel := curve_panel(group))],
        training=gains.training(groups),
        alignments=scores.alignments(groups),
    )


def _facts(results: Sequence[Result]) -> list[str]:
    counted: dict[str, set[object]] = {
        "setting": {result.setting for result in results},
        "task": {result.task for result in results},
        "language": {result.language for result in results},
        "seed": {result.seed for result in results if result.seed is not None and result.row != TEACHER},
    }
    counts = [("trained module", len(results)), *((name, len(found)) for name, found in counted.items() if found)]
    return [plural(number, name) for name, number in counts]
