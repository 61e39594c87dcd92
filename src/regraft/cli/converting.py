"""Convert modules between PEFT's directories and AdapterHub's."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..errors import ModuleFileError, unknown_choice
from .app import OUTPUT, Out, Replace, console

_FORMATS = ("adapterhub", "peft")


def convert(
    module: str,
    /,
    *,
    to: str,
    out: Out,
    model: str | None = None,
    name: Annotated[str, Parameter(group=OUTPUT)] = "regraft",
    replace: Replace = False,
) -> None:
    """Convert a module between PEFT and AdapterHub's library, exactly.

    What would change is refused. A module that has the format already is written
    anew.

    Example: regraft convert my-lora --to adapterhub --out my-adapter

    Args:
        module: Module that PEFT or AdapterHub saved: directory or hub id.
        to: peft or adapterhub.
        out: Directory to write the converted module to.
        model: Model it was trained on. Default: as it says.
        name: AdapterHub's name of the adapter and head.
    """
    import dataclasses

    from ..files.directories import check_writable
    from ..modules.module import FILES, load

    if to not in _FORMATS:
        raise ModuleFileError(unknown_choice("format", to, _FORMATS))
    check_writable(out, replace, FILES, [module, model])
    loaded = load(module)
    if to == "adapterhub":
        loaded.save_adapterhub(out, model, name, replace)
        console.print(f"Wrote {out}: model.load_adapter({str(out)!r}, set_active=True) loads it.")
        return
    if model is not None:
        loaded = dataclasses.replace(loaded, config={**loaded.config, "base_model_name_or_path": model})
    loaded.save(out, replace)
    console.print(f"Wrote {out}: PeftModel.from_pretrained(model, {str(out)!r}) loads it.")
