"""Train and score modules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import TaskError
from ..tasks.records import task_named
from ..training.devices import processes
from ..training.options import Settings, preset
from . import show
from .app import (
    BatchOpt,
    ColumnOpt,
    DataOpt,
    LabelsOpt,
    LangOpt,
    LengthOpt,
    QuietOpt,
    ReplaceOpt,
    TaskOpt,
    TrackOpt,
    app,
    console,
    parse_columns,
    parse_labels,
    parse_tracking,
)

_FAST = Settings()


@app.command()
def train(
    model: Annotated[str, typer.Option(help="Base model: directory or hub id.")],
    out: Annotated[Path, typer.Option(help="Directory to write the module, its scores and its learning curve to.")],
    task: TaskOpt = "ner",
    peft: Annotated[
        str | None, typer.Option(help="Kind of a fresh module: lora (the default) or bottleneck. Not with --init.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Module to start from, such as a ported one.")] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="Task head of --init: teacher (keep it) or fresh. Default: keep it where it was ported or trained and "
            "its labels are the task's; the paper preset draws a fresh one."
        ),
    ] = None,
    data: DataOpt = None,
    lang: LangOpt = "en",
    column: ColumnOpt = None,
    labels: LabelsOpt = None,
    set_up: Annotated[
        str,
        typer.Option(
            "--preset",
            help="Where the values below start from. fast: as shown. paper: batches of 64, learning rate 1e-5, no "
            "warm-up, 10 epochs (pi: 30), full precision, fresh head.",
        ),
    ] = "fast",
    epochs: Annotated[
        float | None, typer.Option(min=0.01, help=f"Passes over the training split. (fast: {_FAST.epochs})")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help=f"Rows per step and device. (fast: {_FAST.batch_size})")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help=f"Peak of a linear schedule. (fast: {_FAST.learning_rate})")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(min=0.0, max=0.99, help=f"Share of the steps that warm up. (fast: {_FAST.warmup})")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16 (mixed), or auto: mixed where there is a GPU. (fast: auto)"),
    ] = None,
    length_grouped: Annotated[
        bool | None,
        typer.Option("--length-grouped/--shuffled", help="Batches of rows of similar length. (fast: length-grouped)"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of fresh weights, data order and dropout.")] = 0,
    max_length: LengthOpt = 256,
    max_train: Annotated[int | None, typer.Option(min=1, help="Use this many training rows.")] = None,
    max_eval: Annotated[int | None, typer.Option(min=1, help="Use this many validation and test rows.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help=f"Rank of a fresh LoRA. (fast: {_FAST.rank})")] = None,
    alpha: Annotated[int | None, typer.Option(min=1, help=f"Alpha of a fresh LoRA. (fast: {_FAST.alpha})")] = None,
    bottleneck_size: Annotated[
        int | None, typer.Option(min=1, help=f"Width of a fresh bottleneck. (fast: {_FAST.bottleneck_size})")
    ] = None,
    track: TrackOpt = None,
    replace: ReplaceOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Fine-tune a fresh module, or a ported one (--init); the same command after a kill goes on where it was.

    For several GPUs: accelerate launch -m regraft train ...
    """
    from ..training import finetuning as training

    fresh = {"--peft": peft, "--rank": rank, "--alpha": alpha, "--bottleneck-size": bottleneck_size}
    given = [name for name, value in fresh.items() if value is not None]
    if init is not None and given:
        raise TaskError(f"got {given[0]} beside --init, whose module is what it is; expected one of them")
    settings = preset(
        set_up,
        task_named(task),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        precision=precision,
        length_grouped=length_grouped,
        seed=seed,
        max_length=max_length,
        max_train=max_train,
        max_eval=max_eval,
        rank=rank,
        alpha=alpha,
        bottleneck_size=bottleneck_size,
        head=head,
    )
    module = training.train(
        model,
        out,
        peft or "lora",
        init,
        data,
        lang,
        task,
        settings,
        replace,
        progress=not quiet,
        columns=parse_columns(column),
        labels=parse_labels(labels),
        tracking=parse_tracking(track, out),
    )
    if processes().is_main_process:
        made = module.provenance["training"]
        if init is not None:
            console.print(f"Started from {init} with {'its' if made['head'] == 'teacher' else 'a fresh'} task head")
        if made["left_out"]:
            console.print(f"Left out {made['left_out']} rows of {made['data']} that are marked as missing")
        show.show_scores(console, made["scores"])
        console.print(f"Wrote {out}")


@app.command()
def evaluate(
    module: Annotated[str, typer.Argument(help="Directory or hub id of a module.")],
    task: TaskOpt = "ner",
    model: Annotated[str | None, typer.Option(help="Base model. Default: the one the module names.")] = None,
    data: DataOpt = None,
    lang: LangOpt = "en",
    column: ColumnOpt = None,
    labels: LabelsOpt = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    batch_size: BatchOpt = 32,
    max_length: LengthOpt = 256,
    max_eval: Annotated[int | None, typer.Option(min=1, help="Score this many rows.")] = None,
    quiet: QuietOpt = False,
) -> None:
    """Score a module on a task."""
    from ..training import evaluation

    settings = Settings(batch_size=batch_size, max_length=max_length, max_eval=max_eval)
    scores = evaluation.evaluate(
        module,
        model,
        data,
        lang,
        task,
        split,
        settings,
        progress=not quiet,
        columns=parse_columns(column),
        labels=parse_labels(labels),
    )
    show.show_scores(console, {split: scores})
