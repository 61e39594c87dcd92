"""One tokenizer: a student learns the teacher's likeliest tokens and the rest, by hand, by PyTorch, by transformers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_texts, unigram_tokenizer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from test_likelihood import bytes_tokenizer, causal, lora
from tokenizers import decoders
from torch.nn.functional import kl_div

import regraft
from regraft.distillation.answer_kinds import kind_of
from regraft.distillation.answers import ask
from regraft.distillation.checks import with_changes
from regraft.distillation.kept_answers import kept_answers
from regraft.distillation.lesson import Lesson
from regraft.distillation.likeliest import classes, likeliest_distance, packed, tokens_of, unpacked
from regraft.distillation.likelihood import changes, likelihood_distance, weighed_by_changes
from regraft.distillation.options import RefineOptions
from regraft.distillation.refinement import refine
from regraft.distillation.writing import Writing, written_texts
from regraft.errors import ModelError, TaskError
from regraft.models.pretrained import resolve

Make = Callable[..., Any]
TEXTS = make_texts(60, seed=4)


def unigrams() -> Any:
    """The tokenizer of a few pieces that carry spaces, whose tokens make a text again."""
    tokenizer = unigram_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, list[str]]:
    """A teacher's module, a student's on the same base that does little, and texts that the teacher finds likely."""
    folder = tmp_path_factory.mktemp("learning")
    base = causal(folder, unigrams(), 32, 32)
    its, mine = lora(base, folder / "t", 2), lora(base, folder / "s", 5, 0.02)
    written = written_texts(Writing(100), regraft.load(its), folder, max_length=20, progress=False)
    return its, mine, written.texts


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str, str]:
    """Two models that read the same tokens, with a module each."""
    folder = tmp_path_factory.mktemp("twins")
    tokenizer = bytes_tokenizer(True)
    teacher, student = causal(folder, tokenizer, 32, 0), causal(folder, tokenizer, 24, 1)
    return teacher, lora(teacher, folder / "t", 2), student, lora(student, folder / "s", 3)


def taught(logits: torch.Tensor, count: int) -> torch.Tensor:
    """What a teacher of such logits gives to be learnt."""
    ids = logits.topk(count).indices
    return torch.cat([torch.zeros(len(logits), 1), classes(logits, ids), ids.float()], dim=1)


def test_of_a_small_vocabulary_the_loss_is_that_of_pytorch() -> None:
    dice = torch.Generator().manual_seed(0)
    teacher, student = (3 * torch.randn(7, 50, generator=dice) for _ in range(2))
    for temperature in (1.0, 2.0):
        theirs = kl_div((student / temperature).log_softmax(1), (teacher / temperature).softmax(1), reduction="none")
        ours = likeliest_distance(temperature)(student, taught(teacher, 50), torch.arange(7))
        torch.testing.assert_close(ours, temperature**2 * theirs.sum(1))


def test_the_rest_is_one_class_by_hand() -> None:
    """Of four tokens the teacher's two likeliest, 0.5 and 0.25, and 0.25 of the two others together."""
    teacher = torch.tensor([[0.15, 0.5, 0.25, 0.1]]).log()
    student = torch.tensor([[0.3, 0.2, 0.4, 0.1]]).log() + 7  # logits are any that have these probabilities
    expected = 0.5 * math.log(0.5 / 0.2) + 0.25 * math.log(0.25 / 0.4) + 0.25 * math.log(0.25 / 0.4)
    ours = likeliest_distance(1)(student, taught(teacher, 2), torch.zeros(1))
    torch.testing.assert_close(ours, torch.tensor([expected]))


def test_who_expects_what_the_teacher_expects_has_nothing_to_learn() -> None:
    logits = (5 * torch.randn(9, 300, generator=torch.Generator().manual_seed(1))).requires_grad_()
    distance = likeliest_distance(1)(logits, unpacked(packed(taught(logits.detach(), 64))), torch.arange(9))
    distance.sum().backward()
    assert float(distance.detach().abs().max()) < 1e-4  # float16 keeps so much of the teacher's
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 2e-3
    # Logits that a padded vocabulary has beyond the tokens are of the rest, and a certain model has a gradient too.
    certain = torch.full((1, 100), -1e4).index_fill(1, torch.tensor([3]), 0).requires_grad_()
    likeliest_distance(1)(certain, taught(torch.zeros(1, 100), 64), torch.zeros(1)).backward()
    assert certain.grad is not None
    assert bool(certain.grad.isfinite().all())


def test_what_is_asked_is_what_transformers_expects_next(twins: tuple[str, str, str, str]) -> None:
    base, module, _, _ = twins
    texts = ["the river opens", "er", "a \u00e9 \U0001f600"]
    answers = ask(resolve(base), regraft.load(module), texts, batch_size=2, one_tokenizer=True, progress=False)
    assert answers.logits.shape[1] == 1 + 65 + 64
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.load_adapter(module)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    for number, text in enumerate(texts):
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            expected = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        mine = answers.logits[answers.text == number]
        assert len(mine) == len(expected) == len(ids[0]) - 1  # a smile is four tokens, and the end is one
        top = expected.topk(64)
        torch.testing.assert_close(mine[:, 1:65], top.values, rtol=1e-4, atol=1e-4)
        rest = expected.exp().sum(1) - top.values.exp().sum(1)
        torch.testing.assert_close(mine[:, 65].exp(), rest, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(mine[:, 0], expected.gather(1, ids[0, 1:, None])[:, 0].cumsum(0), rtol=1e-4, atol=0)
    long = ask(resolve(base), regraft.load(module), ["the river"], max_length=8, one_tokenizer=True, progress=False)
    assert len(long.logits) == 7  # a text that is cut has no end


def test_one_tokenizer_is_told_by_vocabulary_and_ids(twins: tuple[str, str, str, str], tmp_path: Path) -> None:
    teacher, _, student, _ = twins
    assert tokens_of(resolve(teacher), TEXTS) == tokens_of(resolve(student), TEXTS)
    beginless, other = causal(tmp_path, bytes_tokenizer(False), 24, 5), unigram_tokenizer()
    assert tokens_of(resolve(beginless), TEXTS) != tokens_of(resolve(teacher), TEXTS)
    assert tokens_of(resolve((causal(tmp_path, other, 24, 6), other)), TEXTS) != tokens_of(resolve(teacher), TEXTS)
    added = transformers.AutoTokenizer.from_pretrained(student)
    added.add_tokens(["<more>"])
    # A token that neither has a logit for does no harm; one that only the other has a logit for does.
    assert tokens_of(resolve((student, added)), TEXTS) == tokens_of(resolve((teacher, added)), TEXTS)
    larger = causal(tmp_path, added, 40, 6)
    assert tokens_of(resolve((student, added)), TEXTS) != tokens_of(resolve(larger), TEXTS)
    told = ask(resolve((teacher, added)), regraft.load(twins[1]), TEXTS[:2], one_tokenizer=True, progress=False)
    assert int(told.logits[:, 66:].max()) < resolve(teacher).config.vocab_size


def test_a_student_learns_what_its_teacher_expects(learning: tuple[str, str, list[str]], tmp_path: Path) -> None:
    its, mine, texts = learning
    options: Any = {"steps": 50, "learning_rate": 3e-2, "batch_size": 8, "progress": False}
    refined = refine(mine, its, texts, answers=tmp_path / "answers", **options)
    said = refined.provenance["refinement"]
    assert said["one_tokenizer"] is True
    before, after = said["agreement"]["before"], said["agreement"]["after"]
    assert after["interval"][0] > before["percent"]
    assert after["divergence"] < before["divergence"] / 2
    assert said["metric"] == "likelihood overlap"
    (file,) = (tmp_path / "answers").glob("*/answers.safetensors")
    kinds = {name: (tensor.dtype, *tensor.shape[1:]) for name, tensor in load_file(file).items()}
    assert kinds["likeliest"] == (torch.float16, 65)
    assert kinds["ids"] == (torch.int32, 64)
    assert kinds["logits"] == (torch.float32, 1)


def test_answers_that_are_kept_need_no_teacher(twins: tuple[str, str, str, str], tmp_path: Path) -> None:
    base, path, student, _ = twins
    shutil.copytree(base, tmp_path / "base")
    module, tokens = regraft.load(path), tokens_of(resolve(student), TEXTS)
    module = replace(module, config={**module.config, "base_model_name_or_path": str(tmp_path / "base")})
    keep: Any = {"directory": tmp_path / "kept", "progress": False}
    first = kept_answers(module, TEXTS, tokens=tokens, **keep)
    plain = kept_answers(module, TEXTS, tokens="others", **keep)
    assert (first.one_tokenizer, plain.one_tokenizer) == (True, False)
    assert plain.logits.shape[1] == 1
    shutil.rmtree(tmp_path / "base")
    again = kept_answers(module, TEXTS, tokens=tokens, **keep)
    assert again.one_tokenizer
    assert torch.equal(again.logits, first.logits)
    assert torch.equal(kept_answers(module, TEXTS, tokens="others", **keep).logits, plain.logits)
    with pytest.raises(ModelError):
        kept_answers(module, TEXTS, alone=True, tokens=tokens, **keep)


# Weights by what the module changes


def test_changes_are_weighed_by_hand() -> None:
    """With the module chunks have -1, -3 and -2, without it -2, -2 and -5; the mean change is 5/3."""
    totals, without = torch.tensor([[-1.0], [-4.0], [-2.0]]), torch.tensor([[-2.0], [-4.0], [-5.0]])
    text = torch.tensor([0, 0, 1])
    torch.testing.assert_close(changes(totals, without, text), torch.tensor([1.0, -1.0, 3.0]))
    teacher, student = torch.cat([totals, without], dim=1), torch.tensor([[-2.0], [-2.5], [-2.0]])
    plain = likelihood_distance(student, totals, text)
    weighed = weighed_by_changes(likelihood_distance, 5 / 3)(student, teacher, text)
    torch.testing.assert_close(weighed, plain * torch.tensor([0.6, 0.6, 1.8]))


@pytest.mark.parametrize("one_tokenizer", [True, False])
def test_both_losses_are_weighed(twins: tuple[str, str, str, str], one_tokenizer: bool) -> None:
    base, path, _, _ = twins
    module, how = regraft.load(path), {"one_tokenizer": one_tokenizer, "progress": False}
    answers = ask(resolve(base), module, TEXTS, **how)
    alone = ask(resolve(base), module, TEXTS, head_alone=True, **how)
    bare = transformers.AutoModelForCausalLM.from_pretrained(base)
    ids = transformers.AutoTokenizer.from_pretrained(base)(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        total = -float(bare(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    assert float(alone.logits[alone.text == 0][ids.shape[1] - 2]) == pytest.approx(total, rel=1e-4)
    given = with_changes(answers, alone, "mine")
    lesson = Lesson(TEXTS, given, answers.text[:0], 256, 8)
    text = torch.from_numpy(answers.text)
    dice = torch.Generator().manual_seed(0)
    student = torch.randn(len(text), 260, generator=dice) if one_tokenizer else answers.logits * 1.1
    plain = kind_of("CAUSAL_LM", one_tokenizer).distance(answers.logits, 1.0, False, False)
    change = changes(answers.judged, alone.logits, text).abs()
    expected = plain(student, answers.logits, text) * change / change.mean()
    torch.testing.assert_close(
        lesson.distance(RefineOptions(weigh_changes=True))(student, given.logits, text), expected
    )
    assert torch.equal(given.judged, answers.judged)
    with pytest.raises(TaskError, match="mine changes nothing of what its base model says"):
        with_changes(answers, replace(alone, logits=answers.judged), "mine")


@pytest.mark.parametrize("student", ["one tokenizer", pytest.param("another", marks=pytest.mark.slow)])
def test_a_refinement_may_be_weighed(learning: tuple[str, str, list[str]], tmp_path: Path, student: str) -> None:
    its, mine, texts = learning
    steps = 8
    if student == "another":
        mine, steps = lora(causal(tmp_path, bytes_tokenizer(True), 24, 1), tmp_path / "s", 3), 40
    options: Any = {
        "steps": steps,
        "learning_rate": 3e-2,
        "batch_size": 8,
        "progress": False,
        "answers": tmp_path / "a",
    }
    refined, plain = (refine(mine, its, texts, weigh_changes=weighed, **options) for weighed in (True, False))
    said = refined.provenance["refinement"]
    assert said["one_tokenizer"] is (student == "one tokenizer")
    assert said["weigh_changes"] is True
    assert refined.hash() != plain.hash()
    assert len([*(tmp_path / "a").glob("*/answers.safetensors")]) == 2  # with the module, and without it


def test_a_model_alone_is_without_what_its_module_saves_whole(twins: tuple[str, str, str, str], tmp_path: Path) -> None:
    base = twins[0]
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    model = get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += ("modules_to_save" in name) * torch.randn(parameter.shape)
    model.save_pretrained(tmp_path)
    module = regraft.load(tmp_path)
    (with_it, alone), bare = (
        [ask(resolve(base), module, TEXTS, head_alone=bare, progress=False).logits for bare in (False, True)],
        ask(resolve(base), regraft.load(lora(base, tmp_path / "none", 0, 0.0)), TEXTS, progress=False).logits,
    )
    torch.testing.assert_close(alone, bare)
    assert not torch.allclose(with_it, bare)


def test_only_language_models_are_weighed(make_model: Make, make_module: Make) -> None:
    module = regraft.load(make_module(make_model(layers=2), labels=3))
    with pytest.raises(TaskError, match=r"found --weigh-changes, but .* is no language model's module"):
        refine(module, module, TEXTS, weigh_changes=True)
