"""Step 1, in regraft's environment: write PEFT modules as AdapterHub directories, with the outputs PEFT gives.

Usage: python tests/interop/write_directories.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from common import ADAPTER, EXPECTED, bases, ours, perturb, result
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

import regraft
from regraft.models.families import FAMILIES
from regraft.models.pretrained import HEAD_CLASSES
from regraft.modules.adapterhub.layouts import LAYOUTS

TASKS = ("", "TOKEN_CLS", "SEQ_CLS", "QUESTION_ANS")
WIDTH, LAYERS = 40, 3


def write_base(model_type: str, path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 2 * WIDTH}
    if model_type == "distilbert":
        sizes = {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 2 * WIDTH}
    if model_type == "electra":
        sizes |= {"embedding_size": 16}
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=120, max_position_embeddings=64, pad_token_id=0, initializer_range=0.2, **sizes
    )
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(path)


def peft_configs(model_type: str) -> dict[str, Any]:
    """One of everything that is converted: methods, sites, left-out layers, factors and sizes."""
    family = FAMILIES[model_type]
    everywhere = [(layer, site) for layer in (0, 2) for site in ("query", "key", "value", "ff_up", "ff_down")]
    attention = [family.sites[site].rpartition(".")[2] for site in ("query", "value")]
    return {
        "LoRA": LoraConfig(r=4, lora_alpha=10, lora_dropout=0.1, target_modules=attention),
        "LoRA on all sites of layers 0 and 2": LoraConfig(
            r=3, lora_alpha=8, target_modules=family.pattern_of(everywhere)
        ),
        "bottleneck": regraft.BottleneckConfig(bottleneck_size=10),
        "bottleneck in layer 1": regraft.BottleneckConfig(
            bottleneck_size=7,  # does not divide the width
            non_linearity="gelu",
            scaling=0.5,
            target_modules=family.pattern_of([(1, "output_norm")]),
        ),
    }


def write_case(case: Path, base: Path, task: str, config: Any) -> None:
    auto_class = getattr(transformers, f"AutoModel{HEAD_CLASSES.get(task, '')}")
    labels = {} if task in ("", "QUESTION_ANS") else {"num_labels": 3}
    model = auto_class.from_pretrained(base, **labels)
    if task:
        config.task_type = task
    if task == "SEQ_CLS":  # DistilBERT's head has a first linear layer that PEFT leaves to chance
        config.modules_to_save = ["pre_classifier"]
    model = get_peft_model(model, config)
    perturb(model)
    case.mkdir(parents=True)
    model.save_pretrained(case / "peft")
    regraft.load(case / "peft").save_adapterhub(case / ADAPTER, base, name="ours")
    save_file({"output": result(model).contiguous()}, case / EXPECTED)


def main(out: Path) -> None:
    transformers.logging.set_verbosity_error()
    for model_type in LAYOUTS:
        base = bases(out) / model_type
        write_base(model_type, base)
        for task in TASKS:
            for name, config in peft_configs(model_type).items():
                write_case(ours(out) / f"{model_type} {name} {task or 'without head'}", base, task, config)
    print(f"Wrote {len(list(ours(out).iterdir()))} directories to {ours(out)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
