"""Good inputs of every kind, as small as they can be: what the cases change."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
import yaml
from conftest import load_base, make_texts, tiny_config, wordpiece_tokenizer, write_split
from datasets import Dataset
from fuzz.runner import CANARY
from peft import LoraConfig, get_peft_model

import regraft
from regraft.activations import sampling
from regraft.experiment.grid import Number
from regraft.experiment.store import Store
from regraft.models.pretrained import resolve
from regraft.port.spaces import space_pairs

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class World:
    """Directories and files, each of them good.

    Attributes:
        root: where they all are.
    """

    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name


def make_world(root: Path) -> World:
    """Make all of them."""
    torch.manual_seed(0)
    _models(root)
    _modules(root)
    _texts(root)
    teacher, student = (resolve(str(root / name)) for name in ("teacher", "student"))
    pairs = space_pairs(teacher, student, "skip", ["query"])
    options = sampling.SampleOptions(batch_size=4)
    texts = make_texts(40)
    sampling.save_sample(sampling.sample(teacher, student, pairs, texts, options, QUIET), root / "moments")
    _experiment(root)
    _results(root)
    return World(root)


QUIET = sampling.RunOptions(quiet=True)


def _models(root: Path) -> None:
    sizes = {"width": 16, "vocab_size": 96, "max_position_embeddings": 64}
    models = {"teacher": ("bert", 2), "student": ("bert", 1), "decoder": ("llama", 1)}
    for name, (model_type, layers) in models.items():
        config = tiny_config(model_type, layers=layers, **sizes)
        auto = "AutoModelForCausalLM" if model_type == "llama" else "AutoModelForPreTraining"
        getattr(transformers, auto).from_config(config).save_pretrained(root / name)
        tokenizer = wordpiece_tokenizer(60)
        if name == "decoder":
            tokenizer.eos_token = "[SEP]"
            tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }} [SEP] {% endfor %}"
        tokenizer.save_pretrained(root / name)


def _modules(root: Path) -> None:
    base = str(root / "teacher")
    extra = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["query", "value"], **extra)
    bottleneck = regraft.BottleneckConfig(bottleneck_size=4, **extra)
    for name, config in (("lora", lora), ("bottleneck", bottleneck)):
        model = get_peft_model(load_base(base, 2, "SEQ_CLS"), config)
        for key, parameter in model.named_parameters():
            if parameter.requires_grad and "original_module" not in key:
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(root / name)
    module = regraft.load(root / "lora")
    regraft.transfer(module, str(root / "student"), align="none", teacher_labels=("no", "yes")).save(root / "ported")
    regraft.load(root / "bottleneck").save_adapterhub(root / "hub", base)
    decoder = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    auto = transformers.AutoModelForCausalLM
    get_peft_model(auto.from_pretrained(root / "decoder"), decoder).save_pretrained(root / "language")


def _texts(root: Path) -> None:
    texts = make_texts(24)
    rows = [{"text": text, "label": ("no", "yes")[at % 2]} for at, text in enumerate(texts)]
    (root / "texts.txt").write_text("\n".join(texts))
    for folder in ("data", "jsonl", "parquet", "tsv", "lm", "ner"):
        (root / folder).mkdir()
    table = Dataset.from_list(rows)
    for number, split in enumerate(SPLITS):
        table.to_csv(root / "data" / f"{split}.csv")
        table.to_parquet(root / "parquet" / f"{split}.parquet")
        (root / "jsonl" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (root / "tsv" / f"{split}.tsv").write_text(
            "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows)
        )
        said = [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[1]}]
        talks = [{"text": text} for text in texts[:6]] + [{"messages": said}]
        (root / "lm" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks))
        write_split(root / "ner" / f"{split}.conllu", 8, seed=number)


def _experiment(root: Path) -> None:
    pair = {"teacher": str(root / "teacher"), "student": str(root / "student"), "starts": ["student", "tm-skip+lsa"]}
    task = {"task": "classification", "languages": ["en"], "data": str(root / "data"), "labels": ["no", "yes"]}
    content = {
        "name": "grid",
        "pairs": {"matching": {**pair, "sampling": {"max_texts": 16}}},
        "tasks": {"answers": task},
        "modules": ["lora"],
        "seeds": [0],
        "training": {"epochs": 1, "batch_size": 16},
        "resources": {"teacher": {"cpus": 1}},
    }
    (root / "grid.yaml").write_text(yaml.safe_dump(content))
    record = regraft.models.families.FAMILIES["bert"].model_dump(mode="json", exclude_defaults=True)
    (root / "families").mkdir()
    (root / "families" / "bert.yaml").write_text(yaml.safe_dump(record))


def _results(root: Path) -> None:
    place = {"setting": "matching", "task": "answers", "metric": "accuracy", "language": "en", "peft": "lora"}
    numbers = [Number(**place, row=row, seed=0, key=f"{at:016x}") for at, row in enumerate(("teacher", "student"))]
    store = Store(root / "store")
    store.write_index("grid", {"experiment": {"name": "grid"}, "numbers": [asdict(number) for number in numbers]})
    for number in numbers:
        store.work(number.key).mkdir(parents=True)
        scores = {split: {"accuracy": 75.0} for split in ("before training", "validation", "test")}
        store.finish(number.key, {"seconds": 1.0, "scores": scores, "curve": [{"step": 1, "accuracy": 70.0}]})
    # As an older regraft wrote it, so that what is changed is not refused for its seal alone.
    for file in (*store.root.glob("cells/*/cell.json"), *store.root.glob("experiments/*.json")):
        content = json.loads(file.read_text())
        file.unlink()
        file.write_text(json.dumps({key: value for key, value in content.items() if key not in ("seal", "files")}))
    with (root / "results.csv").open("w") as file:
        writer = csv.DictWriter(file, [*place, "row", "seed", "score", "before", "curve"])
        writer.writeheader()
        for row in ("teacher", "student"):
            writer.writerow({**place, "row": row, "seed": 0, "score": 75.0, "before": 50.0, "curve": "1:60.0 2:70.0"})


class _Code:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open({CANARY!r}, 'w').close()",)


PICKLE = pickle.dumps({"key": _Code()})
CODE = f"open({CANARY!r}, 'w').close()\n"


def copied(world: World, name: str, place: Path) -> Path:
    """Copy a good input into the directory of a case."""
    source, to = world / name, place / "in" / name
    to.parent.mkdir(exist_ok=True)
    return Path(shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to))
