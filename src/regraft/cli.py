"""The command line: thin commands over the library. A user's mistake is one sentence and exit code 2."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from accelerate import PartialState
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from . import checkpoint, port, samples, sampling, tables
from .alignment import METHODS
from .errors import PlanError, RegraftError, unknown_choice
from .models import resolve
from .roles import Convention
from .texts import read_texts

app = typer.Typer(
    epilog="Start with 'regraft plan MODULE --student MODEL': it loads no weights and shows who gets what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(markup=False)  # paths and messages may hold brackets
errors = Console(stderr=True, markup=False)

ModuleArg = Annotated[str, typer.Argument(help="Directory or hub id of the teacher's module, as PEFT saved it.")]
StudentOpt = Annotated[str, typer.Option(help="Model the module goes to: directory or hub id.")]
TeacherOpt = Annotated[
    str | None, typer.Option(help="Model the module was trained on. Default: the one its configuration names.")
]
LayersOpt = Annotated[
    str,
    typer.Option(help="Which teacher layers a student layer takes: skip, avg, avg_released, last, or a list 0,2,4."),
]
AlignOpt = Annotated[
    str,
    typer.Option(
        help="How dimensions are matched. " + " ".join(f"{name}: {method.summary}." for name, method in METHODS.items())
    ),
]
SpacesOpt = Annotated[
    str,
    typer.Option(help="Which space maps what a module writes: released (as the authors' code) or measured."),
]
PairingOpt = Annotated[
    str, typer.Option(help="Which tokens go together: offsets (shared characters) or position (the paper).")
]
TextsOpt = Annotated[
    Path | None, typer.Option(help="Plain text, one per line (or .conllu), to compare the two models on.")
]
DeviceOpt = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: a GPU where there is one.")]
DtypeOpt = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: the checkpoint's own.")]
BatchOpt = Annotated[int, typer.Option(min=1, help="Texts per batch.")]
LengthOpt = Annotated[int, typer.Option(min=8, help="Tokens after which a text is cut.")]
ReplaceOpt = Annotated[bool, typer.Option("--replace", help="Replace the output directory where it exists.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
TaskOpt = Annotated[str, typer.Option(help="What to train and score: ner.")]
DataOpt = Annotated[
    Path | None,
    typer.Option(help="Folder with val.conllu, test.conllu and maybe train.conllu (in LANG/ or itself). Default: hub."),
]
LangOpt = Annotated[str, typer.Option("--lang", help="Language of the task's data.")]


def _layers(text: str) -> str | list[int]:
    if not text.replace(",", "").replace(" ", "").isdigit():
        return text
    return [int(number) for number in text.split(",") if number.strip()]


def _sampling(device: str | None, dtype: str | None, batch_size: int, max_length: int, quiet: bool) -> dict[str, Any]:
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype is not None and dtype not in types:
        raise PlanError(unknown_choice("dtype", dtype, types))
    chosen = types[dtype] if dtype else None
    return {
        "device": device,
        "dtype": chosen,
        "batch_size": batch_size,
        "max_length": max_length,
        "progress": not quiet,
    }


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"regraft {version('regraft')}")
        raise typer.Exit


@app.callback()
def common(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Port trained PEFT modules (LoRA, bottleneck adapters) from one pretrained transformer to another."""


@app.command()
def plan(
    module: ModuleArg,
    student: StudentOpt,
    teacher: TeacherOpt = None,
    layers: LayersOpt = "skip",
    align: AlignOpt = "none",
    spaces: SpacesOpt = "released",
    verbose: Annotated[bool, typer.Option("--verbose", help="One line per tensor.")] = False,
) -> None:
    """Show who gets what from whom, from configurations alone; nothing is loaded, nothing is written."""
    drawn = port.plan(checkpoint.load(module), student, teacher, _layers(layers), align, cast(Convention, spaces))
    tables.show_plan(console, drawn, verbose)
    drawn.check()


@app.command()
def sample(
    teacher: Annotated[str, typer.Option(help="The model that modules were trained on: directory or hub id.")],
    student: StudentOpt,
    texts: Annotated[Path, typer.Option(help="Plain text, one per line (or .conllu).")],
    out: Annotated[Path, typer.Option(help="Directory to write the moments to.")],
    layers: LayersOpt = "skip",
    sites: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated sites that the modules to come sit on. Default: query,value and, in encoders, "
            "output_norm: what LoRA and bottlenecks sit on by default."
        ),
    ] = None,
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
    samples.check_output(out, replace)
    pair = resolve(teacher), resolve(student)
    spaces = sampling.spaces_of(*pair, _layers(layers), [site.strip() for site in sites.split(",")] if sites else None)
    taken = sampling.sample(
        *pair, spaces, read_texts(texts), pairing, **_sampling(device, dtype, batch_size, max_length, quiet)
    )
    samples.save_sample(taken, out, replace)
    console.print(f"{taken.describe()}; {len(spaces)} pairs of spaces in {out}")


@app.command()
def transfer(
    module: ModuleArg,
    student: StudentOpt,
    out: Annotated[Path, typer.Option(help="Directory to write the student's module to.")],
    teacher: TeacherOpt = None,
    layers: LayersOpt = "skip",
    align: AlignOpt = "none",
    pairing: PairingOpt = "offsets",
    spaces: SpacesOpt = "released",
    texts: TextsOpt = None,
    moments: Annotated[
        list[Path] | None, typer.Option(help="Directory of 'regraft sample', instead of --texts; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    device: DeviceOpt = None,
    dtype: DtypeOpt = None,
    batch_size: BatchOpt = 32,
    max_length: LengthOpt = 256,
    replace: ReplaceOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Port a teacher's module to a student and write a directory that PEFT loads."""
    checkpoint.check_output(out, replace)
    ported = port.transfer(
        checkpoint.load(module),
        student,
        teacher,
        _layers(layers),
        align,
        texts=None if texts is None else read_texts(texts),
        pairing=pairing,
        spaces=cast(Convention, spaces),
        seed=seed,
        moments=moments or None,
        **_sampling(device, dtype, batch_size, max_length, quiet),
    )
    ported.save(out, replace)
    tables.show_port(console, ported.report)
    console.print(f"Wrote {out}: PeftModel.from_pretrained(model, {str(out)!r}) loads it.")


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
    from . import training  # the Trainer takes a while to import

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
    from . import training

    settings = training.Settings(batch_size=batch_size, max_length=max_length, max_eval=max_eval)
    scores = training.evaluate(module, model, data, lang, task, split, settings, progress=not quiet)
    tables.show_scores(console, {split: scores})


def main() -> None:
    """Run the command line."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in ("transformers", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()
    try:
        app()
    except RegraftError as error:
        errors.print("error: ", style="bold red", end="")
        errors.print(str(error), soft_wrap=True, highlight=False)
        sys.exit(2)
