"""Make and distill a shallower student."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..distillation.options import DistillOptions, DistillTexts
from ..errors import TaskError
from .app import HOW, TEXTS, Families, Out, Replace, Track, TrustCode, console, flat
from .found import Distilled
from .output import Output, Printed, say_next


def distill(
    *,
    teacher: str,
    out: Out,
    texts: Annotated[DistillTexts, flat(TEXTS)],
    every: Annotated[int | None, Parameter(group=HOW)] = None,
    options: Annotated[DistillOptions, flat(HOW)] = DistillOptions(),
    trust_remote_code: TrustCode = False,
    families: Families = None,
    track: Track = (),
    replace: Replace = False,
    output: Printed = Output(),
) -> None:
    """Distill a shallower student of a model on plain text.

    A teacher with a language-model head is distilled as DistilBERT was
    (predictions, language model, cosine of hidden states); one without, by its
    hidden states alone. 5% of the texts, at most 1000, are held out to evaluate on.
    The same command after a kill goes on where it was. Modules are then ported with
    'regraft transfer'.

    Example: regraft distill --teacher roberta-base --texts texts.txt --out student

    For several GPUs: accelerate launch -m regraft distill ...

    Args:
        teacher: Model to make a student of.
        out: Directory for the student and its curve.
        every: Every k-th layer of the teacher. Default: 2.
    """
    from ..distillation import students
    from ..models.families import register_family
    from ..training.devices import processes
    from ..training.tracking import Tracking
    from . import show

    register_family(families)
    if every is not None:
        if "layers" in options.model_fields_set:
            raise TaskError("got both --every and --layers, expected one of them")
        options = options.model_copy(update={"layers": every})
    distilled = students.distill(
        teacher,
        out,
        texts.read_all(),
        options=options,
        trust_remote_code=trust_remote_code,
        replace=replace,
        tracking=Tracking.beside(out, track),
    )
    if processes().is_main_process:
        show.show_losses(console, distilled.before, distilled.after)
        console.print(f"Wrote {out}: layers {', '.join(map(str, distilled.layers))} of {teacher}", soft_wrap=True)
        losses = {"before": dict(distilled.before), "after": dict(distilled.after)}
        output.give(Distilled(out=str(out), teacher=teacher, layers=[*distilled.layers], **losses), out)
        say_next("plan", "MODULE", "--student", out)
