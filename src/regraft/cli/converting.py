"""Convert modules: between PEFT's directories and AdapterHub's, to LoRA, and to what servers load."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..errors import ModuleFileError, unknown_choice
from .app import OUTPUT, Out, Quiet, Replace, Revision, TrustCode, console, held

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
    quiet: Quiet = False,
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
        console.print(f"Wrote {out}: llama-cli --model MODEL.gguf --lora {out / GGUF_WEIGHTS} loads it.")
        return
    if to == "merged":
        from ..modules.merging import save_merged

        save_merged(loaded, out, model, replace, trust_remote_code)
        console.print(f"Wrote {out}: a model of its own, which transformers loads without PEFT.")
        return
    if to == "adapterhub":
        loaded.save_adapterhub(out, model, name, replace)
        console.print(f"Wrote {out}: model.load_adapter({str(out)!r}, set_active=True) loads it.")
        return
    if rank is not None:
        from ..modules.to_lora import convert_to_lora

        loaded = convert_to_lora(loaded, rank, model, trust_remote_code, not quiet)
        done = loaded.provenance["converted"]
        console.print(
            f"A LoRA of rank {rank} for {len(done['errors'])} layers of {done['peft_type']}; relative error of what "
            f"they add: {done['mean_error']:.2g} on average, at most {done['max_error']:.2g}."
        )
    elif model is not None:
        loaded = dataclasses.replace(loaded, config={**loaded.config, "base_model_name_or_path": model})
    loaded.save(out, replace)
    console.print(f"Wrote {out}: PeftModel.from_pretrained(model, {str(out)!r}) loads it.")
