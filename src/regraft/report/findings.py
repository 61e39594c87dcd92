"""What the results say, in sentences, and what they lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from .comparison import ENOUGH_PAIRS, Comparison, progress
from .groups import BASELINE, TEACHER, Group, Pair, by_unit, ordered, split_by
from .standings import Standing, of_setting
from .table import fixed, listed, of_task, percent, proper

_LEVEL = 0.05


@dataclass(frozen=True)
class Finding:
    """What is to be said of one setting.

    Attributes:
        setting: its name.
        verdict: in a few words.
        sentences: the numbers behind it.
    """

    setting: str
    verdict: str
    sentences: Sequence[str]


def findings(groups: Sequence[Group]) -> list[Finding]:
    """Sum up each setting; one whose gains are in several units, each apart."""
    return [_finding(own) for every in split_by("setting", groups) for own in by_unit(every)]


def _finding(groups: Sequence[Group]) -> Finding:
    setting, measured = groups[0].setting, groups[0].measured
    standings = of_setting(groups)
    if not standings:
        nothing = "No transferred start has a baseline of its language and seed."
        return Finding(setting, "nothing to compare yet", [nothing, *_without_labels(groups)])
    best = _best(standings)
    sentences = [
        f"Started from the teacher's module ({best.row}), the student beats its random start in {best.wins} of "
        f"{len(best.cells)} cells of task, language and kind of module; the mean gain is {best.written(best.gain)} "
        f"{measured.unit}."
    ]
    if best.rivals > 1:
        sentences.append(
            f"{best.row} is the best of {best.rivals} transferred starts, picked by these same scores"
            + (", which its interval is widened for." if best.picked_interval else ".")
        )
    own = best.comparisons
    sentences += [*_on_chance(own), *_on_gap(own), *_on_steps(groups, best.row), *_without_labels(groups)]
    return Finding(setting, _verdict(best), sentences)


def _best(standings: Sequence[Standing]) -> Standing:
    by_start = {
        standing.row: {
            (comparison.group.task, comparison.group.peft, pair.result.language, pair.result.seed): pair.gain
            for comparison in standing.comparisons
            for pair in comparison.group.pairs(standing.row)
        }
        for standing in standings
    }
    common = set.intersection(*(set(gains) for gains in by_start.values()))
    return max(
        standings,
        key=lambda one: fmean(by_start[one.row][cell] for cell in common or by_start[one.row]),
    )


def _verdict(best: Standing) -> str:
    """Say who is ahead, where an interval that leaves out 0 says so, and else that nobody surely is."""
    gain, ends = f"{best.written(best.gain)} {best.measured.unit}", best.picked_interval
    if ends is None:
        return f"no start is surely ahead; the best, {best.row}, {gain}, of too few trainings for an interval"
    figures = f"{gain} (95% interval {best.between(ends)})"
    if ends[0] <= 0 <= ends[1]:
        return f"no start is surely ahead; the best, {best.row}, {figures}"
    return f"{best.row} {'helps' if ends[0] > 0 else 'hurts'}, {figures}"


def _on_chance(own: Sequence[Comparison]) -> list[str]:
    tested = [comparison for comparison in own if comparison.p is not None]
    if not tested:
        return [
            f"Each task and kind has fewer than {ENOUGH_PAIRS} pairs, too few to test whether chance could do the same."
        ]
    better = sum(comparison.gain > 0 and (comparison.p or 0) < _LEVEL for comparison in tested)
    worse = sum(comparison.gain < 0 and (comparison.p or 0) < _LEVEL for comparison in tested)
    return [
        f"Taken by task and kind of module, it is significantly better in {better} of {len(tested)} and significantly "
        f"worse in {worse} (p < {_LEVEL}, uncorrected)."
    ]


def _on_gap(own: Sequence[Comparison]) -> list[str]:
    closed = [comparison for comparison in own if comparison.closed is not None]
    if not closed:
        return []
    low, high = (pick(closed, key=lambda c: c.closed or 0) for pick in (min, max))
    if low is high:
        return [f"It closes {percent(low.closed)} of the gap to the teacher."]
    return [f"It closes between {_share(low)} and {_share(high)} of the gap to the teacher."]


def _share(comparison: Comparison) -> str:
    return f"{percent(comparison.closed)} ({of_task(comparison.group.task)} {proper(comparison.group.peft)})"


def _on_steps(groups: Sequence[Group], start: str) -> list[str]:
    counted = [progress(group, start) for group in groups if start in group.rows]
    pairs, reached = sum(soon.pairs for soon in counted), sum(soon.reached for soon in counted)
    if not pairs:
        return []
    own = sum((soon.steps or 0) * soon.reached for soon in counted)
    baseline = sum((soon.baseline_steps or 0) * soon.reached for soon in counted)
    need = f" there it needs {percent(own / baseline)} of the baseline's steps," if baseline else ""
    return [
        f"It reaches the baseline's best validation score in {reached} of {pairs} trainings"
        + (f";{need} on average." if need else ".")
    ]


def _without_labels(groups: Sequence[Group]) -> list[str]:
    """Say what refining on the teacher's answers reaches, beside the random start with labels in the same cells."""
    by_row: dict[str, list[Pair]] = {}
    for group in groups:
        for row in group.label_free:
            by_row.setdefault(row, []).extend(group.pairs(row))
    return [
        f"Without a label, {row} scores {fixed(fmean(pair.result.score for pair in pairs))} on average; with labels, "
        f"the random start scores {fixed(fmean(pair.baseline.score for pair in pairs))} there."
        for row, pairs in by_row.items()
        if pairs
    ]


def missing(groups: Sequence[Group]) -> list[str]:
    """Say what the grid lacks; comparisons leave it out."""
    notes = []
    for group in groups:
        rows = ordered(row for other in groups if other.setting == group.setting for row in other.rows)
        place = f"{group.setting}, {of_task(group.task)}, {proper(group.peft)}"
        for role, row in (("teacher", TEACHER), ("baseline", BASELINE)):
            if row not in group.rows:
                notes.append(f"{place}: no {role} (row {row})")
        absent = [row for row in rows if row not in (*group.rows, TEACHER, BASELINE)]
        notes += [f"{place}: no {listed(absent)}"] if absent else []
        seeds = len({seed for row in group.rows if row != TEACHER for _, seed in group.places(row)})
        for row in group.rows:
            counts = Counter(language for language, _ in group.places(row))
            lacking = [language for language in group.languages if not counts[language]]
            notes += [f"{place}: {row} lacks {listed(lacking)}"] if lacking else []
            short = [f"{name} ({count} of {seeds})" for name, count in sorted(counts.items()) if count < seeds]
            if short and row != TEACHER:  # one teacher serves all seeds
                notes.append(f"{place}: {row} lacks seeds in {listed(short)}")
        if alone := group.left_out():
            has = "has" if len(alone) == 1 else "have"
            notes.append(
                f"{place}: averages leave out {listed(alone)}, which {has} no training in common with the rest"
            )
    return notes
