"""Compare what `regraft convert --to gguf` writes with what llama.cpp's own converter does, tensor by tensor.

Usage: python tests/interop/check_llama_cpp.py LLAMA_CPP
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import perturb
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model

import regraft
from regraft.modules.to_gguf import ARCHITECTURES, save_gguf

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"intermediate_size": 48, "vocab_size": 64, "head_dim": 8, "max_position_embeddings": 128}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}


def write(model_type: str, folder: Path) -> tuple[Path, Path]:
    """Write a base model and a LoRA on all of its linear layers."""
    config = transformers.AutoConfig.for_model(model_type)
    for name, size in SIZES.items():
        setattr(config, name, size)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: SIZES["num_hidden_layers"]]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    base, module = folder / "base", folder / "module"
    model.save_pretrained(base)
    model.config._name_or_path = model.name_or_path = str(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM"))
    perturb(adapted)
    adapted.save_pretrained(module)
    return base, module


def read(path: Path) -> dict[str, Any]:
    reader = GGUFReader(path)
    kept = ("general.architecture", "general.type", "adapter.")
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith(kept)}
    return {**fields, **{tensor.name: np.array(tensor.data) for tensor in reader.tensors}}


def main(llama_cpp: Path) -> None:
    failed = 0
    for model_type in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as work:
            base, module = write(model_type, Path(work))
            theirs = Path(work) / "theirs.gguf"
            converter = [sys.executable, llama_cpp / "convert_lora_to_gguf.py", module, "--base", base]
            subprocess.run(
                [*map(str, converter), "--outfile", str(theirs), "--outtype", "f32"], check=True, capture_output=True
            )
            ours = save_gguf(regraft.load(module), Path(work) / "ours") / "adapter_model.gguf"
            found, expected = read(ours), read(theirs)
            same = found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in found)
        failed += not same
        print(f"{'ok' if same else 'FAILED':<8}{model_type:<16}{len(found)} fields and tensors")
    print(f"{len(ARCHITECTURES)} model types, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
