"""The walk of a stranger: a module that PEFT alone made, ported and scored by every command and by PEFT."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import WORDS
from peft import LoraConfig, PeftModelForSequenceClassification, get_peft_model

# In the order of the head's rows, which nothing but this line says; by the alphabet it is the other way round.
LABELS = ("one", "more")


def write_rows(file: Path, count: int, seed: int) -> None:
    """Write sentences of which nine words in ten are of the label's half of the vocabulary."""
    dice, half = random.Random(seed), len(WORDS) // 2
    lines = ["text,label"]
    for _ in range(count):
        label = dice.choice(LABELS)
        halves = (WORDS[:half], WORDS[half:]) if label == LABELS[0] else (WORDS[half:], WORDS[:half])
        lines.append(" ".join(dice.choice(halves[dice.random() > 0.9]) for _ in range(8)) + f",{label}")
    file.write_text("\n".join(lines))


def read(file: Path) -> tuple[list[str], list[str]]:
    rows = [line.split(",") for line in file.read_text().splitlines()[1:]]
    return [text for text, _ in rows], [label for _, label in rows]


def load(model: str) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(LABELS))
    return loaded, transformers.AutoTokenizer.from_pretrained(model)


def answers(model: torch.nn.Module, tokenizer: Callable[..., dict[str, torch.Tensor]], texts: list[str]) -> list[str]:
    with torch.no_grad():
        rows = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1)
    return [LABELS[row] for row in rows]


def accuracy(model: str, module: Path, file: Path) -> float:
    """Score a module as PEFT loads it."""
    base, tokenizer = load(model)
    texts, labels = read(file)
    got = answers(PeftModelForSequenceClassification.from_pretrained(base, str(module)), tokenizer, texts)
    assert {*got} == {*LABELS}  # else any order would do
    return 100 * sum(map(str.__eq__, got, labels)) / len(labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for seed, (split, count) in enumerate({"train": 200, "dev": 90, "test": 110}.items()):
        write_rows(folder / f"{split}.csv", count, seed)
    return folder


@pytest.fixture(scope="module")
def teacher(make_model: Callable[..., str]) -> str:
    return make_model(layers=4, initializer_range=0.05)


@pytest.fixture(scope="module")
def student(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Every second layer of the teacher."""
    path = str(tmp_path_factory.mktemp("student"))
    model = transformers.AutoModel.from_pretrained(teacher)
    model.encoder.layer, model.config.num_hidden_layers = model.encoder.layer[::2], 2
    model.save_pretrained(path)
    transformers.AutoTokenizer.from_pretrained(teacher).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def trained(teacher: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a classifier with PEFT."""
    torch.manual_seed(0)
    base, tokenizer = load(teacher)
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"])
    model = get_peft_model(base, config).train()
    texts, labels = read(data / "train.csv")
    targets = torch.tensor([LABELS.index(label) for label in labels])
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(8):
        for batch in torch.randperm(len(texts)).split(16):
            inputs = tokenizer([texts[i] for i in batch], padding=True, return_tensors="pt")
            model(**inputs, labels=targets[batch]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    path = tmp_path_factory.mktemp("trained")
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("saved", ["as PEFT writes it", "null"])
def test_every_command_and_peft_agree_on_the_score_of_a_strangers_module(
    saved: str,
    trained: Path,
    teacher: str,
    student: str,
    data: Path,
    tmp_path: Path,
    run: Callable[..., tuple[int, str, str]],
) -> None:
    module = Path(shutil.copytree(trained, tmp_path / "module"))
    config = json.loads((module / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["classifier", "score"]
    if saved == "null":
        (module / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": None}))
    held = {file: file.read_bytes() for file in module.rglob("*")}
    assert accuracy(teacher, module, data / "test.csv") > 70  # it learnt something

    def printed(split: str, *command: object) -> float:
        code, out, error = run(*command)
        assert code == 0, error
        (score,) = re.findall(rf"(?m)^{split} +([\d.]+)", out) if split else (0,)
        return float(score)

    rows = ("--task", "classification", "--data", data)
    names, ported = ("--teacher-labels", ",".join(LABELS)), tmp_path / "ported"
    planned = printed("validation", "plan", module, "--student", student, *names, *rows)
    printed("", "transfer", module, "--student", student, *names, "--out", ported)
    evaluated = printed("test", "evaluate", ported, *rows)
    train = ("train", "--model", student, "--init", ported, *rows, "--epochs", 1, "--out", tmp_path / "again")
    before = printed("before training", *train)
    dev, test = (accuracy(student, ported, data / f"{split}.csv") for split in ("dev", "test"))
    assert (planned, before, evaluated) == pytest.approx((dev, dev, test), abs=0.005)
    # In the other order too, and of the module itself.
    turned = tmp_path / "turned"
    printed("", "transfer", module, "--student", student, *names, "--labels", "more,one", "--out", turned)
    assert printed("test", "evaluate", turned, *rows) == evaluated
    own = printed("test", "evaluate", module, *rows, "--labels", ",".join(LABELS))
    assert own == pytest.approx(accuracy(teacher, module, data / "test.csv"), abs=0.005)
    assert {file: file.read_bytes() for file in module.rglob("*")} == held
