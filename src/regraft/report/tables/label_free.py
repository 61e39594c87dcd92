"""What was reached without labels, beside what labels reach."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ..groups import BASELINE, TEACHER, Group
from ..table import Column, Table, columns, fixed, of_task, proper, slug, texts


def without_labels(groups: Sequence[Group]) -> Table:
    """Set modules that were refined on the teacher's answers beside the baseline, which has labels; one setting."""
    rows = [texts(*_row(group, row)) for group in groups for row in group.label_free]
    return Table(
        name=slug("label-free", groups[0].setting),
        title=f"Without labels, {groups[0].setting} setting",
        columns=[
            *columns("task", "module", "row", "texts", "steps"),
            *(Column(head, group) for group in ("agreement", "validation") for head in ("before", "after")),
            *(Column(head, "test") for head in ("after", BASELINE, TEACHER)),
        ],
        labels=3,
        rows=rows,
        notes=[
            "Refined on what the teacher's module answers to the task's training inputs; labels serve for the scores "
            "alone. Texts: learnt from; a tenth is held out besides. Steps: taken; the state that agrees best is kept. "
            "Agreement: with the teacher on the held-out texts. Validation, test: scores on these splits; beside them "
            f"{BASELINE}, the random start with labels, on the trainings that both have. Percent; means over languages "
            "and seeds.",
        ],
    )


def _row(group: Group, row: str) -> list[str]:
    results = group.results(row)
    refined = [result.refined for result in results if result.refined]
    before = [result.before for result in results if result.before is not None]
    reached = [result.curve[-1].score for result in results if result.curve]
    baseline = [pair.baseline.score for pair in group.pairs(row)]
    teacher = group.average(TEACHER, group.places(row))
    return [
        of_task(group.task),
        proper(group.peft),
        row,
        *(fixed(fmean(values), 0) for values in ([one.texts for one in refined], [one.steps for one in refined])),
        *(fixed(fmean(values)) for values in ([one.before for one in refined], [one.after for one in refined])),
        *(fixed(fmean(values) if values else None) for values in (before, reached)),
        fixed(fmean(result.score for result in results)),
        fixed(fmean(baseline) if baseline else None),
        fixed(teacher.mean if teacher else None),
    ]
