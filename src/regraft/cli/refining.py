"""Finish a port on its teacher's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..activations.options import TextOptions
from ..distillation.options import RefineOptions, TaughtTexts
from ..errors import SamplingError
from ..tasks.options import TaskOptions
from .app import (
    DATA,
    HOW,
    TEXTS,
    WHERE,
    Families,
    Out,
    PushTo,
    Replace,
    Track,
    TrustCode,
    base_words,
    console,
    flat,
    push,
    words_of,
)
from .output import Output, Printed, say_next


def refine(
    module: str,
    /,
    *,
    teacher: str,
    out: Out,
    model: str | None = None,
    teacher_model: str | None = None,
    options: Annotated[RefineOptions, flat(HOW)] = RefineOptions(),
    texts: Annotated[TaughtTexts, flat(TEXTS)] = TaughtTexts(),
    rows: Annotated[TaskOptions, flat(DATA)] = TaskOptions(),
    by_texts: Annotated[str | None, Parameter(group=HOW)] = None,
    answers: Annotated[Path | None, Parameter(group=WHERE)] = None,
    trust_remote_code: TrustCode = False,
    families: Families = None,
    track: Track = (),
    push_to: PushTo = None,
    replace: Replace = False,
    output: Printed = Output(),
) -> None:
    """Finish a port without labels, on its teacher's answers.

    The teacher answers every text once; its answers are kept for other students. A
    tenth of the texts is held out: of the states on the way, the start among them,
    the one is written that gives most of the teacher's answers to them. The same
    command after a kill goes on where it was. With --data or --task it learns from
    labelled rows too, and is still judged by its teacher's answers. Where there are
    no texts, a teacher that is a language model writes them: --generate 1000.

    Example: regraft refine PORT --teacher MODULE --texts texts.txt --out refined

    For several GPUs: accelerate launch -m regraft refine ...

    Args:
        module: The student's module, with its task head.
        teacher: The teacher's module: directory or hub id.
        out: Directory for the module and its curve.
        model: Student's model. Default: as its module says.
        teacher_model: Teacher's. Default: as its module says.
        by_texts: On fewer texts too, to compare: 100,400,1600
        answers: Where answers are kept. Default: your cache.
    """
    from ..distillation import refinement
    from ..distillation.options import parse_sizes
    from ..files.hub import check_pushable
    from ..models.families import register_family
    from ..training.devices import processes
    from ..training.labels import LabelOrder
    from ..training.tracking import Tracking
    from . import show
    from .refined import show_refinement

    register_family(families)
    sizes = parse_sizes(by_texts)
    check_pushable(push_to)
    read = texts.given()
    if read is None:
        raise SamplingError("found no texts for the teacher to answer; give --texts FILE")
    refined = refinement.refine(
        module,
        teacher,
        read,
        out,
        options=options,
        model=model,
        teacher_model=teacher_model,
        answers=answers,
        trust_remote_code=trust_remote_code,
        replace=replace,
        tracking=Tracking.beside(out, track),
        data=rows if rows.model_fields_set else None,
        by_texts=sizes,
    )
    if processes().is_main_process:
        report = refined.provenance["refinement"]
        show_refinement(console, report)
        if (said_by := report.get("labelled", {}).get("labels_said_by", "module")) != "module":
            show.show_order(console, LabelOrder(tuple(report["labelled"]["labels"]), said_by), report["teacher"])
        console.print(f"Wrote {out}: {show.how_to_load(refined, out)}.", soft_wrap=True)
        push(console, refined, push_to)
        output.give({"out": str(out), **report}, out)
        columns = words_of(TextOptions(column=texts.column))
        say_next("compare", teacher, out, *base_words(teacher_model, model), "--texts", "OTHER-TEXTS", *columns)
