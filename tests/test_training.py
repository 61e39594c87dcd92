from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, load_peft, wordpiece_tokenizer
from transformers import set_seed

import regraft
from regraft.errors import ModuleFileError, TaskError
from regraft.models import resolve
from regraft.runs import last_checkpoint
from regraft.starts import fresh_module, start_from
from regraft.tasks import ner
from regraft.training import Settings, evaluate, train

FAST = Settings(epochs=2, batch_size=8, learning_rate=5e-3, rank=4, bottleneck_size=6)


def write_split(path: Path, sentences: int, seed: int) -> None:
    """Write sentences in which 'doctor' and 'teacher' are persons, 'river city' one location."""
    dice = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        words = list(dice.choice(WORDS, size=8))
        tags = ["B-PER" if word in ("doctor", "teacher") else "O" for word in words]
        words += ["river", "city"]
        tags += ["B-LOC", "I-LOC"]
        lines += [f"{i}\t{word}\t{tag}" for i, (word, tag) in enumerate(zip(words, tags, strict=True))] + [""]
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "en").mkdir()
    write_split(root / "en" / "val.conllu", 80, seed=0)
    write_split(root / "en" / "test.conllu", 30, seed=1)
    return root


def test_without_a_training_file_the_last_tenth_validates(folder: Path) -> None:
    splits = ner.load_splits(folder, "en")
    assert {name: len(split) for name, split in splits.items()} == {"train": 72, "validation": 8, "test": 30}
    assert splits["train"][0]["words"][-2:] == ["river", "city"]
    assert splits["train"][0]["tags"][-2:] == [ner.LABELS.index("B-LOC"), ner.LABELS.index("I-LOC")]
    assert ner.load_splits(folder / "en", "xx")["test"][0] == splits["test"][0]


def test_only_the_first_piece_of_a_word_carries_its_tag() -> None:
    tokenizer = wordpiece_tokenizer()
    row = {"words": ["the", "grandmother", "walks"], "tags": [0, 1, 0]}
    encoded = ner.encode_split(ner.Dataset.from_list([row]), tokenizer, 64)[0]
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    labelled = {piece: label for piece, label in zip(pieces, encoded["labels"], strict=True) if label != ner.IGNORED}
    assert len(labelled) == 3
    assert list(labelled.values()) == [0, 1, 0]
    assert len(pieces) > 5


def test_span_f1_by_hand() -> None:
    names = {label: i for i, label in enumerate(ner.LABELS)}
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    found = [["B-PER", "O", "O", "B-LOC"], ["B-ORG", "O"]]  # the person is cut short: 2 of 3 right
    labels = np.full((2, 5), ner.IGNORED)
    logits = np.zeros((2, 5, len(names)))
    for row, (gold, guess) in enumerate(zip(truth, found, strict=True)):
        for i, (right, guessed) in enumerate(zip(gold, guess, strict=True)):
            labels[row, i + 1] = names[right]
            logits[row, i + 1, names[guessed]] = 1
    scores = ner.score(logits, labels)
    assert scores == pytest.approx({"precision": 200 / 3, "recall": 200 / 3, "f1": 200 / 3})


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_train_port_train_again_and_evaluate(
    folder: Path, make_model: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    teacher = make_model(layers=4, initializer_range=0.05)
    student = make_model("distilbert", layers=2)
    longer = replace(FAST, epochs=8, learning_rate=2e-2)
    trained = train(teacher, tmp_path / "teacher", kind, data=folder, settings=longer, progress=False)
    scores = trained.provenance["training"]["scores"]
    assert scores["test"]["f1"] > scores["before training"]["f1"] + 20
    assert not (tmp_path / "teacher.training").exists()
    curve = [json.loads(line) for line in (tmp_path / "teacher" / "curve.jsonl").read_text().splitlines()]
    validated = [row for row in curve if "f1" in row]
    assert [row["epoch"] for row in validated] == list(range(9))
    assert validated[0]["step"] == 0
    assert max(row["f1"] for row in validated[1:]) == scores["validation"]["f1"]

    again = evaluate(tmp_path / "teacher", data=folder, progress=False)
    assert again == pytest.approx(scores["test"])
    load_peft(teacher, tmp_path / "teacher", labels=len(ner.LABELS))

    regraft.transfer(regraft.load(tmp_path / "teacher"), student).save(tmp_path / "ported")
    result = train(student, tmp_path / "student", init=tmp_path / "ported", data=folder, settings=FAST, progress=False)
    assert result.peft_type == trained.peft_type
    assert result.labels == ner.LABELS
    assert result.report["teacher"] == teacher
    key = next(key for key in result.tensors if key.endswith(("lora_A.weight", "bottleneck_down.weight")))
    assert not torch.equal(result.tensors[key], regraft.load(tmp_path / "ported").tensors[key])


def test_fresh_heads_follow_the_seed_of_the_training(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    """All starts of one seed share the head, so that they can be compared."""
    base = make_model(layers=2)
    module = make_module(base, "lora", labels=len(ner.LABELS))
    regraft.transfer(regraft.load(module), base).save(tmp_path / "ported")

    def head(seed: int, fresh: bool) -> torch.Tensor:
        set_seed(seed)
        ported = regraft.load(tmp_path / "ported")
        model = (
            fresh_module(resolve(base), "lora", 4, 4, 6)
            if fresh
            else start_from(resolve(base), ported, tmp_path / "ported")
        )
        return model.base_model.model.classifier.modules_to_save["default"].weight

    assert torch.equal(head(0, fresh=False), head(0, fresh=True))
    assert not torch.equal(head(0, fresh=False), head(1, fresh=False))
    set_seed(0)
    trained = start_from(resolve(base), regraft.load(module), Path(module))
    kept = trained.base_model.model.classifier.modules_to_save["default"].weight
    assert torch.equal(kept, regraft.load(module).tensors["base_model.model.classifier.weight"])


def test_the_same_seed_trains_the_same_module(folder: Path, make_model: Callable[..., str], tmp_path: Path) -> None:
    base = make_model(layers=2)
    hashes = [
        train(base, tmp_path / name, data=folder, settings=replace(FAST, seed=seed), progress=False).hash()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    folder: Path, make_model: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    settings = replace(FAST, epochs=12)
    whole = train(base, tmp_path / "whole", data=folder, settings=settings, progress=False)
    out, work = tmp_path / "killed", tmp_path / "killed.training"
    code = (
        "from pathlib import Path; from regraft.training import *; torch.set_num_threads(1);"
        f"train({base!r}, Path({str(out)!r}), data=Path({str(folder)!r}), settings={settings!r}, progress=False)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        for _ in range(3000):
            if list(work.glob("checkpoint-*/trainer_state.json")):
                break
            time.sleep(0.02)
        run.kill()
    assert work.is_dir()
    assert not out.exists()  # a directory appears whole or not at all
    with pytest.raises(TaskError, match="unfinished training with other learning_rate"):
        train(base, out, data=folder, settings=replace(settings, learning_rate=1.0), progress=False)
    resumed = train(base, out, data=folder, settings=settings, progress=False)
    assert resumed.hash() == whole.hash()
    curves = [(tmp_path / name / "curve.jsonl").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert not work.exists()


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    for step, state in ((9, "{}"), (20, "{}"), (100, '{"epoch": ')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-200").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")


def test_bad_data_is_refused_with_file_and_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"has no val\.conllu and no test\.conllu"):
        ner.load_splits(tmp_path, "en")
    shutil.copytree(folder / "en", tmp_path / "en")
    broken = tmp_path / "en" / "val.conllu"
    broken.write_text("0\tthe\tO\n1\triver O\n")
    with pytest.raises(TaskError, match=r"val\.conllu, line 2: found 2 columns"):
        ner.load_splits(tmp_path, "en")
    broken.write_text("0\tthe\tO\n\n0\triver\tB-PLACE\n")
    with pytest.raises(TaskError, match=r"val\.conllu, sentence 2: found tag 'B-PLACE', expected one of O, B-PER"):
        ner.load_splits(tmp_path, "en")
    broken.write_text("\n\n")
    with pytest.raises(TaskError, match="holds no sentence"):
        ner.load_splits(tmp_path, "en")


def test_modules_that_do_not_fit_the_task_are_refused(
    folder: Path, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    three = make_module(base, "lora", labels=3)
    with pytest.raises(ModuleFileError, match="has a head of 3 labels, the task has 9"):
        evaluate(Path(three), data=folder, progress=False)
    nine = regraft.load(make_module(base, "lora", labels=9))
    labels = list(reversed(ner.LABELS))
    regraft.Module(nine.config, nine.tensors, "nine", {"labels": labels}).save(tmp_path / "nine")
    with pytest.raises(ModuleFileError, match="was trained on labels I-MISC, B-MISC"):
        evaluate(tmp_path / "nine", data=folder, progress=False)
    with pytest.raises(TaskError, match="unknown task 'nre', expected one of ner; did you mean 'ner'"):
        train(base, tmp_path / "x", task="nre", data=folder)
    with pytest.raises(TaskError, match="unknown PEFT method 'lra'"):
        train(base, tmp_path / "x", "lra", data=folder)
    with pytest.raises(TaskError, match="has no output LayerNorm for a bottleneck; use lora"):
        train(make_model("llama", layers=2), tmp_path / "x", "bottleneck", data=folder)
    with pytest.raises(TaskError, match="unknown split 'tset'"):
        evaluate(Path(three), data=folder, split="tset")


def test_checkpoints_never_replace_what_is_not_theirs(
    folder: Path, make_model: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "notes.txt").write_text("mine")
    with pytest.raises(TaskError, match="holds something else"):
        train(make_model(layers=2), tmp_path / "out", data=folder, settings=FAST, replace_existing=True)
    assert (tmp_path / "out.training" / "notes.txt").exists()


def test_bad_data_leaves_nothing_behind(make_model: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(TaskError):
        train(make_model(layers=2), tmp_path / "out", data=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_hub_data_set_is_read_through_the_same_loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A local copy in the hub's layout (splits train_en, val_en, test_en) stands for the hub."""
    rows = {"tokens": [["the", "river", "city"]], "ner_tags": [[0, 5, 6]], "lang": ["en"]}
    (tmp_path / "data").mkdir()
    for split in ("train_en", "val_en", "test_en", "test_de"):
        ner.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(ner, "HUB_ID", str(tmp_path))
    splits = ner.load_splits(None, "en")
    assert splits["train"][0] == {"words": ["the", "river", "city"], "tags": [0, 5, 6]}
    assert set(splits) == set(ner.SPLITS)
    with pytest.raises(TaskError, match=r"cannot load .* \(fr\) from the hub; pass local files with --data"):
        ner.load_splits(None, "fr")


def test_starts_that_do_not_fit_the_model_are_refused(
    folder: Path, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    """PEFT would load what fits, leave the rest at random, and call it a start."""
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    deeper = make_module(teacher, "lora", labels=9)
    bare = make_module(student, "lora")
    for init, model, message in (
        (deeper, student, r"does not fit .* \(8 tensors are missing, unexpected or of another shape.*port it"),
        (deeper, make_model(width=48, layers=4), r"does not fit .* \(17 tensors"),
        (deeper, make_model("distilbert", layers=4), "does not fit"),
        (bare, student, "has task type None, expected TOKEN_CLS"),
    ):
        with pytest.raises(ModuleFileError, match=message):
            train(model, tmp_path / "out", init=Path(init), data=folder, settings=FAST, progress=False)
        with pytest.raises(ModuleFileError, match=message):
            evaluate(Path(init), model, data=folder, progress=False)
    assert list(tmp_path.iterdir()) == []
