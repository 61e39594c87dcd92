"""The application that commands register with."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from ..alignment.methods import METHODS
from ..errors import PlanError, TaskError, unknown_choice
from ..tasks.records import TASKS
from ..training.tracking import TRACKERS, Tracking

app = typer.Typer(
    epilog="Start with 'regraft plan MODULE --student MODEL': it loads no weights and shows who gets what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(markup=False)  # paths and messages may hold brackets
errors = Console(stderr=True, markup=False)


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


ModuleArg = Annotated[
    str, typer.Argument(help="Directory or hub id of the teacher's module, as PEFT or AdapterHub saved it.")
]
StudentOpt = Annotated[str, typer.Option(help="Model the module goes to: directory or hub id.")]
TeacherOpt = Annotated[
    str | None, typer.Option(help="Model the module was trained on. Default: the one its configuration names.")
]
LayersOpt = Annotated[
    str,
    typer.Option(help="Which teacher layers a student layer takes: skip, avg, avg_released, last, or a list 0,2,4."),
]
AlignOpt = Annotated[
    str | None,
    typer.Option(
        help="How dimensions are matched. Default: auto with texts or moments, none without. "
        + " ".join(f"{name}: {method.summary}." for name, method in METHODS.items())
    ),
]
SpacesOpt = Annotated[
    str | None,
    typer.Option(
        help="Which space maps what a module writes: released (as the authors' code; default of one-to-one maps) or "
        "measured (where it is written; default of all others)."
    ),
]
SequentialOpt = Annotated[
    bool | None,
    typer.Option(
        "--sequential/--apart",
        help="Fit layer by layer with the module in place in both models, or to the bare models. Default: "
        "sequential for auto with texts.",
        show_default=False,
    ),
]
ScaleOpt = Annotated[
    str,
    typer.Option(help="Factor of what the module writes: a number, or auto to search it on the texts (sequential)."),
]
HeadOpt = Annotated[
    str | None,
    typer.Option(
        help="Task head: teacher (ported too) or fresh (the paper). Default: the teacher's, wherever it can be ported."
    ),
]
HeadLabelsOpt = Annotated[
    str | None,
    typer.Option(
        "--labels", help="Comma-separated names of the student's labels, in its head's order. Default: the teacher's."
    ),
]
PairingOpt = Annotated[
    str, typer.Option(help="Which tokens go together: offsets (shared characters) or position (the paper).")
]
TEXTS_HELP = (
    "plain text, one per line (or .conllu); a table (.jsonl, .csv, .tsv, .parquet); or a data set on the hub, ID or "
    "ID:CONFIG."
)
TextsOpt = Annotated[str, typer.Option(help=f"Texts to run both models on: {TEXTS_HELP}")]
SomeTextsOpt = Annotated[str | None, typer.Option(help=f"Texts to compare the two models on: {TEXTS_HELP}")]
TextColumnOpt = Annotated[str, typer.Option(help="What holds the texts of a table or a data set.")]
TextSplitOpt = Annotated[str, typer.Option(help="Split of a data set on the hub to read texts from.")]
MaxTextsOpt = Annotated[int | None, typer.Option(min=1, help="Read so many texts, the first.")]
MomentsOpt = Annotated[
    list[Path] | None, typer.Option(help="Directory of 'regraft sample', instead of --texts; may be repeated.")
]
DeviceOpt = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: a GPU where there is one.")]
DtypeOpt = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: the checkpoint's own.")]
BatchOpt = Annotated[int, typer.Option(min=1, help="Texts per batch.")]
LengthOpt = Annotated[int, typer.Option(min=8, help="Tokens after which a text is cut.")]
ReplaceOpt = Annotated[bool, typer.Option("--replace", help="Replace the output directory where it exists.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
TrackOpt = Annotated[
    list[str] | None,
    typer.Option(help=f"Show the training in {' or '.join(TRACKERS)}; may be repeated. Extra: regraft[tracking]."),
]
TaskOpt = Annotated[
    str,
    typer.Option(
        help="What to train and score. " + " ".join(f"{name}: {task.summary}." for name, task in TASKS.items())
    ),
]
DataOpt = Annotated[
    str | None,
    typer.Option(
        help="Folder with train, val (or dev) and test files (.conllu, .tsv, .csv, .jsonl, .parquet; in LANG/ or "
        "itself), or a data set of the hub, ID or ID:CONFIG. Default: the task's own on the hub."
    ),
]
LangOpt = Annotated[str, typer.Option("--lang", help="Language of the task's data.")]
ColumnOpt = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=COLUMN where the data call a column of the task otherwise; may be repeated. Names: "
        + "; ".join(f"{name}: {', '.join(task.columns)}" for name, task in TASKS.items())
        + "."
    ),
]
LabelsOpt = Annotated[
    str | None, typer.Option(help="Comma-separated names of the labels, where they are not the task's.")
]


def parse_columns(pairs: list[str] | None) -> dict[str, str]:
    """Read ``--column NAME=COLUMN``, given any number of times."""
    columns = {}
    for pair in pairs or ():
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise TaskError(f"found --column {pair}, expected NAME=COLUMN, such as text=review")
        columns[name] = column
    return columns


def parse_labels(text: str | None) -> list[str] | None:
    """Read ``--labels``."""
    return [name.strip() for name in text.split(",")] if text else None


def parse_tracking(to: list[str] | None, out: Path) -> Tracking | None:
    """Read ``--track``: the run is named after what it makes, and TensorBoard's files lie beside it."""
    return Tracking(tuple(to), out.name, out.absolute().parent) if to else None


def parse_layers(text: str) -> str | list[int]:
    """Read ``--layers``: a name, or a list of numbers."""
    if not text.replace(",", "").replace(" ", "").isdecimal():
        return text
    return [int(number) for number in text.split(",") if number.strip()]


def sampling_options(
    device: str | None, dtype: str | None, batch_size: int, max_length: int, quiet: bool
) -> dict[str, Any]:
    """Turn the options of a run over texts into arguments of `sampling.sample`."""
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
