"""The order of the labels of a task head: what says it, and that it is never guessed in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Stranger

import regraft
from regraft.errors import ModuleFileError, PlanError
from regraft.tasks.options import DataOptions
from regraft.training.evaluation import assess, evaluate

CLASSIFIER = "base_model.model.classifier.weight"
Run = Callable[..., tuple[int, str, str]]


def named_base(base: str, path: Path, *names: str) -> str:
    """Copy a model, its configuration naming labels."""
    shutil.copytree(base, path)
    file = path / "config.json"
    numbered = {str(row): name for row, name in enumerate(names)}
    file.write_text(json.dumps({**json.loads(file.read_text()), "id2label": numbered}))
    return str(path)


def test_an_order_that_nothing_says_is_asked_for(stranger: Stranger, run: Run) -> None:
    code, out, error = run("evaluate", stranger.module, *stranger.options)
    assert code == 2
    assert not out
    assert "does not name the labels of its head, nor does its base model" in error
    assert "name them in the order of the head's rows (--labels): the data have no, yes" in error
    with pytest.raises(ModuleFileError, match=r"\(--labels\): the data have no, yes"):
        evaluate(stranger.module, data=DataOptions(task="classification", data=stranger.data), progress=False)


def test_an_order_that_is_given_is_taken_and_said(stranger: Stranger, run: Run) -> None:
    evaluated = ("evaluate", stranger.module, *stranger.options, "--labels")
    code, out, error = run(*evaluated, "yes,no")
    assert code == 0, error
    assert f"{stranger.module} names no labels; taken in the order of --labels: yes, no" in out
    assert "87.50" in out
    assert "always answering" not in out
    code, out, _ = run(*evaluated, "no,yes")
    assert code == 0
    assert "12.50" in out
    assert (
        "The accuracy of 12.50 is below the 50.00 of always answering no: is the order of the labels right? (--labels)"
    ) in out
    data = DataOptions(task="classification", data=stranger.data, labels=("yes", "no"))
    found = assess(stranger.module, data=data, progress=False)
    assert (found.scores, found.doubt()) == ({"accuracy": 87.5}, "")
    assert evaluate(stranger.module, data=data, progress=False) == found.scores


def test_the_configuration_of_the_base_model_is_believed_where_it_names_the_datas_labels(
    stranger: Stranger, tmp_path: Path, run: Run
) -> None:
    evaluated = ("evaluate", stranger.module, *stranger.options, "--model")
    code, out, error = run(*evaluated, named_base(stranger.base, tmp_path / "named", "yes", "no"))
    assert code == 0, error
    assert "taken as the configuration of its base model has them: yes, no" in out
    assert "87.50" in out
    given = run(*evaluated, tmp_path / "named", "--labels", "no,yes")[1]
    assert "taken in the order of --labels: no, yes" in given
    for path, names in (
        ("default", ("LABEL_0", "LABEL_1")),
        ("others", ("positive", "negative")),
        ("more", ("yes", "no", "maybe")),
        ("twice", ("yes", "yes")),
    ):
        code, _, error = run(*evaluated, named_base(stranger.base, tmp_path / path, *names))
        assert code == 2, path
        assert "(--labels)" in error


def test_a_task_with_labels_of_its_own_needs_none_and_the_order_is_said(
    ner_folder: Path, make_model: Callable[..., str], make_module: Callable[..., str], run: Run
) -> None:
    module = make_module(make_model(layers=2), "lora", labels=9)
    code, out, error = run("evaluate", module, "--data", ner_folder, "--max-eval", "4")
    assert code == 0, error
    assert f"{module} names no labels; taken in the order of the task: O, B-PER, I-PER, B-ORG" in out


def test_labels_that_are_named_come_along_and_are_reordered_by_name(
    stranger: Stranger, tmp_path: Path, run: Run
) -> None:
    weight = regraft.load(stranger.module).tensors[CLASSIFIER]
    port = ("transfer", stranger.module, "--student", stranger.base, "--teacher-labels", "yes,no")
    for name, more, labels in (("as they are", (), ("yes", "no")), ("turned", ("--labels", "no,yes"), ("no", "yes"))):
        code, _, error = run(*port, *more, "--out", tmp_path / name)
        assert code == 0, error
        ported = regraft.load(tmp_path / name)
        assert ported.labels == labels
        assert torch.equal(ported.tensors[CLASSIFIER], weight if not more else weight[[1, 0]])
        assert (
            f"Labels in the order of the head's rows: {', '.join(labels)}"
            in (tmp_path / name / "README.md").read_text()
        )
        code, out, error = run("evaluate", tmp_path / name, *stranger.options)
        assert code == 0, error
        assert f"{tmp_path / name} names its labels: {', '.join(labels)}" in out
        assert "87.50" in out


def test_labels_for_a_head_without_names_are_no_reason_to_lose_it(stranger: Stranger, tmp_path: Path, run: Run) -> None:
    port = ("transfer", stranger.module, "--student", stranger.base, "--labels", "no,yes", "--out", tmp_path / "out")
    code, _, error = run(*port)
    assert code == 2
    assert "it does not name its labels, so nothing says which row is which of --labels" in error
    assert "name them in the order of its rows (--teacher-labels), or use --head fresh" in error
    assert not (tmp_path / "out").exists()
    code, _, _ = run(*port, "--head", "fresh")
    assert code == 0
    assert regraft.load(tmp_path / "out").report["head"] == "fresh"
    # A head of another size is one for another task, as before.
    module = regraft.load(stranger.module)
    assert regraft.plan(module, stranger.base, labels=["a", "b", "c"]).head == "fresh"


def test_the_teachers_configuration_names_the_labels_that_the_student_is_given(
    stranger: Stranger, tmp_path: Path
) -> None:
    module, weight = regraft.load(stranger.module), regraft.load(stranger.module).tensors[CLASSIFIER]
    teacher = named_base(stranger.base, tmp_path / "teacher", "yes", "no")
    ported = regraft.transfer(module, stranger.base, teacher, labels=["no", "yes"])
    assert ported.labels == ("no", "yes")
    assert torch.equal(ported.tensors[CLASSIFIER], weight[[1, 0]])
    # What it was pretrained for says nothing of a module of which nobody says that it was trained for the same.
    assert regraft.transfer(module, stranger.base, teacher).labels == ()
    with pytest.raises(PlanError, match="--teacher-labels"):
        regraft.transfer(module, stranger.base, teacher, labels=["a", "b"])
    # Nor does the student's configuration of a head that came from another model.
    unnamed = regraft.transfer(module, teacher, stranger.base)
    unnamed.save(tmp_path / "unnamed")
    with pytest.raises(ModuleFileError, match=r"name them in the order of the head's rows \(--labels\)"):
        evaluate(tmp_path / "unnamed", data=DataOptions(task="classification", data=stranger.data), progress=False)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("a,b,c", "--teacher-labels names 3 labels, expected one for each of the 2 rows of the head of"),
        ("yes,yes", r"the labels yes, yes name one twice, expected each once \(--teacher-labels\)"),
    ],
)
def test_names_that_are_no_names_of_the_head_are_refused(names: str, words: str, stranger: Stranger) -> None:
    with pytest.raises(PlanError, match=words):
        regraft.plan(regraft.load(stranger.module), stranger.base, teacher_labels=names)


def test_names_that_contradict_the_module_are_refused(stranger: Stranger, make_module: Callable[..., str]) -> None:
    plain = regraft.load(stranger.module)
    named = regraft.Module(plain.config, plain.tensors, "named", {"labels": ["yes", "no"]})
    assert regraft.plan(named, stranger.base, teacher_labels=["yes", "no"]).labels == ("yes", "no")
    with pytest.raises(PlanError, match="named names its labels yes, no, --teacher-labels says no, yes; leave it out"):
        regraft.plan(named, stranger.base, teacher_labels=["no", "yes"])
    bare = regraft.load(make_module(stranger.base, "lora"))
    with pytest.raises(PlanError, match="has no task head whose labels could be named; leave out --teacher-labels"):
        regraft.plan(bare, stranger.base, teacher_labels=["yes", "no"])


def test_a_port_that_is_scored_needs_and_says_the_order_too(stranger: Stranger, tmp_path: Path, run: Run) -> None:
    (tmp_path / "texts.txt").write_text(
        "\n".join(line.partition(",")[0] for line in (stranger.data / "dev.csv").read_text().splitlines())
    )
    searched = ("--texts", tmp_path / "texts.txt", "--scale", "auto", "--align", "none", "--sequential")
    for command in (("plan",), ("transfer", *searched, "--out", tmp_path / "out")):
        port = (*command[:1], stranger.module, "--student", stranger.base, *stranger.options, *command[1:])
        code, _, error = run(*port)
        assert code == 2
        assert "name them in the order of the head's rows (--teacher-labels): the data have no, yes" in error
        code, out, error = run(*port, "--teacher-labels", "yes,no")
        assert code == 0, error
        assert "The port names its labels: yes, no" in out
        assert command[0] == "transfer" or "always answering" not in out
    out = run("plan", stranger.module, "--student", stranger.base, *stranger.options, "--teacher-labels", "no,yes")[1]
    assert "of always answering no: is the order of the labels right? (--teacher-labels)" in out
    # A head that is drawn at random has no order that could be wrong.
    code, out, error = run("plan", stranger.module, "--student", stranger.base, *stranger.options, "--head", "fresh")
    assert code == 0, error
    assert "drawn at random, so this says little" in out
