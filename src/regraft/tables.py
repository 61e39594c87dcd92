"""What the command line prints: tables that people can read."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from .plan import Plan, Target


def show_plan(console: Console, plan: Plan, verbose: bool = False) -> None:
    """Print who gets what, one row per student layer and site (or, verbosely, per tensor)."""
    table = Table(title=f"{plan.teacher} -> {plan.student}")
    for column in ("layer", "site", "teacher layers", "tensors", "width", "what happens"):
        table.add_column(column)
    for _, group in groupby(plan.targets, key=lambda target: target.key if verbose else target.place):
        targets = list(group)
        place = targets[0].place
        names = sorted(target.key.rpartition(place[1] if place else "model.")[2] for target in targets)
        table.add_row(
            str(place[0]) if place else "head",
            place[1] if place else "",
            _shares(plan, targets[0]),
            ", ".join(_short(target.key) for target in targets) if verbose else str(len(names)),
            _widths(plan, targets),
            _actions(targets),
        )
    console.print(table)
    reasons: dict[str, int] = {}
    for reason in plan.left.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in sorted(reasons.items()):
        console.print(f"{count} teacher tensors are left: {reason}")


def _short(key: str) -> str:
    return ".".join(key.split(".")[-2:])


def _shares(plan: Plan, target: Target) -> str:
    if target.place is None:
        return ""
    shares = plan.groups[target.place[0]]
    return " + ".join(
        f"{share.layer}" if share.weight == 1 else f"{share.weight:.3g}*{share.layer}" for share in shares
    )


def _widths(plan: Plan, targets: list[Target]) -> str:
    spaces = {space for target in targets for part in target.parts for space in part.spaces if space}
    pairs = sorted({plan.widths[space] for space in spaces})
    return ", ".join(f"{d_t}" if d_t == d_s else f"{d_t} -> {d_s}" for d_s, d_t in pairs)


def _actions(targets: list[Target]) -> str:
    return ", ".join(sorted({target.action for target in targets}))


def show_port(console: Console, report: Mapping[str, Any]) -> None:
    """Print what was done and how well each space was aligned."""
    counts: dict[str, int] = {}
    for tensor in report["tensors"].values():
        counts[tensor["action"]] = counts.get(tensor["action"], 0) + 1
    done = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
    console.print(f"{done}; {len(report['left'])} teacher tensors left behind")
    if report["sampled"]:
        console.print(report["sampled"])
    if not report["sampled"]:
        return
    table = Table(title=f"Alignment: {report['align']}, {report['spaces']} spaces")
    for column in ("layer", "from", "space", "width", "matched", "constant", "r", "held-out r"):
        table.add_column(column, justify="left" if column == "space" else "right", no_wrap=True)
    for score in report["scores"]:
        layer, teacher_layer, space = score["space"].split(".")
        table.add_row(
            layer,
            teacher_layer,
            space,
            f"{score['d_t']}->{score['d_s']}",
            str(score["matched"]),
            str(score["constant"]),
            *("-" if score[name] is None else f"{score[name]:.3f}" for name in ("assigned", "held_out")),
        )
    console.print(table)


def show_scores(console: Console, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics, one row per split."""
    table = Table("split", *next(iter(scores.values())))
    for split, values in scores.items():
        table.add_row(split, *(f"{value:.2f}" for value in values.values()))
    console.print(table)
