"""A refinement beside some labels, by other losses, and on fewer texts: known answers, resumption, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import WORDS, load_peft, make_texts
from torch.nn import functional as F

import regraft
from regraft.distillation import refinement
from regraft.distillation.answers import Answers, ask
from regraft.distillation.labelled import LabelledRows, labelled_rows
from regraft.distillation.lesson import Lesson, LessonCollator, held_out_texts
from regraft.distillation.losses import distance_of_answers
from regraft.distillation.options import RefineOptions
from regraft.errors import ModuleFileError, RegraftError, TaskError
from regraft.models.pretrained import resolve
from regraft.tasks.options import DataOptions
from regraft.training.attachment import attach

Make = Callable[..., str]
TEXTS = make_texts(120)
NAMES = ["O", "PER", "LOC"]
HEAD = "base_model.model.classifier.weight"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def teacher(make_model: Make, make_module: Make) -> regraft.Module:
    """A teacher of single texts that gives several answers, and is sure of some."""
    module = regraft.load(make_module(make_model(layers=2, initializer_range=0.05), labels=3, task_type="SEQ_CLS"))
    bias = HEAD.replace("weight", "bias")
    logits = ask(resolve(module.base_model), module, TEXTS, progress=False).logits
    moved = {HEAD: 3 * module.tensors[HEAD], bias: 3 * (module.tensors[bias] - logits.mean(0))}
    return replace(module, tensors={**module.tensors, **moved}, provenance={"labels": NAMES}, source="mine")


@pytest.fixture
def rows(tmp_path: Path) -> DataOptions:
    """Rows whose label is told by their first word; ten of the 60 to train on are of the texts above."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for split, texts in (("train", [*TEXTS[:10], *make_texts(50, 5)]), ("val", make_texts(9, 6)), ("test", TEXTS[:9])):
        lines = [f"{text},{NAMES[WORDS.index(text.split()[0]) % 3]}" for text in texts]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]))
    return DataOptions(task="classification", data=folder)


def opposite(module: regraft.Module) -> regraft.Module:
    """A start that never gives its teacher's answer: its head is the opposite."""
    head = {key: -tensor for key, tensor in module.tensors.items() if key.startswith(HEAD.removesuffix("weight"))}
    return replace(module, tensors={**module.tensors, **head}, source="start")


def refine(module: Any, teacher: Any, texts: Any = TEXTS, *rest: Any, **options: Any) -> regraft.Module:
    options = {"steps": 30, "batch_size": 16, "learning_rate": 3e-2, "progress": False, **options}
    return regraft.refine(module, teacher, texts, *rest, **options)


def lesson_of(teacher: regraft.Module, data: DataOptions, labels: tuple[str, ...]) -> tuple[Lesson, LabelledRows]:
    base, held_out = resolve(teacher.base_model), held_out_texts(120, 0)
    judged = [TEXTS[number] for number in held_out]
    labelled = labelled_rows(data.load(), labels, teacher, base, judged, 256)
    answers = ask(base, teacher, TEXTS, progress=False)
    return Lesson(TEXTS, answers, held_out, 256, 16, labelled), labelled


def test_the_loss_is_the_mean_of_both(teacher: regraft.Module, rows: DataOptions, tmp_path: Path) -> None:
    """Of PyTorch's own divergence, and of its cross-entropy, of what PEFT's own model says."""
    student, base = opposite(teacher), resolve(teacher.base_model)
    lesson, labelled = lesson_of(teacher, rows, tuple(NAMES))
    examples = lesson.examples(3, 0)
    first = [dict(zip(examples, pair, strict=True)) for pair in zip(*examples.values(), strict=True)][:16]
    model = attach(base, student, lesson.task)
    refiner = refinement._trainer(lesson, base, model, tmp_path / "work", RefineOptions(precision="float32"), False)
    loss = refiner.compute_loss(model.eval(), LessonCollator(lesson, base)(first))

    student.save(tmp_path / "student")
    plain = load_peft(base.name, tmp_path / "student", 3, "SEQ_CLS")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base.name)
    train = [line.split(",") for line in (Path(str(rows.data)) / "train.csv").read_text().splitlines()[1:]]
    kept = [row for row in train if row[0] not in {TEXTS[number] for number in lesson.held_out}]
    assert len(kept) == labelled.count < 60
    own = [kept[example["row"]] for example in first]

    def says(texts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = plain(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        return logits

    labels = F.cross_entropy(says([text for text, _ in own]), torch.tensor([NAMES.index(name) for _, name in own]))
    numbers = [example["number"] for example in first]
    expected = lesson.answers.logits[numbers].softmax(1)
    taught = F.kl_div(says([TEXTS[one] for one in numbers]).log_softmax(1), expected, reduction="batchmean")
    assert abs(float(labels - taught)) > 0.05
    torch.testing.assert_close(loss.detach(), (labels + taught) / 2)


def test_rows_are_drawn_beside_texts() -> None:
    """Each row once before any again, by the seed alone, and texts as without rows."""
    answers = Answers(torch.zeros(1, 2), np.zeros(1, int), np.zeros(1, int), (), "SEQ_CLS")
    encoded: Any = {"input_ids": [[0] * (number % 7) for number in range(40)]}
    labelled = LabelledRows(encoded, None, None, 40)  # type: ignore[arg-type]
    lesson = Lesson(TEXTS, answers, held_out_texts(120, 0), 256, 10)
    both = replace(lesson, labelled=labelled).examples(20, seed=0)
    assert both["number"] == lesson.examples(20, seed=0)["number"]
    assert all(sorted(both["row"][start : start + 40]) == list(range(40)) for start in range(0, 200, 40))
    assert both["row"] == labelled.drawn(10, 20, 0) != labelled.drawn(10, 20, 1)


def test_labels_are_taken_in_the_order_of_the_head(teacher: regraft.Module, rows: DataOptions) -> None:
    turned = ("LOC", "O", "PER")
    plain, other = (lesson_of(teacher, rows, labels)[1] for labels in (tuple(NAMES), turned))
    assert [turned[label] for label in other.encoded["labels"]] == [NAMES[label] for label in plain.encoded["labels"]]
    assert plain.encoded["labels"] != other.encoded["labels"]
    # Where the teacher names none, the rows say it: as the user has them, and never by the alphabet.
    nameless = replace(teacher, provenance={})
    given = lesson_of(nameless, rows.model_copy(update={"labels": turned}), ())[1]
    assert given.encoded["labels"] == other.encoded["labels"]
    with pytest.raises(ModuleFileError, match=r"does not name the labels .*transfer --teacher-labels"):
        lesson_of(nameless, rows, ())


def test_what_labels_say_is_learnt_and_told(teacher: regraft.Module, rows: DataOptions, tmp_path: Path) -> None:
    """Labels that contradict the teacher pull a student away from it."""
    start = opposite(teacher)
    alone, both = refine(start, teacher), refine(start, teacher, TEXTS, tmp_path / "both", data=rows)
    said = both.provenance["refinement"]
    held_out = {TEXTS[number] for number in held_out_texts(120, 0)}
    assert said["labelled"] == {
        "task": "classification",
        "data": said["labelled"]["data"],
        "data_hash": rows.load().fingerprint,
        "rows": 60 - len(held_out & {*TEXTS[:10]}),
        "labels": NAMES,
        "labels_said_by": "module",
    }
    assert "labelled" not in alone.provenance["refinement"]
    card = (tmp_path / "both" / "README.md").read_text()
    assert "Refined on the answers" in card
    assert f"beside {said['labelled']['rows']} labelled rows" in card

    def loss(module: regraft.Module) -> float:
        base, loaded = resolve(teacher.base_model), rows.load().ordered(NAMES)
        logits = ask(base, module, loaded.splits["train"]["text"], progress=False).logits
        return float(F.cross_entropy(logits, torch.tensor([NAMES.index(n) for n in loaded.splits["train"]["label"]])))

    assert loss(both) < loss(alone) - 0.01


def test_words_with_labels(make_model: Make, make_module: Make, ner_folder: Path) -> None:
    module = regraft.load(make_module(make_model(layers=2), labels=4))
    module = replace(module, provenance={"labels": ["I-LOC", "B-PER", "O", "B-LOC"]})
    task = DataOptions(data=ner_folder, labels=("O", "B-PER", "B-LOC", "I-LOC"))
    said = refine(opposite(module), module, data=task, steps=5).provenance["refinement"]
    assert said["labelled"]["rows"] == 72
    assert said["metric"] == "span F1"


def test_a_refinement_with_labels_goes_on_where_it_was(
    teacher: regraft.Module, rows: DataOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between two looks, in each of the two trainings of a comparison by number of texts."""
    monkeypatch.setattr(refinement, "_BETWEEN", 5)
    start = opposite(teacher)
    start = replace(start, config={**start.config, "lora_dropout": 0.1})
    options = {"data": rows, "by_texts": [20], "steps": 15}
    whole = refine(start, teacher, TEXTS, tmp_path / "whole", **options)
    looks, agreement = 0, Lesson.agreement

    def killed(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks in (3, 8):  # the third of four looks in each training
            raise KeyboardInterrupt
        return agreement(*arguments)

    monkeypatch.setattr(Lesson, "agreement", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            refine(start, teacher, TEXTS, tmp_path / "killed", **options)
    again = refine(start, teacher, TEXTS, tmp_path / "killed", **options)
    assert again.hash() == whole.hash()
    assert again.provenance["refinement"] == whole.provenance["refinement"]
    curves = [(tmp_path / name / "curve.jsonl").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]


def test_the_losses_are_those_of_pytorch() -> None:
    dice = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(7, 3, generator=dice), torch.randn(7, 3, generator=dice)
    texts, largest = torch.arange(7), teacher.argmax(1)
    sure = teacher.softmax(1).max(1).values
    hard = distance_of_answers(teacher, 1.0, hard=True)
    torch.testing.assert_close(hard(student, teacher, texts).mean(), F.cross_entropy(student, largest))
    soft = distance_of_answers(teacher, 2.0, certainty=True)
    rows = 4 * F.kl_div((student / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(soft(student, teacher, texts), rows * sure / sure.mean())
    both = distance_of_answers(teacher, 1.0, hard=True, certainty=True)
    rows = F.cross_entropy(student, largest, reduction="none")
    torch.testing.assert_close(both(student, teacher, texts).mean(), (rows * sure).sum() / sure.sum())
    # Units are those of all answers, not of a batch.
    torch.testing.assert_close(both(student[:2], teacher[:2], texts[:2]), (rows * sure / sure.mean())[:2])


def test_other_losses_are_learnt_and_told(teacher: regraft.Module) -> None:
    start = opposite(teacher)
    hashes = set()
    for options in ({}, {"hard": True}, {"certainty": True}, {"hard": True, "certainty": True}):
        refined = refine(start, teacher, **options)
        said = refined.provenance["refinement"]
        assert said["agreement"]["after"]["percent"] > said["agreement"]["before"]["percent"]
        assert (said["hard"], said["certainty"]) == (options.get("hard", False), options.get("certainty", False))
        hashes.add(refined.hash())
    assert len(hashes) == 4


# By the number of texts


def test_fewer_texts_are_the_first_and_judged_by_the_same(
    teacher: regraft.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, held_out = opposite(teacher), held_out_texts(120, 0)
    plain, by = refine(start, teacher), refine(start, teacher, by_texts=[60, 5, 60])
    assert by.hash() == plain.hash()
    said = by.provenance["refinement"]
    assert [reached["texts"] for reached in said["by_texts"]] == [5, 60, 100]
    assert {"texts": 100, **said["agreement"]["after"]} == said["by_texts"][-1]
    assert "by_texts" not in plain.provenance["refinement"]
    # As where there are no other texts than these.
    judged = [TEXTS[number] for number in held_out]
    learnt = [text for number, text in enumerate(TEXTS) if number not in held_out]
    monkeypatch.setattr(refinement, "held_out_texts", lambda *_: np.arange(20))
    for reached in said["by_texts"][:-1]:
        few = refine(start, teacher, [*judged, *learnt[: reached["texts"]]]).provenance["refinement"]
        assert few["agreement"]["after"]["percent"] == reached["percent"]
        assert few["agreement"]["after"]["divergence"] == pytest.approx(reached["divergence"], rel=1e-3)
    assert len({reached["divergence"] for reached in said["by_texts"]}) == 3


# Refusals


def test_what_contradicts_the_answers_is_refused(
    teacher: regraft.Module, rows: DataOptions, make_model: Make, make_module: Make, tmp_path: Path
) -> None:
    base = make_model(layers=2)
    words = regraft.load(make_module(base, labels=3))
    numbers = regraft.load(make_module(base, labels=1, task_type="SEQ_CLS"))
    decoder = make_model("llama", layers=2)
    says = regraft.load(make_module(decoder))
    says = replace(says, config={**says.config, "task_type": "CAUSAL_LM"})
    others = replace(teacher, provenance={"labels": ["a", "b", "c"]})
    refusals: list[tuple[type[RegraftError], str, Any, dict[str, Any]]] = [
        (TaskError, "found --hard, but .* does not answer with labels", numbers, {"hard": True}),
        (TaskError, "found --certainty, but .* does not answer with labels", says, {"certainty": True}),
        (TaskError, "found --temperature 2 beside --hard", teacher, {"hard": True, "temperature": 2}),
        (ModuleFileError, "has task type TOKEN_CLS, expected SEQ_CLS", words, {"data": rows}),
        (ModuleFileError, "answers with the labels a, b, c, the data have LOC, O, PER", others, {"data": rows}),
        (TaskError, "found 100 among the numbers of texts .*from 1 to 99", teacher, {"by_texts": [5, 100]}),
        (TaskError, "found 0 among the numbers of texts", teacher, {"by_texts": [0]}),
    ]
    for number, (error, message, module, options) in enumerate(refusals):
        with pytest.raises(error, match=message):
            refine(module, module, TEXTS, tmp_path / f"{number}", **options)
        assert not (tmp_path / f"{number}").exists()


def test_rows_of_held_out_texts_alone_are_refused(teacher: regraft.Module, rows: DataOptions, tmp_path: Path) -> None:
    held_out = [TEXTS[number] for number in held_out_texts(120, 0)]
    (Path(str(rows.data)) / "train.csv").write_text("\n".join(["text,label", *(f"{text},O" for text in held_out)]))
    with pytest.raises(TaskError, match=r"all 20 training rows .* are of held-out texts"):
        refine(teacher, teacher, TEXTS, tmp_path / "out", data=rows)
    assert not (tmp_path / "out").exists()


# The command line


def test_labels_and_numbers_of_texts_from_the_command_line(
    teacher: regraft.Module, rows: DataOptions, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    teacher.save(tmp_path / "teacher")
    opposite(teacher).save(tmp_path / "start")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    options = ("--teacher", tmp_path / "teacher", "--texts", texts, "--steps", 4, "--out", tmp_path / "out")
    labelled = ("--data", rows.data, "--task", "classification", "--certainty")
    code, out, error = run("refine", tmp_path / "start", *options, *labelled, "--by-texts", "20,60")
    assert code == 0, error
    assert "labelled rows of" in out
    assert "learnt from texts" in out
    code, out, error = run("refine", tmp_path / "start", *options, "--replace", "--json", "--by-texts", "20")
    assert code == 0, error
    said = json.loads(out)
    assert [reached["texts"] for reached in said["by_texts"]] == [20, 100]
    assert "labelled" not in said
    code, _, error = run("refine", tmp_path / "start", *options, "--replace", "--by-texts", "20,some")
    assert (code, "found --by-texts 'some', expected numbers of texts such as 100,400" in error) == (2, True)
