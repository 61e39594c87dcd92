"""What the command line prints: tables that people can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from ..models.sites import stack_of
from ..modules.config import PREFIX
from ..modules.peft_types import PEFT_TYPES
from ..port.advice import (
    derived_said,
    layers_advised,
    operation_said,
    quantised_said,
    relation_said,
    shortened,
    texts_advised,
)
from ..port.layers import Group
from ..port.limits import mappable
from ..port.parts import Target
from ..port.pipeline import Port
from ..port.plan import Plan
from ..port.serving import serving_said
from ..tasks.agreement import COSINE, NUMBERS
from ..tasks.records import metric_named

if TYPE_CHECKING:
    from ..distillation.comparison import Comparison
    from ..training.evaluation import Evaluation
    from ..training.harness import HarnessScore
    from ..training.labels import LabelOrder


def show_plan(console: Console, plan: Plan, verbose: bool = False) -> None:
    """Print who gets what, one row per student layer and site (or, verbosely, per tensor)."""
    table = Table(title=f"{plan.teacher} -> {plan.student}")
    for column in ("layer", "site", "from layers", "tensors", "width", "maps", "what happens"):
        table.add_column(column)
    for _, group in groupby(plan.targets, key=lambda target: target.key if verbose else (target.place, target.shared)):
        targets = list(group)
        layer, site = targets[0].place or ("shared" if targets[0].shared else "head", "")
        table.add_row(
            str(layer),
            site,
            "" if targets[0].place is None else _shares(plan.groups[stack_of(site)][targets[0].place[0]]),
            ".".join(targets[0].key.split(".")[-2:]) if verbose else str(len(targets)),
            *_maps(plan, targets),
            ", ".join(sorted({target.action for target in targets})),
        )
    for stack, layer in plan.silent:
        table.add_row(str(layer), stack, _shares(plan.groups[stack][layer]), "0", "", "", "gets nothing")
    console.print(table)
    for reason, count in sorted(Counter(plan.left.values()).items()):
        lost = shortened([key.removeprefix(PREFIX) for key in plan.lost if plan.left[key] == reason])
        console.print(f"{count} teacher tensors are left: {reason}{f': {lost}' if lost else ''}")
    for problem in plan.problems[1:]:  # the first is the error
        console.print(f"also refused: {problem}")


def _shares(group: Group) -> str:
    return " + ".join(f"{share.layer}" if share.weight == 1 else f"{share.weight:.3g}*{share.layer}" for share in group)


def _maps(plan: Plan, targets: list[Target]) -> tuple[str, str]:
    whole = {pair for target in targets for part in target.parts for pair in part.pairs}
    pairs = {part for pair in whole for part in (plan.fused[pair].parts if pair in plan.fused else (pair,))}
    widths = sorted({plan.widths[pair] for pair in pairs})
    names = sorted({pair.name for pair in pairs})
    identity = all(target.action in ("copied", "averaged", "reordered", "fresh") for target in targets)
    return (
        ", ".join(f"{d_t}" if d_t == d_s else f"{d_t} -> {d_s}" for d_s, d_t in widths),
        "" if identity else "\n".join(names),
    )


# What the figures of candidates are of where they are no agreements.
_JUDGED = {"R2": "R2 of the teacher's final hidden states", "score": "the score of labelled rows"}
_MEASURES = {"r": "assigned", "held-out r": "held_out", "R2 read": "r2_read", "R2 write": "r2_write"}


def show_relation(console: Console, port: Port) -> None:
    """Say how the two models are related, and what follows from it."""
    relation, plan, sampled = port.relation, port.plan, port.texts is not None or port.moments is not None
    if relation is None:
        return
    derived = {base.config.model_type: derived_said(base) for base in (port.teacher, port.student)}
    advice = (
        *derived.values(),
        quantised_said(port.teacher, port.student),
        operation_said(relation, PEFT_TYPES[port.module.peft_type]),
        texts_advised(relation, port.method.identity, sampled, mappable(port.module)),
        layers_advised(relation, plan.groups.get("", ())),
        *serving_said(plan.config, port.student),
    )
    for sentence in (relation_said(relation, plan.teacher, plan.student), *advice):
        if sentence is not None:
            console.print(sentence)


def show_port(console: Console, report: Mapping[str, Any]) -> None:
    """Print what was done and how well each space was aligned."""
    counts = Counter(tensor["action"] for tensor in report["tensors"].values())
    done = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
    console.print(f"{done}; {len(report['left'])} teacher tensors left behind")
    if report["scale"] != 1 and not report["scales"]:  # else it is said beside those that were tried
        console.print(f"scale {report['scale']:g}: of all that the module writes")
    show_alignment(console, report)


def show_alignment(console: Console, report: Mapping[str, Any]) -> None:
    """Print how well each space was aligned, and how much of what it reads the module keeps, where that is known."""
    if not report["sampled"]:
        return
    console.print(report["sampled"])
    fitted = "; fitted in sequence" if report["sequential"] else ""
    table = Table(title=f"Alignment: {report['align']}; spaces: {report['spaces']}{fitted}")
    # Correlations are of one-to-one maps alone.
    scores = report["scores"]
    measures = {
        title: name for title, name in _MEASURES.items() if any(score.get(name) is not None for score in scores)
    }
    by_choice = any(score.get("candidates") for score in scores)
    columns = ["layer", "from", "space", "width", "matched", "constant", *measures]
    for column in [*columns, "chosen by R2"] if by_choice else columns:
        table.add_column(column, justify="left" if column in ("space", "chosen by R2") else "right", no_wrap=True)
    for score in scores:
        layer, teacher_layer, space = score["space"].split(".", 2)
        table.add_row(
            layer,
            teacher_layer,
            space,
            f"{score['d_t']}->{score['d_s']}",
            str(score["matched"]),
            str(score["constant"]),
            *(_number(score[name]) for name in measures.values()),
            *([choice(score)] if by_choice else []),
        )
    console.print(table)
    if report.get("candidates"):
        _show_candidates(console, report["candidates"])
    if report.get("scales"):
        tried = ", ".join(f"{float(factor):g}: {share:.4g}" for factor, share in report["scales"].items())
        console.print(f"scale {report['scale']:g}; by scale: {tried}")
    if report.get("expected"):
        _show_fidelity(console, report)


def _show_candidates(console: Console, candidates: Sequence[Mapping[str, Any]]) -> None:
    metric = candidates[0]["metric"]
    judged = _JUDGED.get(metric, f"{metric} with the teacher's answers")
    last = (
        None if metric in _JUDGED else "To choose by alone: how often the port gives its teacher's answers is said last"
    )
    table = Table(title=f"Chosen by {judged}, on held-out texts", caption=last)
    for column in ("body", "head", "scale", metric, "divergence", ""):
        justify: Literal["left", "right"] = "right" if column in ("scale", metric, "divergence") else "left"
        table.add_column(column, justify=justify, no_wrap=True)
    for one in sorted(candidates, key=lambda one: -one["value"]):
        error = f" ± {one['error']:.1f}" if one["error"] else ""
        value = _number(one["value"]) if metric == "R2" else f"{one['value']:.1f}{error}"
        divergence = f"{one['divergence']:.3f}" if one["error"] else ""
        table.add_row(
            one["body"], one["head"] or "", f"{one['scale']:g}", value, divergence, "chosen" if one["chosen"] else ""
        )
    console.print(table)


def _show_fidelity(console: Console, report: Mapping[str, Any]) -> None:
    table = Table(title="What the module keeps of what it reads")
    for column in ("layer", "site", "weight", "R2"):
        table.add_column(column, justify="left" if column in ("site", "weight") else "right", no_wrap=True)
    for one in report["fidelity"]:
        layer, site = ("head", "") if one["layer"] is None else (str(one["layer"]), one["site"])
        table.add_row(layer, site, one["name"], _number(one["r2"]))
    console.print(table)
    expected = report["expected"]
    known = [(name, expected[name]) for name in ("module", "head") if expected[name] is not None]
    parts = [f"the {name} {'' if number else 'keeps '}{value:.2f}" for number, (name, value) in enumerate(known)]
    if parts:
        ends = expected["interval"]
        interval = "" if ends is None else f" (95% interval {ends[0]:.2f} to {ends[1]:.2f})"
        console.print(f"expected: {', '.join([parts[0] + ' of what it reads', *parts[1:]])}{interval}")


def choice(score: Mapping[str, Any]) -> str:
    """Say which method was chosen for a pair of spaces, and what the others would have predicted."""
    others = [f"{name} {share:.2f}" for name, share in score["candidates"].items() if name != score["method"]]
    return f"{score['method']} ({', '.join(others)})" if others else str(score["method"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def show_scores(console: Console, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics, one row per split."""
    table = Table("split", *next(iter(scores.values())))
    for split, values in scores.items():
        table.add_row(split, *(f"{value:.{metric_named(name).digits}f}" for name, value in values.items()))
    console.print(table)


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
    rows = "" if found.rows == found.texts else f" ({found.rows} words)"
    console.print(f"{found.student} beside {found.teacher} on {found.texts} texts{rows}", soft_wrap=True)
    show_written(console, found.texts, found.written)
    if found.cut:
        console.print(f"{found.cut} answers of the teacher are left out: the student's texts were cut before them")
    if found.matched == "positions" and found.labels:
        console.print("Labels are matched by position: not both modules name theirs")
    far = _FAR.get(found.agreement.metric, "KL")
    table = Table("the teacher's answer is given by", found.agreement.metric, "95% interval", far)
    for name, one in (("the student", found.agreement), (f"its {found.bare} alone", found.head_alone)):
        low, high = one.interval
        table.add_row(name, f"{one.percent:.1f}", f"{low:.1f} to {high:.1f}", f"{one.divergence:.3f}")
    if found.bits_per_byte is None:
        always = "one number for all" if found.commonest is None else f"always {found.commonest}"
        table.add_row(always, f"{found.floor:.1f}", "", "")
    console.print(table)
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
        labels = Table("label", "teacher gives it", "precision", "recall")
        for label in found.labels:
            known = ("-" if one is None else f"{one:.1f}" for one in (label.precision, label.recall))
            labels.add_row(label.label, f"{label.share:.1f}%", *known)
        console.print(labels)


def show_written(console: Console, count: int, file: str | None) -> None:
    """Print where the texts are that the teacher wrote, if it did."""
    if file is not None:
        console.print(f"The teacher wrote the {count} texts: {file}", soft_wrap=True)


def show_harness(console: Console, scores: Sequence[HarnessScore]) -> None:
    """Print scores of lm-evaluation-harness, one row per task and metric."""
    table = Table("task", "metric", "better", "base model", "with module", "standard error")
    for score in scores:
        better = {True: "more", False: "less", None: ""}[score.more_is_better]
        error = "" if score.error is None else f"{score.error:.4f}"
        table.add_row(score.task, score.metric, better, f"{score.base:.4f}", f"{score.module:.4f}", error)
    console.print(table)


def show_losses(console: Console, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Print losses on held-out text, one row per loss."""
    table = Table("held-out loss", "before", "after")
    for name, value in before.items():
        table.add_row(name, f"{value:.4f}", f"{after[name]:.4f}")
    console.print(table)
