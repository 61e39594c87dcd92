"""Convert modules: between PEFT's directories and AdapterHub's, to LoRA, and to what servers load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..errors import ModuleFileError, unknown_choice
from .app import OUTPUT, Out, Replace, Revision, TrustCode, console, held
from .found import Converted
from .output import Output, Printed

if TYPE_CHECKING:
    from ..modules.module import Module

_FORMATS = ("adapterhub", "gguf", "lora", "merged", "peft")
_OF_A_RANK = ("lora",)


def convert(
    module: str,
    /,
    *,
    to: str,
    out: Out,
    rank: int | None = None,
    model: str | None = None,
    revision: Revision = None,
    trust_remote_code: TrustCode = False,
    name: Annotated[str, Parameter(group=OUTPUT)] = "regraft",
    replace: Replace = False,
    output: Printed = Output(),
) -> None:
    """Convert a module to other formats, or into a whole model.

    Between PEFT and AdapterHub's library it is exact, and what would change is
    refused; a module that has the format already is written anew. A LoRA is as
    near as its rank allows: how near is said. gguf is a LoRA of a decoder for
    llama.cpp; merged is the base model with the module in its weights.

    Example: regraft convert my-lora --to adapterhub --out my-adapter

    Args:
        module: Module that PEFT or AdapterHub saved: directory or hub id.
        to: peft, adapterhub, lora, gguf or merged.
        out: Directory to write the converted module to.
        rank: Rank of the LoRA, with --to lora.
        model: Model it was trained on. Default: as it says.
        name: AdapterHub's name of the adapter and head.
    """
    import dataclasses

    from ..files.directories import claimed
    from ..modules.model_directory import model_files
    from ..modules.module import FILES, GGUF_WEIGHTS, load

    if to not in _FORMATS:
        raise ModuleFileError(unknown_choice("format", to, _FORMATS))
    if (to in _OF_A_RANK) != (rank is not None):
        said = "without" if rank is None else "with"
        raise ModuleFileError(f"found --to {to} {said} --rank, expected it with {', '.join(_OF_A_RANK)} alone")
    held.enter_context(claimed(out, replace, [*FILES, GGUF_WEIGHTS, *model_files(out)], [module, model]))
    loaded = load(module, revision=revision)
    if to == "gguf":
        from ..modules.to_gguf import save_gguf

        save_gguf(loaded, out, model, replace)
        loads = f"llama-cli --model MODEL.gguf --lora {out / GGUF_WEIGHTS} loads it"
    elif to == "merged":
        from ..modules.merging import save_merged

        save_merged(loaded, out, model, replace, trust_remote_code)
        loads = "a model of its own, which transformers loads without PEFT"
    elif to == "adapterhub":
        loaded.save_adapterhub(out, model, name, replace)
        loads = f"model.load_adapter({str(out)!r}, set_active=True) loads it"
    else:
        if rank is not None:
            loaded = _as_lora(loaded, rank, model, trust_remote_code)
        elif model is not None:
            loaded = dataclasses.replace(loaded, config={**loaded.config, "base_model_name_or_path": model})
        loaded.save(out, replace)
        from .show import how_to_load

        loads = how_to_load(loaded, out)
    console.print(f"Wrote {out}: {loads}.", soft_wrap=True)
    if to == "peft" and not loaded.base_model:
        console.print(f"It names no base model, as {module} does not; --model writes it down")
    converted = loaded.provenance.get("converted") if rank is not None else None
    output.give(Converted(out=str(out), to=to, converted=converted), out)


def _as_lora(module: Module, rank: int, model: str | None, trust_remote_code: bool) -> Module:
    from ..modules.to_lora import convert_to_lora

    made = convert_to_lora(module, rank, model, trust_remote_code)
    done = made.provenance["converted"]
    console.print(
        f"A LoRA of rank {rank} for {len(done['errors'])} layers of {done['peft_type']}; relative error of what "
        f"they add: {done['mean_error']:.2g} on average, at most {done['max_error']:.2g}."
    )
    return made
