"""Convert modules between PEFT's directories and AdapterHub's."""

from __future__ import annotations

from dataclasses import replace as replaced
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ModuleFileError, unknown_choice
from ..modules import module as modules_module
from .app import ReplaceOpt, app, console

_FORMATS = ("adapterhub", "peft")


@app.command()
def convert(
    module: Annotated[str, typer.Argument(help="Directory or hub id of a module that PEFT or AdapterHub saved.")],
    to: Annotated[str, typer.Option(help="peft or adapterhub. A module that has this format already is written anew.")],
    out: Annotated[Path, typer.Option(help="Directory to write the converted module to.")],
    model: Annotated[
        str | None, typer.Option(help="Model the module was trained on. Default: the one its configuration names.")
    ] = None,
    name: Annotated[str, typer.Option(help="What AdapterHub is to call the adapter and its head.")] = "regraft",
    replace: ReplaceOpt = False,
) -> None:
    """Convert a module between PEFT and AdapterHub's 'adapters' library, bit for bit; what would change is refused."""
    if to not in _FORMATS:
        raise ModuleFileError(unknown_choice("format", to, _FORMATS))
    modules_module.check_output(out, replace)
    read = modules_module.load(module)
    if to == "adapterhub":
        read.save_adapterhub(out, model, name, replace)
        console.print(f"Wrote {out}: model.load_adapter({str(out)!r}, set_active=True) loads it.")
        return
    if model is not None:
        read = replaced(read, config={**read.config, "base_model_name_or_path": model})
    read.save(out, replace)
    console.print(f"Wrote {out}: PeftModel.from_pretrained(model, {str(out)!r}) loads it.")
