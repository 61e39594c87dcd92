"""Load what regraft ports between decoders with vLLM's own loader, and hold what `plan` says of vLLM against its code.

Usage: PYTHONPATH=VLLM python tests/interop/check_vllm.py

vLLM serves on a GPU; what reads, refuses and scales a LoRA there is Python, which is what runs here, on the CPU.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import transformers
from check_trl import port, write_base
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm.config.lora import LoRAConfig, MaxLoRARanks
from vllm.lora import lora_model
from vllm.lora.peft_helper import PEFTHelper
from vllm.model_executor.models.registry import _TEXT_GENERATION_MODELS

import regraft
from regraft.models.families import FAMILIES
from regraft.models.pretrained import resolve
from regraft.port.serving import VLLM_WITHOUT_LORA, serving_said

# Student -> teacher.
PAIRS = dict.fromkeys(("gemma2", "gemma3_text", "granite", "llama", "mistral", "qwen2", "qwen3"), "llama")
PAIRS["phi3"] = "phi3"  # projections that are fused take a module of fused ones
# What is asked of a LoRA -> whether vLLM is to take it.
VARIANTS: dict[str, dict[str, Any]] = {
    "rank 16": {"r": 16},
    "rank 24": {"r": 24},
    "rank 600": {"r": 600},
    "a rank of its own": {"r": 8, "rank_pattern": {"q_proj": 200}},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "biases": {"lora_bias": True},
    "a head": {"modules_to_save": ["lm_head"]},
}


def served(model_type: str) -> Any:
    """Find vLLM's class for a language model; None where transformers' own code runs in it."""
    if (name := MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)) not in _TEXT_GENERATION_MODELS:
        return None
    module, name = _TEXT_GENERATION_MODELS[name][:2]
    return getattr(import_module(f"vllm.model_executor.models.{module}"), name)


def problems(model_type: str, student: Path, ported: Path) -> list[str]:
    """Load a port as vLLM's worker does; say what differs from what PEFT adds to the weights."""
    theirs = served(model_type)
    names = {name for packed in theirs.packed_modules_mapping.values() for name in packed} | {"o_proj", "down_proj"}
    helper = PEFTHelper.from_local_dir(str(ported), None)
    helper.validate_legal(LoRAConfig())
    renames = theirs.hf_to_vllm_mapper.get_rename_mapper()
    loras = lora_model.LoRAModel.from_local_checkpoint(
        str(ported), names, helper, device="cpu", weights_mapper=renames
    ).loras
    model = transformers.AutoModelForCausalLM.from_pretrained(student)
    model.load_adapter(str(ported))
    added = {name: part for name, part in model.named_modules() if hasattr(part, "get_delta_weight")}
    if loras.keys() != added.keys():
        return [f"other modules: {', '.join(sorted(loras.keys() ^ added.keys()))}"]
    off = [
        float((one.lora_b @ one.lora_a * one.scaling - added[name].get_delta_weight("default")).abs().max())
        for name, one in loras.items()
    ]
    return [f"{len(loras)} modules differ by up to {max(off):.1e}"] if max(off) > 1e-5 else []


def takes(config: dict[str, Any]) -> bool:
    """Ask vLLM whether it takes a configuration at its largest `--max-lora-rank`."""
    try:
        PEFTHelper.from_dict(config).validate_legal(LoRAConfig(max_lora_rank=max(get_args(MaxLoRARanks))))
    except ValueError:
        return False
    return True


def main() -> None:
    """Print a line per student, per variant and per family of causal models."""
    lora_model.PIN_MEMORY = False  # which needs a GPU
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as work:
        for model_type, its_teacher in PAIRS.items():
            folder = Path(work) / model_type
            teacher = write_base(its_teacher, 32, 4, folder / "teacher")
            student = write_base(model_type, 48, 2, folder / "student")
            found[f"{its_teacher} to {model_type}"] = problems(model_type, student, port(teacher, student, folder))
        config = dict(regraft.load(folder / "ported").config)
        for name, asked in VARIANTS.items():
            said = serving_said({**config, **asked}, resolve(str(student)))
            refused = any("vLLM will refuse" in one for one in said)
            its = not takes({**config, **asked})
            found[name] = [] if refused == its else [f"plan says {refused}, vLLM refuses {its}"]
        for model_type in sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) & set(FAMILIES)):
            if FAMILIES[model_type].causal and (theirs := served(model_type)) is not None:
                its = not getattr(theirs, "supports_lora", False)
                refused = model_type in VLLM_WITHOUT_LORA
                found[model_type] = [] if refused == its else [f"plan says {refused}, vLLM refuses {its}"]
    for name, wrong in found.items():
        print(f"{'FAILED' if wrong else 'ok':<8}{name:<24}{'; '.join(wrong)}")
    failed = sum(map(bool, found.values()))
    print(f"{len(found)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
