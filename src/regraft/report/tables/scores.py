"""Tables of scores, in the layouts of the paper, and of alignments."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ..groups import TEACHER, Group, in_order, ordered, split_by
from ..results import Result
from ..table import NONE, Cell, Column, Table, columns, fixed, listed, of_task, proper, slug, texts
from .reference import Reference


def averages(groups: Sequence[Group], source: Reference | None = None) -> Table:
    """Lay out the averages of one setting as the paper's Tables 2 and 3 do; `source` is what they are taken from."""
    tasks = {(group.task, group.metric): None for group in groups}
    rows = []
    for own in split_by("peft", groups):
        by_task = {group.task: group for group in own}
        for row in ordered(row for group in own for row in group.rows):
            cells = [Cell(proper(own[0].peft)), Cell(row)]
            for task, _ in tasks:
                group = by_task.get(task)
                cells += _average(group, row) if group else [Cell(NONE), Cell(NONE)]
            rows.append(cells)
    pairs = [Column(head, of_task(task)) for task, metric in tasks for head in (proper(metric), "REL")]
    return Table(
        name=slug("averages", groups[0].setting),
        title=f"Averages over languages, {groups[0].setting} setting",
        columns=[*columns("module", "row"), *pairs],
        labels=2,
        rows=rows,
        notes=[
            f"Scores {_units(groups)} on the test split. REL: gap to the teacher. Bold: the best transferred start.",
            *_on_seeds(groups),
            *(_on_places(group) for group in groups if not group.whole()),
            *(source.discrepancies(groups[0].setting) if source else ()),
        ],
    )


def _average(group: Group, row: str) -> list[Cell]:
    places = group.shared()
    spread, teacher = group.average(row, places), group.average(TEACHER, places)
    if spread is None:
        return [Cell(NONE), Cell(NONE)]
    better, digits = group.measured.gain, group.measured.digits
    means = [other.mean for name in group.transferred if (other := group.average(name, places))]
    gap = fixed(better(spread.mean, teacher.mean), digits) if teacher and row != TEACHER else NONE
    deviation = "" if spread.deviation is None else f" ± {fixed(spread.deviation, digits)}"
    is_best = row in group.transferred and all(better(spread.mean, mean) >= 0 for mean in means)
    return [Cell(fixed(spread.mean, digits) + deviation, bold=is_best), Cell(gap)]


def _units(groups: Sequence[Group]) -> str:
    """Say what scores are in, and which are the better the less."""
    less = sorted({group.metric for group in groups if group.measured.less_is_better})
    if not less:
        return "in percent"
    rest = "" if all(group.measured.less_is_better for group in groups) else ", the others in percent"
    return f"({listed(less)}: the less the better, and gaps are negative where a row is worse{rest})"


def _on_seeds(groups: Sequence[Group]) -> list[str]:
    spreads = [spread for group in groups for row in group.rows if (spread := group.average(row, group.shared()))]
    if any(spread.deviation is not None for spread in spreads):
        return ["± is the sample standard deviation, over seeds, of the average over languages."]
    if any(len(own) > len({language for language, _ in own}) for group in groups for own in group.cells.values()):
        return [
            "Fewer than two seeds have all that is averaged, so it is not said how much averages vary with the seed."
        ]
    return ["One training per cell: nothing is known of how much a score varies with the seed."]


def _on_places(group: Group) -> str:
    seeds: dict[str, list[str]] = {}
    for language, seed in sorted(group.shared(), key=in_order):
        seeds.setdefault(language, []).extend([] if seed is None else [str(seed)])
    over = [
        language + (f" (seed{'s' if len(known) > 1 else ''} {listed(known)})" if known else "")
        for language, known in seeds.items()
    ]
    but = f" but {listed(group.left_out())}" if group.left_out() else ""
    return f"{of_task(group.task)} {proper(group.peft)}: averages over {listed(over)}, which all rows{but} have."


def per_language(groups: Sequence[Group]) -> Table:
    """Lay out the scores of one task per language, as the paper's Tables 4 to 6 do."""
    names = sorted({language for group in groups for language in group.languages})
    rows = []
    for group in groups:
        for row in group.rows:
            labels = (group.setting, proper(group.peft), row)
            places = [*map(group.shared, names), group.shared()]
            averages, digits = (group.average(row, here) for here in places), group.measured.digits
            rows.append(texts(*labels, *(fixed(spread.mean if spread else None, digits) for spread in averages)))
    return Table(
        name=slug("languages", groups[0].task),
        title=f"{of_task(groups[0].task)}: {proper(groups[0].metric)} per language",
        columns=columns("setting", "module", "row", *names, "average"),
        labels=3,
        rows=rows,
        notes=[
            f"Scores {_units(groups)} on the test split, averaged over seeds where there are several: in each "
            "language over those that all rows with results there share, the teacher over its own.",
            *(f"{group.setting}: {_on_places(group)}" for group in groups if not group.whole()),
        ],
    )


def alignments(groups: Sequence[Group]) -> list[Table]:
    """Lay out, per kind of module and start of one setting, how well each layer's spaces were aligned."""
    tables = []
    for own in split_by("peft", groups):
        for row in ordered(row for group in own for row in group.transferred):
            aligned = [result for group in own for result in group.results(row) if result.alignment]
            if aligned:
                tables.append(_alignment(aligned))
    return tables


_CORRELATED = (
    "Mean correlation of matched dimensions, on held-out texts and on the texts that the match was fitted on; "
)
_PREDICTED = "Share of the variance of the teacher's activations that the map predicts on held-out texts; "


def _alignment(results: Sequence[Result]) -> Table:
    scores = [score for result in results for score in result.alignment]
    spaces = sorted({score.space for score in scores})
    # A linear map matches no dimensions, so there is no correlation of matched ones; R2 there is of every map.
    linear = any(score.assigned is None for score in scores)
    rows = []
    for student, teacher in sorted({(score.student_layer, score.teacher_layer) for score in scores}):
        cells = [Cell(str(student)), Cell(str(teacher))]
        for space in spaces:
            here = [
                score
                for score in scores
                if (score.student_layer, score.teacher_layer, score.space) == (student, teacher, space)
            ]
            measures = [[s.r2 for s in here]] if linear else [[s.held_out for s in here], [s.assigned for s in here]]
            cells += map(_mean, measures)
        rows.append(cells)
    first = results[0]
    return Table(
        name=slug("alignment", first.setting, first.peft, first.row),
        title=f"Alignment of {first.row}, {proper(first.peft)}, {first.setting} setting",
        columns=[
            *columns("student layer", "teacher layer"),
            *(Column(head, space) for space in spaces for head in (("R2",) if linear else ("held-out", "fitted"))),
        ],
        labels=2,
        rows=rows,
        notes=[
            (_PREDICTED if linear else _CORRELATED)
            + f"mean over {len(results)} port{'s' if len(results) > 1 else ''}. The stronger the colour the better.",
        ],
    )


def _mean(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    return Cell(fixed(fmean(known)), shade=min(1.0, max(0.0, fmean(known)))) if known else Cell(NONE)
