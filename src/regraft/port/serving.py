"""What servers of language models will say to a ported module, before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models.pretrained import Pretrained
from ..modules.config import with_sizes
from ..modules.peft_types import PEFT_TYPES
from ..modules.to_gguf import ARCHITECTURES

# What vLLM's --max-lora-rank may be (vllm/config/lora.py), and what it is unless one says so.
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_VLLM_DEFAULT = 16
# What vLLM refuses of a configuration (vllm/lora/peft_helper.py).
_VLLM_REFUSES = ("modules_to_save", "use_dora", "lora_bias")
# Families that it has classes of its own for, without `supports_lora` (vllm/model_executor/models, 0.33).
VLLM_WITHOUT_LORA = frozenset({"bloom", "falcon", "gpt2", "stablelm"})


def serving_said(config: Mapping[str, Any], student: Pretrained) -> list[str]:
    """Say which servers load a module of a language model as it is, and what to do for the others.

    Args:
        config: the PEFT configuration of the student's module.
        student: its model.

    Returns:
        Sentences; none for what is no module of a causal language model.
    """
    if not student.family.causal or config.get("task_type") not in (None, "CAUSAL_LM"):
        return []
    record = PEFT_TYPES[config["peft_type"]]
    if not record.served:
        return [
            f"vLLM and llama.cpp load LoRA alone, not {record.name}; "
            "'regraft convert --to lora' or '--to merged' makes what they load, where it merges."
        ]
    refused = [option for option in _VLLM_REFUSES if config.get(option)]
    rank = max([with_sizes(config)["r"], *(config.get("rank_pattern") or {}).values()])
    allowed = next((size for size in _VLLM_RANKS if size >= rank), None)
    if student.config.model_type in VLLM_WITHOUT_LORA:
        said = [
            f"vLLM serves no LoRA on {student.config.model_type}; 'regraft convert --to merged' makes a model of it."
        ]
    elif refused:
        said = [
            f"vLLM will refuse it for its {' and '.join(refused)}; 'regraft convert --to merged' makes a model of it."
        ]
    elif allowed is None:
        said = [
            f"vLLM will refuse its rank of {rank}, expected at most {_VLLM_RANKS[-1]}; convert it to a smaller LoRA."
        ]
    else:
        said = [] if rank <= _VLLM_DEFAULT else [f"vLLM serves its rank of {rank} with --max-lora-rank {allowed}."]
    if not refused and student.config.model_type not in ARCHITECTURES:
        said.append(f"No GGUF adapter is written for {student.config.model_type}; llama.cpp needs a merged model.")
    return said
