"""What a port costs at the paper's sizes: time and peak memory of every phase, each in a process of its own.

    REGRAFT_DATA=... python benchmarks/shapes.py --out models/

Models of the paper's four shapes are made with random weights from their configurations (6 GB on disk under --out, made
once), with tokenizers trained on the texts. Then, for both pairs: plan; sample 1,000 sentences; port a LoRA and a
bottleneck with their heads by linear assignment; load the result in PEFT; take one training step. Needs 12 GB of memory
and about ten minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import data_folder, markdown
from peft import PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    BertConfig,
    DistilBertConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)
from transformers.utils.logging import disable_progress_bar

import regraft
from regraft.activations.options import RunOptions
from regraft.activations.sampling import sample, save_sample
from regraft.files.texts import read_texts
from regraft.models.pretrained import resolve
from regraft.port.spaces import space_pairs
from regraft.tasks.records import TASKS
from regraft.training.attachment import detach, with_head
from regraft.training.fresh import fresh_config
from regraft.training.options import TrainOptions

PAIRS = {
    "12 x 768 to 6 x 768, vocabulary 119,547": (
        BertConfig(vocab_size=119_547),
        DistilBertConfig(vocab_size=119_547),
    ),
    "24 x 1024 to 12 x 768, vocabulary 250,002": (
        XLMRobertaConfig(
            vocab_size=250_002,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=514,
        ),
        XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514),
    ),
}
SENTENCES, BATCH = 1000, 8
NER = TASKS["ner"]


def apart(work: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Run `work` in a fresh process; return its seconds, without imports, and the process's peak memory in MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, *arguments))


def _measured(work: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    disable_progress_bar()
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def nothing() -> None:
    """Show what the imports take."""


def make_model(config: Any, out: Path, texts: list[str]) -> None:
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(out)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=8000, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(out)


def make_module(teacher: Path, kind: str, out: Path) -> None:
    base = resolve(teacher)
    model = get_peft_model(with_head(base, NER), fresh_config(base, NER, kind, TrainOptions()))
    detach(model, base, "random", {"labels": list(NER.labels)}).save(out, replace=True)


def plan(module: Path, student: Path) -> None:
    regraft.plan(regraft.load(module), student, align="lsa").check()


def take_sample(teacher: Path, student: Path, texts: list[str], out: Path) -> None:
    pair = resolve(teacher), resolve(student)
    save_sample(sample(*pair, space_pairs(*pair, "skip"), texts, run=RunOptions(quiet=True)), out, replace=True)


def port(module: Path, student: Path, moments: Path, out: Path) -> None:
    regraft.transfer(regraft.load(module), student, align="lsa", moments=moments).save(out, replace=True)


def load_in_peft(student: Path, module: Path, train: bool = False) -> None:
    base = AutoModelForTokenClassification.from_pretrained(student, num_labels=len(NER.labels))
    model = PeftModel.from_pretrained(base, module, is_trainable=train)
    if train:
        batch = torch.randint(5, 8000, (BATCH, 128))
        optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
        model.train()(input_ids=batch, labels=batch % len(NER.labels)).loss.backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models and modules")
    out = parser.parse_args().out
    texts = read_texts(data_folder() / "wikineural" / "en" / "val.conllu")[:SENTENCES]
    _, floor = apart(nothing)
    rows = [["", "imports alone", "", f"{floor:.0f} MB"]]
    for number, (pair, configs) in enumerate(PAIRS.items()):
        folder = out / f"pair{number}"
        teacher, student = folder / "teacher", folder / "student"
        for config, path in zip(configs, (teacher, student), strict=True):
            if not (path / "tokenizer.json").is_file():
                apart(make_model, config, path, texts)
        phases: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = []
        for kind in ("lora", "bottleneck"):
            apart(make_module, teacher, kind, folder / kind)
            phases.append((f"plan, {kind}", plan, (folder / kind, student)))
        phases.append((f"sample {SENTENCES:,} sentences", take_sample, (teacher, student, texts, folder / "moments")))
        for kind in ("lora", "bottleneck"):
            ported = folder / f"{kind}-ported"
            phases += [
                (f"assign and port, {kind}", port, (folder / kind, student, folder / "moments", ported)),
                (f"load in PEFT, {kind}", load_in_peft, (student, ported)),
                (f"load, and train one step of {BATCH} x 128 tokens, {kind}", load_in_peft, (student, ported, True)),
            ]
        for name, work, arguments in phases:
            seconds, memory = apart(work, *arguments)
            rows.append([pair, name, f"{seconds:.2f} s", f"{memory:.0f} MB"])
            print(rows[-1], flush=True)
    print(markdown(["pair", "phase", "time", "peak memory of its process"], rows))


if __name__ == "__main__":
    main()
