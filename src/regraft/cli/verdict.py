"""How good a port is: what 'regraft plan' and 'regraft transfer' end with."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from ..activations.batches import unfitted_texts
from ..distillation.answers import answers_refused
from ..distillation.comparison import FEWEST_TEXTS, Comparison, compare
from ..distillation.options import AskOptions
from ..errors import TaskError
from ..port.pipeline import Port


def show_verdict(console: Console, port: Port) -> None:
    """Print how often a port gives its teacher's answer on the texts that it was not fitted on.

    Where there are no texts, or no task head that answers, print what its forecast expects, where that is known.
    """
    if port.texts is not None and not (answers_refused(port.module) or answers_refused(port.ported)):
        console.print(_said(port), soft_wrap=True)
    elif port.forecast is not None and port.forecast.verdict is not None:
        console.print(port.forecast.verdict)


def _said(port: Port) -> str:
    options, run = port.options, port.run
    texts = unfitted_texts(port.texts or (), options.batch_size)
    if len(texts) < FEWEST_TEXTS:
        return f"No verdict: found {len(texts)} held-out texts, expected at least {FEWEST_TEXTS}; give more texts."
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
        return f"No verdict: {error}."
    low, high = found.agreement.interval
    if found.bits_per_byte is not None:
        teacher, student, alone = (found.bits_per_byte[name] for name in ("teacher", "student", "alone"))
        return (
            f"On {found.texts} held-out texts the port needs {student:.3f} bits per byte, its model alone {alone:.3f}, "
            f"the teacher {teacher:.3f}; the probabilities of the two overlap by {found.agreement.percent:.1f} "
            f"(95% interval {low:.1f} to {high:.1f}), without the module by {found.head_alone.percent:.1f}."
            f"{_judged(found)}"
        )
    always = "one number for all" if found.commonest is None else f"always {found.commonest}"
    return (
        f"On {found.texts} held-out texts the port gives the teacher's answers with "
        f"{'an' if found.agreement.metric[0] in 'aeiou' else 'a'} {found.agreement.metric} of "
        f"{found.agreement.percent:.1f} (95% interval {low:.1f} to {high:.1f}; divergence "
        f"{found.agreement.divergence:.3f}); its {found.bare} alone "
        f"{found.head_alone.percent:.1f}, {always} {found.floor:.1f}.{_judged(found)}"
    )


def _judged(found: Comparison) -> str:
    low = found.agreement.interval[0]
    if low <= found.floor:
        return " That is no better than knowing nothing."
    return f" The {found.bare} alone does as well." if low <= found.head_alone.percent else ""
