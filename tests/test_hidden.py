"""A refinement on the teacher's last hidden states beside its answers: known answers, what is kept, refusals."""

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
from conftest import load_peft, make_texts, wordpiece_tokenizer
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from twins import make_twin

import regraft
from regraft.alignment.moments import Moments
from regraft.distillation import refinement
from regraft.distillation.answers import ask
from regraft.distillation.hidden import HiddenDistance
from regraft.distillation.kept_answers import kept_answers
from regraft.distillation.lesson import Lesson, LessonCollator, held_out_texts
from regraft.distillation.options import RefineOptions
from regraft.distillation.refiner import Refiner
from regraft.distillation.spans import mean_of_words
from regraft.distillation.words import words_of
from regraft.errors import ModelError, RegraftError, TaskError
from regraft.models.pretrained import resolve
from regraft.training.attachment import attach

Make = Callable[..., str]
TEXTS = make_texts(120)
HEAD = "base_model.model.classifier.weight"
# Of a state in float16, squared, in units of the teacher's variance.
ROUNDING = 1e-5


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refine(module: Any, teacher: Any, *rest: Any, **options: Any) -> regraft.Module:
    options = {"steps": 10, "batch_size": 16, "progress": False, **options}
    return regraft.refine(module, teacher, TEXTS, *rest, **options)


def opposite(module: regraft.Module) -> regraft.Module:
    """The same states, and a head that never gives their answer."""
    return replace(module, tensors={**module.tensors, HEAD: -module.tensors[HEAD]}, source="start")


def texts_for(task_type: str) -> Any:
    return list(zip(make_texts(120, 4), TEXTS, strict=True)) if task_type == "QUESTION_ANS" else TEXTS


def language_module(base: str, folder: Path) -> regraft.Module:
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return regraft.load(folder)


def refiner_of(module: regraft.Module, base: str, teacher: regraft.Module, of_teacher: str, work: Path) -> Refiner:
    """Set up a training of a module on a teacher's states."""
    texts = texts_for(teacher.config["task_type"])
    given = kept_answers(teacher, texts, model=of_teacher, hidden=True, progress=False)
    lesson = Lesson(texts, given, held_out_texts(len(texts), 0), 256, 16)
    options = RefineOptions(steps=4, hidden=1.0, precision="float32")
    student = resolve(base)
    return refinement._trainer(lesson, student, attach(student, module, lesson.task), work, options, False)


def losses(refiner: Refiner) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the loss of answers on some texts, and of states."""
    batch = LessonCollator(refiner.lesson, refiner.base)(
        [{"number": int(number)} for number in refiner.lesson.learnt[:32]]
    )
    model = refiner.model.eval()
    both = refiner.compute_loss(model, batch)
    refiner.hidden = 0.0
    answers = refiner.compute_loss(model, batch)
    return answers, both - answers


# Known answers


def test_states_of_a_permuted_student_are_those_of_its_teacher(tmp_path: Path) -> None:
    """The map is found again, so nothing is left to learn, and the port is kept as it is."""
    twin, tokenizer, bases = make_twin(prune=False), wordpiece_tokenizer(), []
    for name, bare in (("teacher", twin.teacher), ("student", twin.student)):
        bases.append(str(tmp_path / name))
        bare.float().save_pretrained(bases[-1])
        tokenizer.save_pretrained(bases[-1])
    model = transformers.AutoModelForTokenClassification.from_pretrained(bases[0], num_labels=3)
    config = LoraConfig(r=4, target_modules=["query", "value"], task_type="TOKEN_CLS", modules_to_save=["classifier"])
    torch.manual_seed(3)
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "module")
    teacher = regraft.load(tmp_path / "module")
    port = regraft.transfer(
        teacher, bases[1], align="lsa", spaces="measured", layers=[0, 1, 2], texts=TEXTS[:60], progress=False
    )
    of_teacher, of_student = (
        ask(resolve(base), one, TEXTS[:8], hidden=True, progress=False).states
        for base, one in zip(bases, (teacher, port), strict=True)
    )
    assert of_teacher is not None
    assert of_student is not None
    assert (of_teacher[:, twin.kept] - of_student).abs().max() < 0.01
    assert (of_teacher - of_student).abs().max() > 1
    _, states = losses(refiner_of(port, bases[1], teacher, bases[0], tmp_path / "work"))
    assert abs(float(states.detach())) < ROUNDING
    refined = refine(port, teacher, model=bases[1], hidden=1.0, steps=3)
    assert refined.provenance["refinement"]["step"] == 0
    assert refined.hash() == port.hash()


@pytest.mark.parametrize("task_type", ["TOKEN_CLS", "SEQ_CLS", "QUESTION_ANS", "CAUSAL_LM"])
def test_a_module_is_no_distance_from_itself_and_some_from_another(
    make_model: Make, make_module: Make, tmp_path: Path, task_type: str
) -> None:
    """What is learnt of states reaches all of a module but its head."""
    same, other = (make_model("llama" if task_type == "CAUSAL_LM" else "bert", layers=2, seed=seed) for seed in (0, 1))
    if task_type == "CAUSAL_LM":
        module = language_module(same, tmp_path / "module")
    else:
        labels = 2 if task_type == "QUESTION_ANS" else 3
        module = regraft.load(make_module(same, labels=labels, task_type=task_type))
    _, states = losses(refiner_of(module, same, module, same, tmp_path / "same"))
    assert abs(float(states.detach())) < ROUNDING
    refiner = refiner_of(module, other, module, same, tmp_path / "other")
    _, states = losses(refiner)
    assert float(states.detach()) > 0.1
    states.backward()
    for name, parameter in refiner.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert bool((parameter.grad.abs() > 1e-6).any()) == ("lora_" in name), name


def test_states_are_those_of_transformers(make_model: Make, make_module: Make) -> None:
    """Of a word its first token's, of a text the mean of its tokens', in float16."""
    base = make_model(layers=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    for task_type in ("TOKEN_CLS", "SEQ_CLS"):
        module = make_module(base, labels=3, task_type=task_type)
        answers = ask(resolve(base), regraft.load(module), TEXTS[:5], hidden=True, batch_size=2, progress=False)
        plain, found = load_peft(base, module, 3, task_type), []
        for text in TEXTS[:5]:
            encoded = tokenizer(words_of(text), is_split_into_words=True, return_tensors="pt")
            with torch.no_grad():
                states = plain(**encoded, output_hidden_states=True).hidden_states[-1][0]
            words = encoded.word_ids()
            first = [words.index(word) for word in range(len(words_of(text)))]
            found.append(states[first] if task_type == "TOKEN_CLS" else states.mean(0, keepdim=True))
        assert answers.states is not None
        assert answers.states.dtype == torch.float16
        torch.testing.assert_close(answers.states.float(), torch.cat(found), rtol=2e-3, atol=2e-3)


def test_the_distance_is_what_ridge_leaves_unexplained() -> None:
    """On rows of exact least squares, 1 - R2 of scikit-learn's, weighted by variance."""
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    dice = torch.Generator().manual_seed(0)
    student = torch.randn(3000, 5, generator=dice)
    teacher = student @ torch.randn(5, 8, generator=dice) + 2 * torch.randn(3000, 8, generator=dice) + 3
    distance = HiddenDistance.fitted(Moments.of(student, teacher, full=True))
    theirs = LinearRegression().fit(student, teacher).predict(student)
    expected = 1 - r2_score(teacher, theirs, multioutput="variance_weighted")
    assert float(distance(student, teacher).mean()) == pytest.approx(expected, rel=1e-3)


def test_the_loss_is_of_answers_and_of_states(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    """Between other widths and tokenizers, worked out from what both were asked."""
    bases = [make_model(layers=2), make_model(width=24, layers=2, unigram=True)]
    teacher, student = (regraft.load(make_module(base, labels=3)) for base in bases)
    refiner = refiner_of(student, bases[1], teacher, bases[0], tmp_path / "work")
    _, found = losses(refiner)
    texts = [TEXTS[number] for number in refiner.lesson.learnt]
    its, mine = (
        ask(resolve(base), one, texts, hidden=True, progress=False)
        for base, one in zip(bases, (teacher, student), strict=True)
    )
    assert np.array_equal(its.word, mine.word)
    assert its.states is not None
    assert mine.states is not None
    ours, theirs = mine.states.float(), its.states.float()
    distance = HiddenDistance.fitted(Moments.of(ours, theirs, full=True))
    some = torch.from_numpy(its.text < 32)
    expected = F.mse_loss(distance.bridge(ours[some]), theirs[some]) / theirs.var(0, correction=0).mean()
    assert expected > 0.1
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-2)


def test_states_of_words_are_means_of_their_tokens() -> None:
    """Of two texts of three tokens: one word of two tokens behind a question, and two words."""
    states = torch.arange(12.0).reshape(2, 3, 2)
    words = {"word_of_token": torch.tensor([[-1, 0, 0], [0, 1, -1]])}
    expected = torch.stack([torch.stack([states[0, 1:].mean(0), torch.zeros(2)]), states[1, :2]])
    torch.testing.assert_close(mean_of_words(states, words), expected)


def test_states_are_learnt(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    """A module that does nothing yet learns from one of the same base model, which gives the same answers."""
    teacher = regraft.load(make_module(make_model(layers=2), labels=3))
    silent = {key: tensor * ("lora_B" not in key) for key, tensor in teacher.tensors.items()}
    start = replace(teacher, tensors=silent, source="start")
    refine(start, teacher, tmp_path / "out", steps=50, hidden=100.0, learning_rate=2e-2)
    curve = [json.loads(line) for line in (tmp_path / "out" / "curve.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in curve if "split" not in row]
    assert losses[-1] < 0.95 * losses[0]


# What is kept, and told


def test_without_weight_nothing_changes(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    teacher = regraft.load(make_module(make_model(layers=2, initializer_range=0.05), labels=3))
    start = opposite(teacher)
    plain, none, some = (refine(start, teacher, steps=3, **how) for how in ({}, {"hidden": 0}, {"hidden": 1}))
    assert none.hash() == plain.hash() != some.hash()
    first = kept_answers(teacher, TEXTS, tmp_path / "answers", progress=False)
    (place,) = (tmp_path / "answers").glob("*/answers.safetensors")
    assert first.states is None
    both = kept_answers(teacher, TEXTS, tmp_path / "answers", hidden=True, progress=False)
    again = kept_answers(teacher, TEXTS, tmp_path / "answers", hidden=True, progress=False)
    assert torch.equal(first.logits, both.logits)
    assert both.states is not None
    assert again.states is not None
    assert torch.equal(both.states, again.states)
    assert both.states.shape == (len(both.logits), 32)
    (other,) = {*(tmp_path / "answers").glob("*/answers.safetensors")} - {place}
    assert other.stat().st_size - place.stat().st_size == pytest.approx(2 * both.states.numel(), abs=200)


def test_a_refinement_on_states_goes_on_where_it_was(
    make_model: Make, make_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement, "_BETWEEN", 5)
    teacher = regraft.load(make_module(make_model(layers=2, initializer_range=0.05), labels=3))
    student = make_module(make_model(width=24, layers=2, initializer_range=0.05), labels=3, lora_dropout=0.1)
    options = {"hidden": 0.5, "steps": 10, "learning_rate": 3e-2}
    whole = refine(student, teacher, tmp_path / "whole", **options)
    looks, agreement = 0, Lesson.agreement

    def killed(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        return agreement(*arguments)

    monkeypatch.setattr(Lesson, "agreement", killed)
    with pytest.raises(KeyboardInterrupt):
        refine(student, teacher, tmp_path / "killed", **options)
    with pytest.raises(TaskError, match="unfinished training with other hidden"):
        refine(student, teacher, tmp_path / "killed", **{**options, "hidden": 0.4})
    again = refine(student, teacher, tmp_path / "killed", **options)
    assert again.hash() == whole.hash()
    assert again.provenance["refinement"] == whole.provenance["refinement"]
    assert whole.provenance["refinement"]["hidden"] == 0.5
    curves = [(tmp_path / name / "curve.jsonl").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert "on the answers and last hidden states (weight 0.5) of" in (tmp_path / "whole" / "README.md").read_text()


# Refusals


def test_what_has_no_states_to_learn_is_refused(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, labels=3))
    bare = regraft.load(make_module(base))
    vectors = replace(bare, config={**bare.config, "task_type": "FEATURE_EXTRACTION"})
    says = language_module(make_model("opt", layers=2), tmp_path / "says")
    refusals: list[tuple[type[RegraftError], str, Any, Any]] = [
        (TaskError, "hidden is -1.0, expected 0 or more", module, -1.0),
        (TaskError, "hidden is nan, expected a finite number", module, float("nan")),
        (TaskError, "hidden is inf, expected a finite number", module, float("inf")),
        (TaskError, "found --hidden 0.1, but the answers of .* are its last hidden states already", vectors, 0.1),
        (ModelError, "OPTForCausalLM runs its OPTModel in parts, .*; leave out --hidden", says, 0.1),
    ]
    for number, (error, message, teacher, weight) in enumerate(refusals):
        with pytest.raises(error, match=message):
            refine(teacher, teacher, tmp_path / f"{number}", hidden=weight)
        assert not (tmp_path / f"{number}").exists()


def test_the_weight_from_the_command_line(
    make_model: Make, make_module: Make, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    module = make_module(make_model(layers=2), labels=3)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    options = ("--teacher", module, "--texts", tmp_path / "texts.txt", "--steps", 2, "--json")
    code, out, error = run("refine", module, *options, "--hidden", 0.1, "--out", tmp_path / "out")
    assert code == 0, error
    assert json.loads(out)["hidden"] == 0.1
    code, _, error = run("refine", module, *options, "--hidden", "nan", "--out", tmp_path / "other")
    assert (code, "--hidden is 'nan', expected a finite number" in error) == (2, True)
    assert not (tmp_path / "other").exists()
