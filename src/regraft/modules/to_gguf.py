"""A LoRA of a decoder as the file that llama.cpp loads (``--lora FILE``)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ModuleFileError, unknown_choice
from ..files.directories import new_directory
from ..files.writing import whole_file, write_json
from ..models.pretrained import ModelLike, Pretrained
from .card import write_card
from .config import PREFIX, check_portable, with_sizes
from .inventory import take_inventory
from .module import FILES, GGUF_WEIGHTS, PROVENANCE, Module, base_of
from .peft_types import PEFT_TYPES


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp knows a model type.

    Attributes:
        name: its name there.
        interleaved: the sites whose rows it keeps in pairs, as rotary embeddings turn them; transformers keeps the
            first ones of all pairs before the second ones.
    """

    name: str
    interleaved: tuple[str, ...] = ()


_ROTARY = ("query", "key")

ARCHITECTURES: Mapping[str, Architecture] = {
    "gemma": Architecture("gemma"),
    "gemma2": Architecture("gemma2"),
    "gemma3_text": Architecture("gemma3"),
    "granite": Architecture("granite", _ROTARY),
    "llama": Architecture("llama", _ROTARY),
    "mistral": Architecture("llama", _ROTARY),
    "olmo2": Architecture("olmo2"),
    "phi3": Architecture("phi3"),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "smollm3": Architecture("smollm3", _ROTARY),
    "stablelm": Architecture("stablelm"),
    "starcoder2": Architecture("starcoder2"),
}
"""Model type -> how llama.cpp knows it; as its own converter, ``convert_lora_to_gguf.py``, has them."""


def save_gguf(
    module: Module, path: str | os.PathLike[str], base: ModelLike | None = None, replace: bool = False
) -> Path:
    """Write a directory with a file that llama.cpp loads beside the model, ``regraft.json`` and a model card.

    The scale of a layer is alpha over its rank there. What PEFT scales otherwise (rsLoRA, alphas and ranks of single
    layers) is multiplied into B.

    Args:
        module: a plain LoRA of a decoder, without a task head.
        path: the directory; it appears whole or not at all.
        base: the base model, of which the configuration is read; by default the one that the module names.
        replace: replace a module that is there already.

    Returns:
        The directory.

    Raises:
        ModuleFileError: what the format cannot represent, the package that writes it is missing, or a directory that
            may not be replaced.
        ModelError: no such base model.
    """
    try:
        import gguf
    except ImportError as error:
        raise ModuleFileError("GGUF files need the package gguf; install it (pip install 'regraft[gguf]')") from error
    resolved = base_of(module, base)
    architecture, alpha, tensors = _of_llama_cpp(module, resolved)
    with new_directory(path, replace, (*FILES, GGUF_WEIGHTS)) as directory:
        with whole_file(directory / GGUF_WEIGHTS) as file:
            writer = gguf.GGUFWriter(file, architecture)
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
            for name, tensor in tensors.items():
                writer.add_tensor(name, tensor.float().numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
        provenance = module.stamped()
        write_json(directory / PROVENANCE, provenance)
        config = {**module.config, "base_model_name_or_path": resolved.name}
        write_card(directory, config, provenance, "gguf")
    return Path(path)


def _of_llama_cpp(module: Module, base: Pretrained) -> tuple[str, float, dict[str, Tensor]]:
    """Give the name of the architecture, alpha, and the tensors by llama.cpp's names."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    _check(module, base)
    architecture = ARCHITECTURES[base.config.model_type]
    kind = next(kind for kind in MODEL_ARCH if MODEL_ARCH_NAMES[kind] == architecture.name)
    names = get_tensor_name_map(kind, base.config.num_hidden_layers)
    inventory = take_inventory(module, base.family)
    if inventory.refused:
        key, reason = min(inventory.refused.items())
        raise ModuleFileError(
            f"{module.source} has {key.removeprefix(PREFIX)}, which no GGUF of ours can hold: {reason}"
        )
    alpha = float(with_sizes(module.config)["lora_alpha"])
    tensors: dict[str, Tensor] = {}
    for (layer, site), holding in sorted(inventory.holdings.items()):
        path = f"model.{base.family.path(layer, site)}.weight"
        name = names.get_name(path, try_suffixes=(".weight",))
        if name is None:
            raise ModuleFileError(
                f"{module.source} sits on {path}, which llama.cpp does not know of {architecture.name}"
            )
        parts = {role.suffix: module.tensors[key].float() for role, key in holding.tensors.items()}
        if not {"lora_A.weight", "lora_B.weight"} <= parts.keys():
            raise ModuleFileError(f"{module.source} has {', '.join(parts)} alone on {path}; is the file complete?")
        lora_a, lora_b = parts["lora_A.weight"], parts["lora_B.weight"]
        if site in architecture.interleaved:
            lora_b = _interleaved(lora_b, base.config, site)
        # llama.cpp scales by alpha over the rank of the layer.
        root = math.sqrt(holding.size) if module.config.get("use_rslora") else holding.size
        own, theirs = holding.alpha / root, alpha / holding.size
        tensors[f"{name}.lora_a"] = lora_a
        tensors[f"{name}.lora_b"] = lora_b if own == theirs else lora_b * (own / theirs)
    return architecture.name, alpha, tensors


def _check(module: Module, base: Pretrained) -> None:
    """Refuse what llama.cpp cannot load, or would load as something else."""
    source, config = module.source, module.config
    check_portable(config, source)
    if base.config.model_type not in ARCHITECTURES:
        unknown = unknown_choice("model type", base.config.model_type, ARCHITECTURES)
        raise ModuleFileError(f"{source} is for a model that no GGUF adapter is written for: {unknown}")
    if not PEFT_TYPES[module.peft_type].served:
        raise ModuleFileError(
            f"{source} is a {module.peft_type} module, and llama.cpp loads LoRA alone; convert it to LoRA first "
            "(regraft convert MODULE --to lora --rank R)"
        )
    refused = {
        "use_dora": "llama.cpp has no magnitudes; convert it to LoRA first (regraft convert MODULE --to lora --rank R)",
        "lora_bias": "llama.cpp has no biases of a LoRA; train without lora_bias",
        "modules_to_save": "llama.cpp loads no module that was trained whole; merge the module instead (--to merged)",
    }
    for option, reason in refused.items():
        if config.get(option):
            raise ModuleFileError(f"{source} uses {option}, which a GGUF adapter cannot hold: {reason}")


def _interleaved(lora_b: Tensor, config: Any, site: str) -> Tensor:
    """Put the rows of each head into the order in which llama.cpp turns them, (d_out, rank)."""
    heads = config.num_attention_heads if site == "query" else config.num_key_value_heads
    return lora_b.reshape(heads, 2, -1, lora_b.shape[1]).transpose(1, 2).reshape(lora_b.shape)
