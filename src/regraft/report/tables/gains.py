"""Tables that compare the transferred starts with the baseline; the paper has none of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ...tasks.records import Metric
from ..comparison import ENOUGH_FOR_INTERVAL, ENOUGH_PAIRS, Comparison, compare, progress
from ..groups import BASELINE, Group
from ..results import Result
from ..standings import standings
from ..table import NONE, Table, columns, duration, fixed, listed, of_task, p_value, percent, proper, slug, texts


def gains(groups: Sequence[Group]) -> Table:
    """Compare the transferred starts of one setting with the baseline; no rows where nothing can be compared."""
    comparisons = [comparison for group in groups for comparison in compare(group)]
    return Table(
        name=slug("gains", groups[0].setting),
        title=f"Gains over the baseline, {groups[0].setting} setting",
        columns=columns("task", "module", "start", "pairs", "gain", "95% interval", "p", "wins", "gap closed"),
        labels=3,
        rows=[texts(*_gain(comparison)) for comparison in comparisons],
        notes=[
            f"The baseline is the row {BASELINE}: the same training from a random start. Gain: mean difference in "
            f"{_units(comparisons)} over pairs of the same language and seed.",
            *_on_tests(comparisons),
            "Wins: languages in which the start is better, seeds averaged; a tie is no win. "
            "Gap closed: share of the gap between teacher and baseline, on the same pairs; none of less than "
            f"{_least(comparisons)}.",
        ],
    )


def _gain(comparison: Comparison) -> list[str]:
    digits = comparison.group.measured.digits
    bounds = [fixed(bound, digits, signed=True) for bound in comparison.interval or ()]
    ties = f", {comparison.ties} tied" if comparison.ties else ""
    return [
        of_task(comparison.group.task),
        proper(comparison.group.peft),
        comparison.row,
        str(comparison.pairs),
        fixed(comparison.gain, digits, signed=True),
        " to ".join(bounds) or NONE,
        p_value(comparison.p),
        f"{comparison.wins} of {len(comparison.by_language)}{ties}",
        percent(comparison.closed),
    ]


def _units(comparisons: Sequence[Comparison]) -> str:
    units = {comparison.group.measured.unit: comparison.group for comparison in comparisons}
    if len(units) < 2 and not any(group.measured.less_is_better for group in units.values()):
        return "points"
    of_each = [f"{unit} ({of_task(group.task)})" for unit, group in units.items()]
    return f"{listed(of_each)}, positive where the start is better,"


def _least(comparisons: Sequence[Comparison]) -> str:
    gaps = {each.group.measured.unit: each.group.measured.least_gap for each in comparisons}
    return listed(["a point" if unit == "points" else f"{gap:g} {unit}" for unit, gap in gaps.items()] or ["a point"])


def _on_tests(comparisons: Sequence[Comparison]) -> list[str]:
    notes = []
    if any(comparison.interval is not None for comparison in comparisons):
        notes.append(
            "Interval: Student's, of the mean over pairs. p: two-sided paired sign-flip test on the mean, uncorrected "
            "for the number of rows. Both take pairs as independent, which seeds of one language are only in part."
        )
    few = sorted({comparison.pairs for comparison in comparisons if comparison.p is None})
    if few:
        best = p_value(2 / 2 ** few[-1])
        notes.append(
            f"No p for {listed([str(n) for n in few])} pair{'s' if few != [1] else ''}: with fewer "
            f"than {ENOUGH_PAIRS} the test cannot reach 5% even if every pair gains (p = {best} at best). An interval "
            f"takes {ENOUGH_FOR_INTERVAL}."
        )
    return notes


def wins(groups: Sequence[Group]) -> Table:
    """Count, for all settings, in how many cells each transferred start beats the baseline."""
    rows = []
    for standing in (one for every in standings(groups) for one in every):
        share = percent(standing.wins / len(standing.cells))
        counts = (str(standing.wins), str(standing.ties), str(len(standing.cells)), share)
        gain = f"{standing.written(standing.gain)}{_named(standing.measured)}"
        between = NONE if standing.interval is None else standing.between(standing.interval)
        rows.append(texts(standing.setting, standing.row, *counts, gain, between))
    return Table(
        name="wins",
        title="Wins over the baseline",
        columns=columns("setting", "start", "wins", "ties", "cells", "share won", "mean gain", "95% interval"),
        labels=2,
        rows=rows,
        notes=[
            "A cell is a task, a language and a kind of module, seeds averaged; a tie is no win. Interval: Student's, "
            "of the mean over cells or, of less than three, over their seeds; not widened for the number of starts."
        ],
    )


def _named(measured: Metric) -> str:
    """Name a unit that is not the usual one."""
    return "" if measured.unit == "points" else f" {measured.unit}"


def training(groups: Sequence[Group]) -> Table:
    """Say how training went in one setting: where it began, how soon it was good, how long it took."""
    rows = []
    for group in groups:
        for row in group.rows:
            runs = group.results(row)
            if any(run.before is not None or run.curve or run.seconds is not None for run in runs):
                labels = (of_task(group.task), proper(group.peft), row)
                rows.append(texts(*labels, *_training(group, row, runs)))
    measures = ("before training", "steps to baseline's best", "baseline's own", "reached by", "time")
    return Table(
        name=slug("training", groups[0].setting),
        title=f"How training went, {groups[0].setting} setting",
        columns=columns("task", "module", "row", *measures),
        labels=3,
        rows=rows,
        notes=[
            "Before training: score on the validation split before the first step, mean over languages and seeds; "
            "students over those that they share.",
            "Steps to baseline's best: training steps until the validation score is as good as the best that the "
            "baseline of the same language and seed ever has; mean over the pairs that reach it (reached by), "
            "beside the steps that the baseline took in the same pairs.",
            "Time: mean wall time of trainings that were not interrupted, loading and scoring included, h:mm:ss.",
        ],
    )


def _training(group: Group, row: str, runs: Sequence[Result]) -> list[str]:
    shared = group.shared()
    compared = [
        run for language in {language for language, _ in shared} for run in group.runs(row, language, shared).values()
    ]
    before = [run.before for run in compared if run.before is not None]
    seconds = [run.seconds for run in runs if run.seconds is not None]
    steps = [NONE, NONE, NONE]
    if row in group.transferred and (soon := progress(group, row)).pairs:
        steps = [fixed(soon.steps, 0), fixed(soon.baseline_steps, 0), f"{soon.reached} of {soon.pairs}"]
    return [
        fixed(fmean(before) if before else None, group.measured.digits),
        *steps,
        duration(fmean(seconds) if seconds else None),
    ]
