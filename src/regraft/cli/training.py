"""Train and score modules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from accelerate import PartialState

from .. import tables
from .app import app, console
from .options import BatchOpt, DataOpt, LangOpt, LengthOpt, QuietOpt, ReplaceOpt, TaskOpt


@app.command()
def train(
    model: Annotated[str, typer.Option(help="Base model: directory or hub id.")],
    out: Annotated[Path, typer.Option(help="Directory to write the module, its scores and its learning curve to.")],
    task: TaskOpt = "ner",
    peft: Annotated[str, typer.Option(help="Kind of a fresh module: lora or bottleneck.")] = "lora",
    init: Annotated[Path | None, typer.Option(help="Module to start from, such as a ported one.")] = None,
    data: DataOpt = None,
    lang: LangOpt = "en",
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the training split.")] = 3.0,
    batch_size: BatchOpt = 32,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak of a linear schedule.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of fresh weights, data order and dropout.")] = 0,
    max_length: LengthOpt = 256,
    max_train: Annotated[int | None, typer.Option(min=1, help="Use this many training sentences.")] = None,
    max_eval: Annotated[int | None, typer.Option(min=1, help="Use this many validation and test sentences.")] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of a fresh LoRA.")] = 8,
    alpha: Annotated[int, typer.Option(min=1, help="Alpha of a fresh LoRA.")] = 8,
    bottleneck_size: Annotated[int, typer.Option(min=1, help="Width of a fresh bottleneck.")] = 96,
    replace: ReplaceOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Fine-tune a fresh module, or a ported one (--init); the same command after a kill goes on where it was.

    For several GPUs: accelerate launch -m regraft train ...
    """
    from .. import training  # the Trainer takes a while to import

    settings = training.Settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        max_length=max_length,
        max_train=max_train,
        max_eval=max_eval,
        rank=rank,
        alpha=alpha,
        bottleneck_size=bottleneck_size,
    )
    module = training.train(model, out, peft, init, data, lang, task, settings, replace, progress=not quiet)
    if PartialState().is_main_process:
        tables.show_scores(console, module.provenance["training"]["scores"])
        console.print(f"Wrote {out}")


@app.command()
def evaluate(
    module: Annotated[Path, typer.Argument(help="Directory of a module that PEFT or regraft saved.")],
    task: TaskOpt = "ner",
    model: Annotated[str | None, typer.Option(help="Base model. Default: the one the module names.")] = None,
    data: DataOpt = None,
    lang: LangOpt = "en",
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    batch_size: BatchOpt = 32,
    max_length: LengthOpt = 256,
    max_eval: Annotated[int | None, typer.Option(min=1, help="Score this many sentences.")] = None,
    quiet: QuietOpt = False,
) -> None:
    """Score a module on a task."""
    from .. import training

    settings = training.Settings(batch_size=batch_size, max_length=max_length, max_eval=max_eval)
    scores = training.evaluate(module, model, data, lang, task, split, settings, progress=not quiet)
    tables.show_scores(console, {split: scores})
