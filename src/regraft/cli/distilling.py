"""Make and distill a shallower student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..distillation.options import Settings
from ..errors import TaskError
from ..files.texts import read_texts
from ..training.devices import processes
from . import show
from .app import (
    TEXTS_HELP,
    BatchOpt,
    MaxTextsOpt,
    QuietOpt,
    ReplaceOpt,
    TextColumnOpt,
    TextSplitOpt,
    TrackOpt,
    app,
    console,
    parse_layers,
    parse_tracking,
)


@app.command()
def distill(
    teacher: Annotated[str, typer.Option(help="Model to make a student of: directory or hub id.")],
    texts: Annotated[
        list[str],
        typer.Option(help=f"Texts to learn from: {TEXTS_HELP} May be repeated."),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write the student and its learning curve to.")],
    every: Annotated[int | None, typer.Option(help="Take every k-th layer of the teacher. Default: 2.")] = None,
    layers: Annotated[str | None, typer.Option(help="Take these layers (0-based) instead, such as 0,2,4.")] = None,
    column: TextColumnOpt = "text",
    text_split: TextSplitOpt = "train",
    max_texts: MaxTextsOpt = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the texts.")] = 3.0,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    batch_size: BatchOpt = 32,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak of a linear schedule.")] = 5e-4,
    seed: Annotated[int, typer.Option(help="Of held-out texts, masks, order and dropout.")] = 0,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens after which a text is cut.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.1, help="Softens the predictions of both models.")] = 2.0,
    weight_kl: Annotated[float, typer.Option(min=0.0, help="Weight of the teacher's predictions.")] = 5.0,
    weight_lm: Annotated[float, typer.Option(min=0.0, help="Weight of the language model's own loss.")] = 2.0,
    weight_cosine: Annotated[float, typer.Option(min=0.0, help="Weight of the last hidden states' angle.")] = 1.0,
    weight_hidden: Annotated[
        float, typer.Option(min=0.0, help="Weight of the hidden states' distance, where there is no LM head.")
    ] = 1.0,
    mlm_probability: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of tokens a masked language model predicts.")
    ] = 0.15,
    precision: Annotated[
        str, typer.Option(help="auto (mixed where a GPU can), float32, bfloat16 or float16 (both mixed).")
    ] = "auto",
    save_every: Annotated[int, typer.Option(min=1, help="Steps from one checkpoint and evaluation to the next.")] = 500,
    track: TrackOpt = None,
    replace: ReplaceOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Make a shallower student of a model and distill it on plain text, without any task.

    A teacher with a language-model head is distilled as DistilBERT was (predictions, language model, cosine of hidden
    states); one without, by its hidden states alone. 5% of the texts, at most 1000, are held out to evaluate on. The
    same command after a kill goes on where it was. Modules are then ported with 'regraft transfer --student OUT'.

    For several GPUs: accelerate launch -m regraft distill ...
    """
    from ..distillation import students as distillation

    if every is not None and layers is not None:
        raise TaskError("got both --every and --layers, expected one of them")
    settings = Settings(
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        max_length=max_length,
        temperature=temperature,
        weight_kl=weight_kl,
        weight_lm=weight_lm,
        weight_cosine=weight_cosine,
        weight_hidden=weight_hidden,
        mlm_probability=mlm_probability,
        precision=precision,
        save_every=save_every,
    )
    read = [text for source in texts for text in read_texts(source, column, max_texts, text_split)]
    taken = (2 if every is None else every) if layers is None else _numbers(layers)
    distilled = distillation.distill(
        teacher, out, read, taken, settings, replace, progress=not quiet, tracking=parse_tracking(track, out)
    )
    if processes().is_main_process:
        show.show_losses(console, distilled.before, distilled.after)
        console.print(f"Wrote {out}: layers {', '.join(map(str, distilled.layers))} of {teacher}")


def _numbers(text: str) -> list[int]:
    layers = parse_layers(text)
    if isinstance(layers, str):
        raise TaskError(f"got --layers {text}, expected numbers such as 0,2,4; for every k-th layer use --every")
    return layers
