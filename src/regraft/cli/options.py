"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ..alignment import METHODS
from ..errors import PlanError, unknown_choice

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


def parse_layers(text: str) -> str | list[int]:
    """Read ``--layers``: a name, or a list of numbers."""
    if not text.replace(",", "").replace(" ", "").isdigit():
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
