"""How good a port is, in a sentence: what 'regraft plan' and 'regraft transfer' end with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ..activations.batches import unfitted_texts
from ..distillation.answers import answers_refused
from ..distillation.comparison import FEWEST_TEXTS, Comparison, compare
from ..distillation.options import AskOptions
from ..errors import TaskError
from ..port.pipeline import Port
from ..port.plan import Plan
from .found import Planned, Tensor, Verdict
from .show_port import counted


def planned(plan: Plan) -> str:
    """Say what a plan comes to that no texts have judged."""
    done = counted(target.action for target in plan.targets)
    return f"The port is allowed: of {len(plan.targets)} tensors {done}; whether it helps, texts tell."


def plan_record(port: Port) -> Planned:
    """Give what a plan says of every tensor as a record."""
    plan = port.plan
    tensors = [
        Tensor(
            name=one.key,
            layer=None if one.place is None else one.place[0],
            site=None if one.place is None else one.place[1],
            action=one.action,
        )
        for one in plan.targets
    ]
    return Planned(
        teacher=plan.teacher,
        student=plan.student,
        relation=None if port.relation is None else port.relation.kind,
        tensors=tensors,
        left=dict(plan.left),
        head=plan.head,
    )


def write_page(console: Console, path: Path, port: Port, account: Mapping[str, Any]) -> None:
    """Write the page of a port, with what is known of its models and of how good it will be."""
    from ..port.advice import relation_said
    from ..report.port_page import write_port_page

    related = port.relation and relation_said(port.relation, port.plan.teacher, port.plan.student)
    expected = None if port.plan.problems or port.forecast is None else port.forecast.verdict
    said = [sentence for sentence in (related, account.get("sampled"), expected) if sentence]
    write_port_page(path, port.module.source, account, said, port.plan.problems)
    console.print(f"Wrote {path}", soft_wrap=True)


def verdict_of(port: Port) -> Verdict | None:
    """Say how often a port gives its teacher's answer on the texts that it was not fitted on.

    Where there are no texts, or no task head that answers, say what its forecast expects, where that is known.
    """
    if port.texts is not None and not (answers_refused(port.module) or answers_refused(port.ported)):
        return _asked(port)
    if port.forecast is not None and port.forecast.verdict is not None:
        return Verdict(sentence=port.forecast.verdict, comparison=None)
    return None


def _asked(port: Port) -> Verdict:
    options, run = port.options, port.run
    texts = unfitted_texts(port.texts or (), options.batch_size)
    if len(texts) < FEWEST_TEXTS:
        few = f"No verdict: found {len(texts)} held-out texts, expected at least {FEWEST_TEXTS}; give more texts."
        return Verdict(sentence=few, comparison=None)
    # The port has the names that were given for the teacher's labels, maybe in another order.
    named = {} if options.teacher_labels is None else {"labels": [*options.teacher_labels]}
    asked = AskOptions(batch_size=options.batch_size, max_length=options.max_length)
    try:
        found = compare(
            replace(port.module, provenance={**port.module.provenance, **named}),
            port.ported,
            texts,
            teacher_model=port.teacher,
            model=port.student,
            options=asked,
            device=run.device,
            progress=not run.quiet,
        )
    except TaskError as error:
        return Verdict(sentence=f"No verdict: {error}.", comparison=None)
    return Verdict(sentence=compared(found, "held-out texts", "the port"), comparison=asdict(found))


def compared(found: Comparison, texts: str = "texts", student: str = "the student") -> str:
    """Say how far a student's answers are the teacher's, with what is to be beaten.

    Args:
        found: what was compared.
        texts: what they are.
        student: who it is.
    """
    low, high = found.agreement.interval
    if found.bits_per_byte is not None:
        teacher, own, alone = (found.bits_per_byte[name] for name in ("teacher", "student", "alone"))
        return (
            f"On {found.texts} {texts} {student} needs {own:.3f} bits per byte, its model alone {alone:.3f}, "
            f"the teacher {teacher:.3f}; the probabilities of the two overlap by {found.agreement.percent:.1f} "
            f"(95% interval {low:.1f} to {high:.1f}), without the module by {found.head_alone.percent:.1f}."
            f"{_judged(found)}"
        )
    return (
        f"On {found.texts} {texts} {student} gives the teacher's answers with {_article(found.agreement.metric)} of "
        f"{found.agreement.percent:.1f} (95% interval {low:.1f} to {high:.1f}; divergence "
        f"{found.agreement.divergence:.3f}); its {found.bare} alone "
        f"{found.head_alone.percent:.1f}, {found.always} {found.floor:.1f}.{_judged(found)}"
    )


def _article(metric: str) -> str:
    return f"an {metric}" if metric[0] in "aeiou" else f"a {metric}"


def _judged(found: Comparison) -> str:
    low = found.agreement.interval[0]
    if low <= found.floor:
        return " That is no better than knowing nothing."
    return f" The {found.bare} alone does as well." if low <= found.head_alone.percent else ""
