"""What the command line prints: scores and comparisons as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from ..modules.peft_types import PEFT_TYPES
from ..modules.tensors import head_rows
from ..tasks.agreement import COSINE, NUMBERS
from ..tasks.records import metric_named
from .tables import print_table

if TYPE_CHECKING:
    from pathlib import Path

    from ..distillation.comparison import Comparison
    from ..modules.module import Module
    from ..training.evaluation import Evaluation
    from ..training.harness import HarnessScore
    from ..training.labels import LabelOrder


def show_scores(console: Console, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics, one row per split."""
    rows = [
        (split, *(f"{value:.{metric_named(name).digits}f}" for name, value in values.items()))
        for split, values in scores.items()
    ]
    print_table(console, ("split", *next(iter(scores.values()))), rows)


def how_to_load(module: Module, out: Path) -> str:
    """Say how PEFT loads a module, with what it wants beside the directory: as many labels, a method of ours."""
    rows, method = head_rows(module.tensors), PEFT_TYPES.get(module.peft_type)
    onto = "" if rows is None else f" onto a model with num_labels={rows}"
    after = " after 'import regraft'" if method is not None and method.ours else ""
    return f"PeftModel.from_pretrained(model, {str(out)!r}) loads it{onto}{after}"


def show_order(console: Console, order: LabelOrder, module: str) -> None:
    """Say in which order the labels of a module were taken, if it has any."""
    if order.labels:
        console.print(order.sentence(module), soft_wrap=True)


def show_evaluation(console: Console, split: str, found: Evaluation, option: str) -> None:
    """Print scores, and that they are doubtful where they are; arguments as for `Evaluation.doubt`."""
    show_scores(console, {split: found.scores})
    if doubt := found.doubt(option):
        console.print(doubt, soft_wrap=True)


# How far the answers of two modules are apart, by what they are compared by.
_FAR = {NUMBERS: "squared error", COSINE: "1 - cosine"}


def show_comparison(console: Console, found: Comparison) -> None:
    """Print how far a student's answers are the teacher's: of the whole module, of its head alone, label by label."""
    words = "" if found.rows == found.texts else f" ({found.rows} words)"
    console.print(f"{found.student} beside {found.teacher} on {found.texts} texts{words}", soft_wrap=True)
    show_written(console, found.texts, found.written)
    if found.cut:
        console.print(f"{found.cut} answers of the teacher are left out: the student's texts were cut before them")
    if found.matched == "positions" and found.labels:
        console.print("Labels are matched by position: not both modules name theirs")
    far = _FAR.get(found.agreement.metric, "KL")
    rows = []
    for name, one in (("the student", found.agreement), (f"its {found.bare} alone", found.head_alone)):
        low, high = one.interval
        rows.append((name, f"{one.percent:.1f}", f"{low:.1f} to {high:.1f}", f"{one.divergence:.3f}"))
    if found.bits_per_byte is None:
        rows.append((found.always, f"{found.floor:.1f}", "", ""))
    print_table(console, ("the teacher's answer is given by", found.agreement.metric, "95% interval", far), rows)
    if found.bits_per_byte is None:
        no_head = "A bare student has no head to answer with: the" if found.bare == "head" else "The"
        console.print(f"{no_head} last row is what knowing nothing scores.")
    else:
        teacher, student, bare = (f"{found.bits_per_byte[name]:.4f}" for name in ("teacher", "student", "alone"))
        console.print(f"Bits per byte: the student {student}, its model alone {bare}, the teacher {teacher}")
    if found.calibration is not None:
        sure = found.calibration
        console.print(
            f"Mean confidence {sure.student:.2f}, of the teacher {sure.teacher:.2f}; calibration error {sure.error:.3f}"
        )
        labels = []
        for label in found.labels:
            known = ("-" if one is None else f"{one:.1f}" for one in (label.precision, label.recall))
            labels.append((label.label, f"{label.share:.1f}%", *known))
        print_table(console, ("label", "teacher gives it", "precision", "recall"), labels)


def show_written(console: Console, count: int, file: str | None) -> None:
    """Print where the texts are that the teacher wrote, if it did."""
    if file is not None:
        console.print(f"The teacher wrote the {count} texts: {file}", soft_wrap=True)


def show_harness(console: Console, scores: Sequence[HarnessScore]) -> None:
    """Print scores of lm-evaluation-harness, one row per task and metric."""
    rows = []
    for score in scores:
        better = {True: "more", False: "less", None: ""}[score.more_is_better]
        error = "" if score.error is None else f"{score.error:.4f}"
        rows.append((score.task, score.metric, better, f"{score.base:.4f}", f"{score.module:.4f}", error))
    print_table(console, ("task", "metric", "better", "base", "with module", "error"), rows)


def show_losses(console: Console, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Print losses on held-out text, one row per loss."""
    rows = [(name, f"{value:.4f}", f"{after[name]:.4f}") for name, value in before.items()]
    print_table(console, ("held-out loss", "before", "after"), rows)
