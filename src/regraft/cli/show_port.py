"""What the command line prints of a port: who gets what, and how well spaces were aligned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console

from ..distillation.answers import answer_kind, answers_refused
from ..models.sites import SpacePair, stack_of
from ..modules.config import PREFIX
from ..modules.peft_types import PEFT_TYPES
from ..modules.tensors import head_rows
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
from .tables import print_table


def show_plan(console: Console, plan: Plan, verbose: bool = False) -> None:
    """Print who gets what, one row per student layer and site (or, verbosely, per tensor)."""
    rows = []
    for _, group in groupby(plan.targets, key=lambda target: (target.place, target.shared)):
        targets = list(group)
        rows.append(
            (
                *_place(targets[0]),
                _taken_from(plan, targets[0]),
                str(len(targets)),
                _widths(plan, targets),
                _actions(targets),
            )
        )
    for stack, layer in plan.silent:
        rows.append((str(layer), stack, _shares(plan.groups[stack][layer]), "0", "", "gets nothing"))
    heads = ("layer", "site", "from layers", "tensors", "width", "what happens")
    print_table(console, heads, rows, f"{plan.teacher} -> {plan.student}")
    if verbose:
        tensors = [
            (*_place(one), ".".join(one.key.split(".")[-2:]), ", ".join(_maps(plan, one)), one.action)
            for one in plan.targets
        ]
        print_table(console, ("layer", "site", "tensor", "maps", "what happens"), tensors, "Tensors")
    for reason, count in sorted(Counter(plan.left.values()).items()):
        lost = shortened([key.removeprefix(PREFIX) for key in plan.lost if plan.left[key] == reason])
        console.print(f"{count} teacher tensors are left: {reason}{f': {lost}' if lost else ''}")
    for problem in plan.problems[1:]:  # the first is the error
        console.print(f"also refused: {problem}")


def _shares(group: Group) -> str:
    return " + ".join(f"{share.layer}" if share.weight == 1 else f"{share.weight:.3g}*{share.layer}" for share in group)


def _place(target: Target) -> tuple[str, str]:
    layer, site = target.place or ("shared" if target.shared else "head", "")
    return str(layer), site


def _taken_from(plan: Plan, target: Target) -> str:
    return "" if target.place is None else _shares(plan.groups[stack_of(target.place[1])][target.place[0]])


def _actions(targets: Sequence[Target]) -> str:
    return ", ".join(sorted({target.action for target in targets}))


def _widths(plan: Plan, targets: Sequence[Target]) -> str:
    widths = sorted({plan.widths[pair] for target in targets for pair in _mapped(plan, target)})
    return ", ".join(f"{d_t}" if d_t == d_s else f"{d_t} -> {d_s}" for d_s, d_t in widths)


def _maps(plan: Plan, target: Target) -> list[str]:
    """Name the spaces between which a tensor is mapped."""
    identity = target.action in ("copied", "averaged", "reordered", "fresh")
    return [] if identity else sorted({pair.name for pair in _mapped(plan, target)})


def _mapped(plan: Plan, target: Target) -> set[SpacePair]:
    whole = {pair for part in target.parts for pair in part.pairs}
    return {part for pair in whole for part in (plan.fused[pair].parts if pair in plan.fused else (pair,))}


# What the figures of candidates are of where they are no agreements.
_JUDGED = {"R2": "R2 of the teacher's final hidden states", "score": "the score of labelled rows"}
# Head of a column -> the score. Correlations are of one-to-one maps alone.
_PREDICTED = {"R2 read": "r2_read", "R2 write": "r2_write"}
_MATCHED = {"r": "assigned", "held-out r": "held_out"}


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
        _labels_advised(port),
        *serving_said(plan.config, port.student),
    )
    for sentence in (relation_said(relation, plan.teacher, plan.student), *advice):
        if sentence is not None:
            console.print(sentence)


def counted(actions: Iterable[str]) -> str:
    """Say how many tensors each thing happens to."""
    return ", ".join(f"{count} {action}" for action, count in sorted(Counter(actions).items()))


def show_port(console: Console, report: Mapping[str, Any], verbose: bool = False) -> None:
    """Print what was done and how well each space was aligned; arguments as for `show_alignment`."""
    done = counted(tensor["action"] for tensor in report["tensors"].values())
    console.print(f"{done}; {len(report['left'])} teacher tensors left behind")
    if report["scale"] != 1 and not report["scales"]:  # else it is said beside those that were tried
        console.print(f"scale {report['scale']:g}: of all that the module writes")
    show_alignment(console, report, verbose)


def show_alignment(console: Console, report: Mapping[str, Any], verbose: bool = False) -> None:
    """Print how well each space was aligned, and how much of what it reads the module keeps, where that is known.

    Args:
        console: where.
        report: of a port.
        verbose: how each space was matched too, and what every method would have predicted.
    """
    if not report["sampled"]:
        return
    console.print(report["sampled"])
    fitted = "; fitted in sequence" if report["sequential"] else ""
    title = f"Alignment: {report['align']}; spaces: {report['spaces']}{fitted}"
    scores = report["scores"]
    methods = list(dict.fromkeys(name for score in scores for name in score.get("candidates") or ()))
    predicted, matched = (
        {head: name for head, name in measures.items() if any(score.get(name) is not None for score in scores)}
        for measures in (_PREDICTED, _MATCHED)
    )
    measured = {head: _figures(scores, name) for head, name in (predicted or matched).items()}
    by_choice = {"chosen by R2": [score["method"] for score in scores]} if methods else {}
    widths = {"width": [f"{score['d_t']}->{score['d_s']}" for score in scores]}
    _show_spaces(console, scores, {**widths, **measured, **by_choice}, title)
    if verbose:
        counts = {name: [str(score[name]) for score in scores] for name in ("matched", "constant")}
        correlated = {head: _figures(scores, name) for head, name in matched.items()}
        _show_spaces(console, scores, {**counts, **correlated}, "How dimensions were matched")
    if verbose and methods:
        by_method = {name: [_number((score.get("candidates") or {}).get(name)) for score in scores] for name in methods}
        _show_spaces(console, scores, by_method, "R2 that each method reaches on held-out texts")
    if report.get("candidates"):
        _show_candidates(console, report["candidates"])
    if report.get("scales"):
        tried = ", ".join(f"{float(factor):g}: {share:.4g}" for factor, share in report["scales"].items())
        console.print(f"scale {report['scale']:g}; by scale: {tried}")
    if report.get("expected"):
        _show_fidelity(console, report)


def _show_spaces(
    console: Console, scores: Sequence[Mapping[str, Any]], columns: Mapping[str, Sequence[str]], title: str
) -> None:
    spaces = [score["space"].split(".", 2) for score in scores]
    rows = [[*space, *cells] for space, *cells in zip(spaces, *columns.values(), strict=True)]
    print_table(console, ("layer", "from", "space", *columns), rows, title)


def _figures(scores: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return [_number(score[name]) for score in scores]


def _labels_advised(port: Port) -> str | None:
    """Say how the labels of a head that is ported get names, where the module names none; else None."""
    module = port.module
    if port.plan.labels or port.plan.head != "teacher" or answers_refused(module) or not answer_kind(module).has_labels:
        return None
    if head_rows(module.tensors) == 1:  # a number
        return None
    return (
        f"{module.source} does not name the labels of its head, so neither will the port; name them in the order "
        "of its rows (--teacher-labels)."
    )


def _show_candidates(console: Console, candidates: Sequence[Mapping[str, Any]]) -> None:
    metric = candidates[0]["metric"]
    judged = _JUDGED.get(metric, f"{metric} with the teacher's answers")
    rows = []
    for one in sorted(candidates, key=lambda one: -one["value"]):
        error = f" ± {one['error']:.1f}" if one["error"] else ""
        value = _number(one["value"]) if metric == "R2" else f"{one['value']:.1f}{error}"
        divergence = f"{one['divergence']:.3f}" if one["error"] else ""
        chosen = "chosen" if one["chosen"] else ""
        rows.append((one["body"], one["head"] or "", f"{one['scale']:g}", value, divergence, chosen))
    heads = ("body", "head", "scale", metric, "divergence", "")
    print_table(console, heads, rows, f"Chosen by {judged}, on held-out texts")
    if metric not in _JUDGED:
        console.print("For choosing only: how often the port gives its teacher's answers is said last")


def _show_fidelity(console: Console, report: Mapping[str, Any]) -> None:
    rows = []
    for one in report["fidelity"]:
        layer, site = ("head", "") if one["layer"] is None else (str(one["layer"]), one["site"])
        rows.append((layer, site, one["name"], _number(one["r2"])))
    print_table(console, ("layer", "site", "weight", "R2"), rows, "What the module keeps of what it reads")
    expected = report["expected"]
    known = [(name, expected[name]) for name in ("module", "head") if expected[name] is not None]
    parts = [f"the {name} {'' if number else 'keeps '}{value:.2f}" for number, (name, value) in enumerate(known)]
    if parts:
        ends = expected["interval"]
        interval = "" if ends is None else f" (95% interval {ends[0]:.2f} to {ends[1]:.2f})"
        console.print(f"expected: {', '.join([parts[0] + ' of what it reads', *parts[1:]])}{interval}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
