"""What a report holds, in the order in which it is read.

A new table is one more call in `_of_setting`, below a heading of each setting, in `_of_all`, below one of its own, or
in `contents`, below the findings: the page, the files and the command line go by what stands there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count

from .charts.curves import CurvePanel, curve_panels
from .charts.dots import GainPanel, gain_panels
from .charts.overview import OverviewPanel, overview_panels
from .charts.steps import StepsPanel, steps_panels
from .findings import Finding, findings, missing
from .groups import TEACHER, Group, by_unit, groups, ordered, split_by
from .results import Result
from .standings import standings
from .table import Table, plural
from .tables import gains, scores
from .tables.forecasts import foretold
from .tables.label_free import without_labels
from .tables.reference import Reference, beside, load_reference, published
from .terms import subject, terms


@dataclass(frozen=True)
class Section:
    """Tables below a heading.

    Attributes:
        heading: the heading.
        tables: one or more.
        text: what to say before them.
    """

    heading: str
    tables: Sequence[Table]
    text: str = ""


@dataclass(frozen=True)
class Setting:
    """What a report says of one pair of models.

    Attributes:
        name: of the setting.
        sections: its tables; the charts follow the first section.
        gains: charts of the gains per language.
        curves: charts of the learning curves.
        steps: charts of the scores by steps, where modules were refined.
    """

    name: str
    sections: Sequence[Section]
    gains: Sequence[GainPanel]
    curves: Sequence[CurvePanel]
    steps: Sequence[StepsPanel]


@dataclass(frozen=True)
class Contents:
    """All of a report.

    Attributes:
        title: its title.
        subject: what was compared.
        facts: how much it is about, in a few words each.
        findings: one per setting.
        overview: charts of all starts.
        terms: word -> what it means here, of those that a stranger would not know.
        missing: what the results lack.
        summary: tables that belong to the findings.
        settings: one part per setting.
        sections: tables over all settings.
        starts: the names of the transferred starts.
    """

    title: str
    subject: str
    facts: Sequence[str]
    findings: Sequence[Finding]
    overview: Sequence[OverviewPanel]
    terms: Mapping[str, str]
    missing: Sequence[str]
    summary: Sequence[Table]
    settings: Sequence[Setting]
    sections: Sequence[Section]
    starts: Sequence[str]

    @property
    def tables(self) -> list[Table]:
        """All tables, in the order of the page."""
        sections = [*(section for setting in self.settings for section in setting.sections), *self.sections]
        return [*self.summary, *(table for section in sections for table in section.tables)]


def _of_setting(groups: Sequence[Group], source: Reference | None) -> list[Section]:
    return _sections(
        Section("Scores", _there(scores.averages(groups, source), gains.gains(groups))),
        Section("Without labels", _there(without_labels(groups))),
        Section("Training", _there(gains.training(groups))),
        Section("Alignment per layer", scores.alignments(groups)),
    )


def _of_all(grid: Sequence[Group], reference: Reference | None) -> list[Section]:
    return _sections(
        Section("Per language", [*map(scores.per_language, split_by("task", grid))]),
        Section(
            "Could it be told before training?",
            [table for own in by_unit(grid) for table in foretold(own)],
            "What is expected of a start before anything is trained (regraft plan), beside what it then gained.",
        ),
        Section("Published results", [beside(grid, reference)] if reference else []),
    )


def _there(*tables: Table) -> list[Table]:
    return [table for table in tables if table.rows]


def _sections(*sections: Section) -> list[Section]:
    return [section for section in sections if section.tables]


def contents(results: Iterable[Result], title: str, reference: str | None = None) -> Contents:
    """Work out a report.

    Args:
        results: one per trained module, in any order.
        title: what was done.
        reference: published results to set beside them: ``"paper"``, or none.

    Raises:
        ReportError: there are no results, some contradict each other, or the reference is not known.
    """
    results = list(results)
    grid = groups(results)
    source = published(results)
    report = Contents(
        title=title,
        subject=subject(grid),
        facts=_facts(results),
        findings=findings(grid),
        overview=overview_panels(standings(grid)),
        terms=terms(grid),
        missing=missing(grid),
        summary=_there(gains.wins(grid)),
        settings=[
            Setting(
                name=own[0].setting,
                sections=_of_setting(own, source),
                gains=gain_panels(own),
                curves=curve_panels(own),
                steps=steps_panels(own),
            )
            for own in split_by("setting", grid)
        ],
        sections=_of_all(grid, load_reference(reference) if reference else None),
        starts=ordered(row for group in grid for row in group.transferred),
    )
    return _named_apart(report)


def _named_apart(report: Contents) -> Contents:
    """Number the tables whose names are the same, such as those of the settings "a b" and "a-b"."""
    names: set[str] = set()

    def apart(table: Table) -> Table:
        numbered = (f"{table.name}-{number}" for number in count(2))
        name = next(name for name in chain([table.name], numbered) if name not in names)
        names.add(name)
        return replace(table, name=name)

    def all_apart(sections: Sequence[Section]) -> list[Section]:
        return [replace(section, tables=[*map(apart, section.tables)]) for section in sections]

    return replace(
        report,
        summary=[*map(apart, report.summary)],
        settings=[replace(setting, sections=all_apart(setting.sections)) for setting in report.settings],
        sections=all_apart(report.sections),
    )


def _facts(results: Sequence[Result]) -> list[str]:
    counted: dict[str, set[object]] = {
        "setting": {result.setting for result in results},
        "task": {result.task for result in results},
        "language": {result.language for result in results},
        "seed": {result.seed for result in results if result.seed is not None and result.row != TEACHER},
    }
    counts = [("trained module", len(results)), *((name, len(values)) for name, values in counted.items() if values)]
    return [plural(number, name) for name, number in counts]
