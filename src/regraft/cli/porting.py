"""Look at a port, sample a pair of models, port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from ..activations import sampling
from ..alignment.methods import AUTO
from ..errors import PlanError
from ..files.texts import read_texts
from ..models.pretrained import resolve
from ..modules import module as modules_module
from ..modules.peft_types import Convention
from ..port import pipeline
from ..port import spaces as port_spaces
from ..port.options import default_align, how_to_fit
from ..training.evaluation import JUDGED, Rows
from ..training.options import Settings
from . import show
from .app import (
    AlignOpt,
    BatchOpt,
    DeviceOpt,
    DtypeOpt,
    HeadLabelsOpt,
    HeadOpt,
    LangOpt,
    LayersOpt,
    LengthOpt,
    MaxTextsOpt,
    ModuleArg,
    MomentsOpt,
    PairingOpt,
    QuietOpt,
    ReplaceOpt,
    ScaleOpt,
    SequentialOpt,
    SomeTextsOpt,
    SpacesOpt,
    StudentOpt,
    TaskOpt,
    TeacherOpt,
    TextColumnOpt,
    TextsOpt,
    TextSplitOpt,
    app,
    console,
    parse_labels,
    parse_layers,
    sampling_options,
)


@app.command()
def plan(
    module: ModuleArg,
    student: StudentOpt,
    teacher: TeacherOpt = None,
    layers: LayersOpt = "skip",
    align: AlignOpt = None,
    spaces: SpacesOpt = None,
    head: HeadOpt = None,
    labels: HeadLabelsOpt = None,
    texts: SomeTextsOpt = None,
    column: TextColumnOpt = "text",
    text_split: TextSplitOpt = "train",
    max_texts: MaxTextsOpt = None,
    moments: MomentsOpt = None,
    pairing: PairingOpt = "offsets",
    sequential: SequentialOpt = None,
    scale: ScaleOpt = "1",
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    data: Annotated[
        str | None,
        typer.Option(
            help="Score the ported module, untrained, on the validation split of these data: a folder or a data set of "
            "the hub, as for 'regraft evaluate'. With --scale auto they choose the scale too."
        ),
    ] = None,
    task: TaskOpt = "ner",
    lang: LangOpt = "en",
    max_eval: Annotated[
        int | None, typer.Option(min=1, help=f"Score this many rows. Default: all; to choose a scale, {JUDGED}.")
    ] = None,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    batch_size: BatchOpt = 32,
    max_length: LengthOpt = 256,
    verbose: Annotated[bool, typer.Option("--verbose", help="One line per tensor.")] = False,
    quiet: QuietOpt = False,
) -> None:
    """Show who gets what from whom and, with texts or moments, whether it will help; nothing is written.

    Without --texts, --moments and --data configurations alone are read, and nothing is loaded.
    """
    loaded = modules_module.load(module)
    matched, convention, names = parse_layers(layers), cast(Convention | None, spaces), parse_labels(labels)
    sampled = texts is not None or bool(moments)
    align = align or default_align(sampled)
    how_to_fit(align, texts is not None, sequential, scale)
    drawn = pipeline.plan(loaded, student, teacher, matched, align, convention, head, names)
    show.show_plan(console, drawn, verbose)
    drawn.check()
    if not sampled and data is None:
        return
    rows = _rows(data, task, lang, batch_size, max_length, max_eval)
    if rows is not None:
        rows.check(loaded, head, names)
    foreseen = pipeline.foresee(
        loaded,
        student,
        teacher=teacher,
        layers=matched,
        align=align,
        texts=None if texts is None else read_texts(texts, column, max_texts, text_split),
        pairing=pairing,
        spaces=convention,
        seed=seed,
        moments=moments or None,
        head=head,
        labels=names,
        sequential=sequential,
        scale=scale,
        judge=rows.judge() if rows is not None and scale == AUTO else None,
        **sampling_options(device, dtype, batch_size, max_length, quiet),
    )
    show.show_alignment(console, foreseen.module.report)
    if said := foreseen.verdict:
        console.print(said)
    if rows is not None:
        scores = rows.scores(foreseen.module, progress=not quiet)
        head_is = "drawn at random, so this says little" if foreseen.module.head_is_random else "the teacher's"
        console.print(f"The ported module before any training, on the validation split; its task head is {head_is}:")
        show.show_scores(console, {"validation": scores})


def _rows(
    data: str | None, task: str, lang: str, batch_size: int, max_length: int, max_eval: int | None
) -> Rows | None:
    if data is None:
        return None
    return Rows(data, task, lang, Settings(batch_size=batch_size, max_length=max_length, max_eval=max_eval))


@app.command()
def sample(
    teacher: Annotated[str, typer.Option(help="The model that modules were trained on: directory or hub id.")],
    student: StudentOpt,
    texts: TextsOpt,
    out: Annotated[Path, typer.Option(help="Directory to write the moments to.")],
    layers: LayersOpt = "skip",
    sites: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated sites that the modules to come sit on. Default: query,value and, in encoders, "
            "output_norm: what LoRA and bottlenecks sit on by default."
        ),
    ] = None,
    column: TextColumnOpt = "text",
    text_split: TextSplitOpt = "train",
    max_texts: MaxTextsOpt = None,
    pairing: PairingOpt = "offsets",
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    batch_size: BatchOpt = 32,
    max_length: LengthOpt = 256,
    replace: ReplaceOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Run both models over texts once, and keep the moments for porting any number of modules.

    Shards of texts may be sampled apart, on as many machines as one likes: 'regraft transfer --moments A --moments B'
    adds them up.
    """
    sampling.check_output(out, replace)
    pair = resolve(teacher), resolve(student)
    spaces = port_spaces.spaces_of(
        *pair, parse_layers(layers), [site.strip() for site in sites.split(",")] if sites else None
    )
    taken = sampling.sample(
        *pair,
        spaces,
        read_texts(texts, column, max_texts, text_split),
        pairing,
        **sampling_options(device, dtype, batch_size, max_length, quiet),
    )
    sampling.save_sample(taken, out, replace)
    console.print(f"{taken.describe()}; {len(spaces)} pairs of spaces in {out}")


@app.command()
def transfer(
    module: ModuleArg,
    student: StudentOpt,
    out: Annotated[Path, typer.Option(help="Directory to write the student's module to.")],
    teacher: TeacherOpt = None,
    layers: LayersOpt = "skip",
    align: AlignOpt = None,
    pairing: PairingOpt = "offsets",
    spaces: SpacesOpt = None,
    head: HeadOpt = None,
    labels: HeadLabelsOpt = None,
    texts: SomeTextsOpt = None,
    column: TextColumnOpt = "text",
    text_split: TextSplitOpt = "train",
    max_texts: MaxTextsOpt = None,
    moments: MomentsOpt = None,
    sequential: SequentialOpt = None,
    scale: ScaleOpt = "1",
    data: Annotated[
        str | None,
        typer.Option(
            help="With --scale auto: choose it by the score on labelled rows, of the validation split of these data: a "
            "folder or a data set of the hub, as for 'regraft evaluate'."
        ),
    ] = None,
    task: TaskOpt = "ner",
    lang: LangOpt = "en",
    max_eval: Annotated[int, typer.Option(min=1, help="So many labelled rows.")] = JUDGED,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    batch_size: BatchOpt = 32,
    max_length: LengthOpt = 256,
    replace: ReplaceOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Port a teacher's module to a student and write a directory that PEFT loads."""
    modules_module.check_output(out, replace)
    if data is not None and scale != AUTO:
        raise PlanError(f"found --data beside --scale {scale}; labelled rows choose a scale: --scale auto")
    loaded, names = modules_module.load(module), parse_labels(labels)
    rows = _rows(data, task, lang, batch_size, max_length, max_eval)
    if rows is not None:
        rows.check(loaded, head, names)
    ported = pipeline.transfer(
        loaded,
        student,
        teacher,
        parse_layers(layers),
        align,
        texts=None if texts is None else read_texts(texts, column, max_texts, text_split),
        pairing=pairing,
        spaces=cast(Convention | None, spaces),
        seed=seed,
        moments=moments or None,
        head=head,
        labels=names,
        sequential=sequential,
        scale=scale,
        judge=None if rows is None else rows.judge(),
        **sampling_options(device, dtype, batch_size, max_length, quiet),
    )
    ported.save(out, replace)
    show.show_port(console, ported.report)
    console.print(f"Wrote {out}: PeftModel.from_pretrained(model, {str(out)!r}) loads it.")
