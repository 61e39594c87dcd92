"""Look at a port, sample a pair of models, port."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..activations.options import RunOptions, SampleOptions, TextOptions
from ..distillation.options import RefineOptions, Steps
from ..errors import PlanError, SamplingError, TaskError
from ..port.options import AUTO, PortOptions, parse_layers
from ..schema import make, names
from ..tasks.options import TaskOptions
from ..training.options import EvaluateOptions
from .app import (
    DATA,
    HOW,
    OUTPUT,
    TEXTS,
    WHERE,
    Families,
    Out,
    PushTo,
    Replace,
    Revision,
    Verbose,
    base_words,
    console,
    flat,
    held,
    push,
    words_of,
)
from .found import Ported, Sampled
from .output import Output, Printed, say_next

if TYPE_CHECKING:
    from ..training.evaluation import Rows

Moments = Annotated[tuple[Path, ...], Parameter(group=TEXTS, help="What 'regraft sample' wrote; repeatable.")]


def plan(
    module: str,
    /,
    *,
    student: str,
    teacher: str | None = None,
    revision: Revision = None,
    options: Annotated[PortOptions, flat(HOW)] = PortOptions(),
    texts: Annotated[TextOptions, flat(TEXTS)] = TextOptions(),
    moments: Moments = (),
    rows: Annotated[TaskOptions, flat(DATA)] = TaskOptions(),
    max_eval: Annotated[int | None, Parameter(group=DATA)] = None,
    run: Annotated[RunOptions, flat(WHERE)] = RunOptions(),
    families: Families = None,
    verbose: Verbose = False,
    html: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    output: Printed = Output(),
) -> None:
    """Show who gets what and, with texts, whether it will help.

    Nothing is written but the page of --html. Without --texts, --moments and --data
    configurations alone are read, and no weights. With --data the port is scored,
    untrained, on labelled rows of the validation split; with --scale auto they
    choose the scale too.

    Example: regraft plan my-lora --student distilbert-base-uncased

    Args:
        module: Directory or hub id of the teacher's module.
        student: Model it goes to: directory or hub id.
        teacher: Model it was trained on. Default: as it says.
        max_eval: Score so many rows. Default: all, or 100.
        verbose: Every tensor, and how each space is matched.
        html: File for a page with a picture of it.
    """
    from ..models.families import register_family
    from ..modules.module import load
    from ..port.pipeline import Port
    from ..report.port_page import check_page
    from . import show, show_port
    from .verdict import plan_record, planned, verdict_of, write_page

    register_family(families)
    if html is not None:
        check_page(html)
    loaded, scored = load(module, revision=revision), _rows(rows, options, max_eval, run)
    judge = scored.judge() if scored is not None and options.scale == AUTO else None
    port = Port.of(
        loaded,
        student,
        teacher,
        texts=texts.read(),
        moments=moments or None,
        options=options,
        run=run,
        judge=judge,
        covariances=True,
    )
    show_port.show_plan(console, port.plan, verbose)
    show_port.show_relation(console, port)
    measured = any(one is not None for one in (port.texts, port.moments, scored))
    if html is not None and (port.plan.problems or not measured):
        write_page(console, html, port, port.plan.describe())
    port.plan.check()
    if not measured:
        console.print(planned(port.plan), soft_wrap=True)
        output.give(plan_record(port), planned(port.plan))
        say_next("plan", module, *_models(student, teacher), *words_of(options), *words_of(run), "--texts", "FILE")
        return
    if port.memory is not None:
        console.print(str(port.memory), soft_wrap=True)
    if scored is not None:
        show.show_order(console, scored.check(loaded, port.plan.head, port.plan.labels), "The port")
    show_port.show_alignment(console, port.ported.report, verbose)
    if html is not None:
        write_page(console, html, port, port.ported.report)
    found = None
    if scored is not None:
        found = scored.scores(port.ported, progress=True)
        head_is = "drawn at random, so this says little" if port.ported.head_is_random else "the teacher's"
        of_head = "" if port.plan.head is None else f"; its task head is {head_is}"
        console.print(f"The ported module before any training, on the validation split{of_head}:")
        in_doubt = port.plan.head == "teacher" and not loaded.labels
        show.show_evaluation(console, "validation", found, "--teacher-labels" if in_doubt else "")
    verdict = verdict_of(port)
    if verdict is not None:
        console.print(verdict.sentence, soft_wrap=True)
    scores = None if found is None else found.scores
    judged = {"report": dict(port.ported.report), "verdict": verdict, "scores": scores}
    output.give(plan_record(port).model_copy(update=judged), *([] if verdict is None else [verdict.sentence]))
    evidence = [*(word for place in moments for word in ("--moments", place)), *words_of(texts)]
    how = [*words_of(options), *words_of(run)]
    say_next("transfer", module, *_models(student, teacher), *how, *evidence, "--out", "PORTED")


def transfer(
    module: str,
    /,
    *,
    student: str,
    out: Out,
    teacher: str | None = None,
    revision: Revision = None,
    options: Annotated[PortOptions, flat(HOW)] = PortOptions(),
    texts: Annotated[TextOptions, flat(TEXTS)] = TextOptions(),
    moments: Moments = (),
    rows: Annotated[TaskOptions, flat(DATA)] = TaskOptions(),
    refine: Annotated[Steps | None, Parameter(group=HOW)] = None,
    max_eval: Annotated[int | None, Parameter(group=DATA)] = None,
    run: Annotated[RunOptions, flat(WHERE)] = RunOptions(),
    families: Families = None,
    push_to: PushTo = None,
    replace: Replace = False,
    verbose: Verbose = False,
    output: Printed = Output(),
) -> None:
    """Port a teacher's module to a student, for PEFT to load.

    With texts it says whether the port will help, as 'regraft plan' does. With
    --scale auto the scale is searched on the texts or, with --data, by the score on
    labelled rows of the validation split. With --refine the port is finished as by
    'regraft refine --steps'; the other settings of that are for that command.

    Example: regraft transfer my-lora --student distilbert-base-uncased --out ported

    Args:
        module: Directory or hub id of the teacher's module.
        student: Model it goes to: directory or hub id.
        out: Directory to write the student's module to.
        teacher: Model it was trained on. Default: as it says.
        refine: Then 'regraft refine' for so many steps, or auto
        max_eval: So many labelled rows. Default: 100.
        verbose: How each space is matched too.
    """
    from ..distillation.checks import check_lesson
    from ..distillation.refinement import refine as finish
    from ..files.directories import claimed
    from ..files.hub import check_pushable
    from ..models.families import register_family
    from ..modules.module import FILES, load
    from ..port.pipeline import Port
    from . import show, show_port
    from .refined import next_command, show_refinement
    from .verdict import verdict_of

    register_family(families)
    check_pushable(push_to)
    held.enter_context(claimed(out, replace, FILES, [module, student, teacher, *moments]))
    if rows.data is not None and options.scale != AUTO:
        raise PlanError(f"found --data beside --scale {options.scale}; labelled rows choose a scale: --scale auto")
    if refine is not None and texts.texts is None:
        raise SamplingError("found --refine and no texts for the teacher to answer; give --texts FILE")
    loaded, scored = load(module, revision=revision), _rows(rows, options, max_eval, run)
    judge = None if scored is None else scored.judge()
    port = Port.of(
        loaded, student, teacher, texts=texts.read(), moments=moments or None, options=options, run=run, judge=judge
    )
    port.plan.check()
    if refine is not None:
        check_lesson(loaded, port.texts or ())
    if scored is not None:
        show.show_order(console, scored.check(loaded, port.plan.head, port.plan.labels), "The port")
    made = port.ported
    if refine is None:
        made.save(out, replace)
    else:
        how = RefineOptions(steps=refine, seed=options.seed, max_length=options.max_length)
        made = finish(
            made,
            loaded,
            port.texts or (),
            out,
            options=how,
            teacher_model=teacher,
            trust_remote_code=run.trust_remote_code,
            replace=replace,
        )
    show_port.show_relation(console, port)
    show_port.show_port(console, port.ported.report, verbose)
    console.print(f"Wrote {out}: {show.how_to_load(made, out)}.", soft_wrap=True)
    push(console, made, push_to)
    verdict = verdict_of(port) if refine is None else None
    if verdict is not None:
        console.print(verdict.sentence, soft_wrap=True)
    refinement = None if refine is None else made.provenance["refinement"]
    if refinement is not None:
        show_refinement(console, refinement)
    report = dict(port.ported.report)
    output.give(Ported(out=str(out), hash=made.hash(), report=report, verdict=verdict, refinement=refinement), out)
    if refine is not None and revision is None:
        going_on = next_command(out, module, teacher, texts, options, run.trust_remote_code, families)
        say_next(*going_on, why="To go on with other settings (--grow, --data, --learning-rate)")
    elif refine is None and texts.texts is not None:
        say_next("refine", out, "--teacher", module, *base_words(teacher), *words_of(texts), "--out", "FINISHED")


def sample(
    *,
    teacher: str,
    student: str,
    out: Out,
    layers: Annotated[str, Parameter(group=HOW)] = "skip",
    sites: Annotated[str | None, Parameter(group=HOW)] = None,
    options: Annotated[SampleOptions, flat(HOW)] = SampleOptions(),
    texts: Annotated[TextOptions, flat(TEXTS)] = TextOptions(),
    run: Annotated[RunOptions, flat(WHERE)] = RunOptions(),
    families: Families = None,
    replace: Replace = False,
    output: Printed = Output(),
) -> None:
    """Run two models over texts and keep moments for any port.

    Give each shard of the texts to a job of its own; 'regraft transfer --moments'
    adds them up.

    Example: regraft sample --teacher T --student S --texts part-1 --out moments-1

    Args:
        teacher: Model that modules were trained on.
        student: Model that they go to.
        out: Directory to write the moments to.
        layers: skip, avg, avg_released, last, or a list: 0,2,4
        sites: Sites of modules: query,value. Default: usual.
    """
    from ..activations import sampling
    from ..files.directories import claimed
    from ..models.families import register_family
    from ..models.pretrained import resolve
    from ..port.spaces import judged_pairs, space_pairs

    register_family(families)
    held.enter_context(claimed(out, replace, sampling.FILES, [teacher, student]))
    read = texts.read()
    if read is None:
        raise SamplingError("found no texts to run the models on; give --texts FILE")
    how = run.trust_remote_code, run.loading
    pair = resolve(teacher, *how), resolve(student, *how)
    spaces = space_pairs(*pair, parse_layers(layers), names(sites))
    moments = sampling.sample(*pair, spaces, read, options, run, folded=judged_pairs(spaces))
    sampling.save_sample(moments, out, replace)
    console.print(f"{moments.describe()}; {len(spaces)} pairs of spaces in {out}", soft_wrap=True)
    counts = {"pairs": moments.pairs, "paired_tokens": moments.paired_tokens, "student_tokens": moments.student_tokens}
    output.give(Sampled(out=str(out), teacher=teacher, student=student, spaces=len(spaces), **counts), out)
    say_next("transfer", "MODULE", *_models(student, teacher), "--moments", out, "--out", "PORTED")


def _models(student: str, teacher: str | None) -> list[str]:
    return ["--student", student, *([] if teacher is None else ["--teacher", teacher])]


def _rows(rows: TaskOptions, options: PortOptions, max_eval: int | None, run: RunOptions) -> Rows | None:
    """Name the labelled rows that a port is scored on; None without data."""
    if rows.data is None:
        return None
    from ..training.evaluation import Rows

    size = {"batch_size": options.batch_size, "max_length": options.max_length, "max_eval": max_eval}
    return Rows(rows, make(EvaluateOptions, size, TaskError), run.trust_remote_code)
