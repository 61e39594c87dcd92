"""Modules without a task head, compared and refined by the vectors that they make of texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import load_base, make_texts
from peft import LoraConfig, PeftModel, get_peft_model
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import cosine_similarity

import regraft
from regraft.distillation.answers import ask
from regraft.distillation.vectors import Bridge, angle, by_halves
from regraft.errors import TaskError
from regraft.models.pretrained import resolve
from regraft.tasks.agreement import agree, mean_vectors

Make = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
TEXTS = make_texts(160)


def module_of(base: str, folder: Path, scale: float = 0.5) -> regraft.Module:
    torch.manual_seed(1)
    config = LoraConfig(r=4, task_type="FEATURE_EXTRACTION", target_modules=["query", "value"])
    model = get_peft_model(load_base(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    model.save_pretrained(folder)
    return regraft.load(folder)


def test_a_vector_is_the_mean_of_what_peft_gives(make_model: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    module = module_of(base, tmp_path)
    answers = ask(resolve(base), module, TEXTS[:9], batch_size=4, progress=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(load_base(base), tmp_path).eval()
    for number, text in enumerate(TEXTS[:9]):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(answers.logits[number], states.mean(0), rtol=1e-4, atol=1e-5)


def test_a_linear_map_is_found_again_as_sklearn_finds_it() -> None:
    dice = torch.Generator().manual_seed(0)
    for width in (5, 8):  # of its own width and of another
        student = torch.randn(200, 5, generator=dice)
        teacher = student @ torch.randn(5, width, generator=dice) + torch.randn(width, generator=dice)
        taken = Bridge.fitted(student[:150], teacher[:150])(student[150:])
        theirs = LinearRegression().fit(student[:150], teacher[:150]).predict(student[150:])
        np.testing.assert_allclose(taken.numpy(), theirs, atol=1e-3)
    same = Bridge.fitted(student, student)
    torch.testing.assert_close(same(student), student)


def test_no_text_is_judged_by_a_map_that_was_fitted_to_it() -> None:
    """Of vectors that have nothing to do with each other a map that saw them would find something."""
    dice = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(80, 35, generator=dice), torch.randn(80, 40, generator=dice)
    seen = torch.linalg.lstsq(student, teacher).solution
    fitted, apart = (
        torch.nn.functional.cosine_similarity(one, teacher).mean()
        for one in (student @ seen, by_halves(Bridge.fitted, student, teacher))
    )
    assert fitted > 0.5
    assert abs(apart) < 0.15


def test_cosines_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(50, 6)) + 1, rng.normal(size=(50, 6))
    found = agree("FEATURE_EXTRACTION", teacher, student, np.arange(50))
    theirs = cosine_similarity(teacher, student).diagonal()
    assert (found.metric, found.texts, found.constant) == ("cosine", 50, False)
    assert found.percent == pytest.approx(100 * theirs.mean())
    assert found.divergence == pytest.approx(1 - theirs.mean())
    assert found.interval[0] < found.percent < found.interval[1]
    loss = angle(torch.zeros(0), 1.0)(*(torch.tensor(one) for one in (student, teacher)), torch.arange(50))
    np.testing.assert_allclose(loss.numpy(), 1 - theirs, atol=1e-6)
    floor = agree("FEATURE_EXTRACTION", teacher, mean_vectors(teacher, np.arange(50)), np.arange(50)).percent
    assert floor == pytest.approx(100 * cosine_similarity(teacher, teacher.mean(0)[None]).mean())
    assert agree("FEATURE_EXTRACTION", np.ones((9, 3)), student[:9, :3], np.arange(9)).constant


def test_a_module_agrees_with_itself(make_model: Make, run: Run, tmp_path: Path) -> None:
    module = module_of(make_model(layers=2), tmp_path / "module")
    found = regraft.compare(module, module, TEXTS, progress=False)
    assert found.agreement.percent == pytest.approx(100, abs=1e-3)
    assert found.agreement.divergence == pytest.approx(0, abs=1e-5)
    assert (found.texts, found.rows, found.calibration, found.labels) == (160, 160, None, ())
    assert found.head_alone.percent < 99.9
    assert found.commonest == "the teacher's mean vector"
    assert 0 < found.floor < 100
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    call = ("compare", module.source, module.source, "--texts", tmp_path / "texts.txt")
    code, out, _ = run(*call)
    assert code == 0
    for words in ("cosine", "its model alone", "always the teacher's mean vector", "1 - cosine", "The last row"):
        assert words in out
    code, out, _ = run(*call, "--json")
    assert json.loads(out)["floor"] == found.floor


@pytest.mark.slow
def test_vectors_are_learnt(make_model: Make, tmp_path: Path) -> None:
    """A module that does nothing yet learns from one of the same base model."""
    base, texts = make_model(layers=2), make_texts(600)
    teacher, student = module_of(base, tmp_path / "teacher", scale=1.0), module_of(base, tmp_path / "student", scale=0)
    refined = regraft.refine(
        student, teacher, texts, tmp_path / "out", answers=tmp_path, steps=80, learning_rate=3e-2, progress=False
    )
    assert (refined.provenance["refinement"]["metric"], refined.labels) == ("cosine", ())
    curve = [json.loads(line) for line in (tmp_path / "out" / "curve.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in curve if "split" not in row]
    assert losses[-1] < 0.95 * losses[0]
    PeftModel.from_pretrained(load_base(base), tmp_path / "out")


def test_widths_and_tokenizers_may_differ(make_model: Make, tmp_path: Path) -> None:
    teacher = module_of(make_model(layers=2), tmp_path / "teacher")
    student = module_of(make_model(width=24, layers=2, unigram=True), tmp_path / "student")
    found = regraft.compare(teacher, student, TEXTS, progress=False)
    assert (found.rows, found.cut) == (160, 0)
    assert 0 < found.agreement.percent < 100
    refined = regraft.refine(student, teacher, TEXTS, answers=tmp_path, steps=3, batch_size=16, progress=False)
    said = refined.provenance["refinement"]["agreement"]
    assert 0 < said["before"]["percent"] <= said["after"]["percent"] < 100


def test_a_port_ends_with_the_cosine(make_model: Make, run: Run, tmp_path: Path) -> None:
    module, student = module_of(make_model(layers=2), tmp_path / "module"), make_model(width=24, layers=2, unigram=True)
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(600)))
    texts = ("--texts", tmp_path / "texts.txt")
    code, out, _ = run("transfer", module.source, "--student", student, "--out", tmp_path / "port", *texts)
    assert code == 0
    assert "the port gives the teacher's answers with a cosine of" in out
    assert "its model alone" in out


def test_a_student_like_its_teacher_is_kept_as_it_is(make_model: Make, tmp_path: Path) -> None:
    module = module_of(make_model(layers=2), tmp_path / "module")
    refined = regraft.refine(module, module, TEXTS, answers=tmp_path, steps=3, batch_size=16, progress=False)
    assert refined.provenance["refinement"]["agreement"]["before"]["percent"] == pytest.approx(100, abs=1e-3)


def test_what_cannot_be_compared_is_refused(make_model: Make, tmp_path: Path) -> None:
    module = module_of(make_model(layers=2), tmp_path / "module")
    pairs = [(text, text) for text in TEXTS[:80]]
    with pytest.raises(TaskError, match="pairs alone or texts alone"):
        ask(resolve(module.base_model), module, [*pairs, *TEXTS], progress=False, batch_size=240)
    with pytest.raises(TaskError, match="gives one answer to all of 80 texts"):
        regraft.compare(module, replace(module, source="other"), ["the river"] * 80, progress=False)
    with pytest.raises(TaskError, match=r"found 63 texts, expected at least 64: .*, 32 wide, is fitted"):
        regraft.compare(module, module, TEXTS[:63], progress=False)
