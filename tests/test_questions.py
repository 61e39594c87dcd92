"""Modules of question answering, compared and refined: PEFT, PyTorch and sklearn as oracles."""

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
from conftest import load_peft, make_texts
from sklearn.metrics import f1_score

import regraft
from regraft.distillation.answers import ask
from regraft.distillation.options import AskOptions
from regraft.distillation.spans import span_distance
from regraft.distillation.words import ends_of_words, words_of
from regraft.errors import ModuleFileError, TaskError
from regraft.models.pretrained import resolve
from regraft.tasks.agreement import agree, best_spans, whole_texts

Make = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
QUESTIONS, CONTEXTS = [text[:20] for text in make_texts(80, seed=7)], [f"{text}." for text in make_texts(80)]
PAIRS = list(zip(QUESTIONS, CONTEXTS, strict=True))
HEAD = "base_model.model.qa_outputs.weight"
rng = np.random.default_rng(5)


def module_of(make_module: Make, base: str) -> regraft.Module:
    return regraft.load(make_module(base, labels=2, task_type="QUESTION_ANS"))


def refine(module: regraft.Module, teacher: regraft.Module, folder: Path, **options: Any) -> regraft.Module:
    options = {"steps": 60, "batch_size": 16, "progress": False, **options}
    return regraft.refine(module, teacher, PAIRS, answers=folder, **options)


@pytest.mark.parametrize("unigram", [False, True])
def test_words_have_the_logits_of_their_tokens_as_peft_gives_them(
    make_model: Make, make_module: Make, unigram: bool
) -> None:
    base = make_model(layers=2, unigram=unigram)
    module = module_of(make_module, base)
    answers = ask(resolve(base), module, PAIRS[:6], batch_size=4, progress=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = load_peft(base, module.source, 2, "QUESTION_ANS")
    several = 0
    for number, (question, context) in enumerate(PAIRS[:6]):
        encoded = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")
        places, sides = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids(0)
        with torch.no_grad():
            said = model(**encoded)
        logits = torch.stack([said.start_logits[0], said.end_logits[0]], 1)
        mine = answers.logits[answers.text == number]
        assert len(mine) == len(words_of(context))
        # The space before a word is of the word.
        begins = [start + (context[start:stop][:1] == " ") for start, stop in places]
        for row, (word, end) in enumerate(zip(words_of(context), ends_of_words(context), strict=True)):
            inside = [t for t, side in enumerate(sides) if side == 1 and end - len(word) <= begins[t] < end]
            several += len(inside) > 1
            torch.testing.assert_close(mine[row], logits[inside].logsumexp(0))
        whole = torch.tensor([side == 1 for side in sides])
        torch.testing.assert_close(mine.logsumexp(0), logits[whole].logsumexp(0))
    assert several


def test_the_loss_is_that_of_pytorch_for_each_text() -> None:
    dice = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(9, 2, generator=dice), torch.randn(9, 2, generator=dice)
    text = torch.tensor([3, 3, 3, 3, 5, 5, 8, 8, 8])
    for temperature in (1.0, 2.0):
        found = span_distance(teacher, temperature)(student, teacher, text)
        for row, number in enumerate((3, 5, 8)):
            mine, its = ((one[text == number] / temperature).log_softmax(0) for one in (student, teacher))
            theirs = torch.nn.functional.kl_div(mine, its, reduction="sum", log_target=True)
            torch.testing.assert_close(found[row], temperature**2 * theirs)
        moved = teacher.clone().requires_grad_()
        span_distance(teacher, temperature)(moved, teacher, text).sum().backward()
        assert moved.grad is not None
        assert float(moved.grad.abs().max()) < 1e-6
    assert span_distance(teacher, 1.0)(student[:0], teacher[:0], text[:0]).sum() == 0


def test_the_likeliest_answer_ends_where_it_begins_or_later() -> None:
    sizes = rng.integers(1, 9, size=50)
    texts, answers = np.repeat(np.arange(50), sizes), rng.normal(size=(sizes.sum(), 2))
    for text, (first, last) in enumerate(best_spans(answers, texts)):
        starts, ends = answers[texts == text].T
        every = {(i, j): starts[i] + ends[j] for i in range(len(starts)) for j in range(i, len(starts))}
        assert (first, last) == max(every, key=lambda span: every[span])


def test_answers_are_compared_as_sets_of_words() -> None:
    sizes = rng.integers(2, 12, size=60)
    texts = np.repeat(np.arange(60), sizes)
    teacher, student = (rng.normal(size=(len(texts), 2)) for _ in range(2))
    student[texts < 20] = teacher[texts < 20]
    found = agree("QUESTION_ANS", teacher, student, texts)
    scores = []
    for text in range(60):
        inside = np.zeros((2, sizes[text]), dtype=bool)
        for row, answers in enumerate((teacher, student)):
            first, last = best_spans(answers[texts == text], np.zeros(sizes[text], dtype=np.int64))[0]
            inside[row, first : last + 1] = True
        scores.append(f1_score(*inside))
    assert (found.metric, found.texts, found.constant) == ("answer F1", 60, False)
    assert found.percent == pytest.approx(100 * np.mean(scores))
    assert found.interval[0] < found.percent < found.interval[1]
    far = span_distance(torch.zeros(0), 1.0)(*(torch.tensor(one) for one in (student, teacher, texts))).mean()
    assert found.divergence == pytest.approx(float(far), rel=1e-5)


def test_an_answer_is_scored_by_hand() -> None:
    """Of a text of five words the teacher answers with the second to the fourth, the student with the last two."""
    teacher, student = np.zeros((5, 2)), np.zeros((5, 2))
    teacher[1, 0] = teacher[3, 1] = student[3, 0] = student[4, 1] = 9
    found = agree("QUESTION_ANS", teacher, student, np.zeros(5, dtype=np.int64))
    assert found.percent == pytest.approx(100 * 2 * 1 / (3 + 2))
    nothing = agree(
        "QUESTION_ANS", teacher, whole_texts(teacher, np.zeros(5, dtype=np.int64)), np.zeros(5, dtype=np.int64)
    )
    assert nothing.percent == pytest.approx(100 * 2 * 3 / (3 + 5))


def test_a_module_agrees_with_itself(make_model: Make, make_module: Make, run: Run, tmp_path: Path) -> None:
    module = module_of(make_module, make_model(layers=2))
    found = regraft.compare(module, module, PAIRS, progress=False)
    assert (found.agreement.percent, found.agreement.interval) == (pytest.approx(100), pytest.approx((100, 100)))
    assert found.agreement.divergence == pytest.approx(0)
    assert found.rows == sum(len(words_of(context)) for context in CONTEXTS)
    assert (found.texts, found.cut, found.calibration, found.labels) == (80, 0, None, ())
    assert found.head_alone.percent < 100
    assert found.commonest == "the whole context"
    assert 0 < found.floor < 100
    table = tmp_path / "questions.tsv"
    table.write_text("question\tcontext\n" + "".join(f"{one}\t{two}\n" for one, two in PAIRS))
    call = ("compare", module.source, module.source, "--texts", table, "--column", "question,context")
    code, out, _ = run(*call)
    assert code == 0
    for words in ("answer F1", "100.0", "always the whole context", f"{found.floor:.1f}"):
        assert words in out
    code, out, _ = run(*call, "--json")
    assert json.loads(out)["floor"] == found.floor


def test_the_start_is_the_start_whatever_a_configuration_calls_its_labels(
    make_model: Make, make_module: Make, tmp_path: Path
) -> None:
    """A base model may have been fine-tuned for two labels before; rows of this head are no labels."""
    base = make_model(layers=2)
    places = []
    for names in (("no", "yes"), ("yes", "no")):
        model = transformers.AutoModel.from_pretrained(base, id2label=dict(enumerate(names)))
        places.append(tmp_path / names[0])
        model.save_pretrained(places[-1])
        transformers.AutoTokenizer.from_pretrained(base).save_pretrained(places[-1])
    module = module_of(make_module, base)
    found = regraft.compare(module, module, PAIRS, teacher_model=places[0], model=places[1], progress=False)
    assert found.agreement.percent == pytest.approx(100)


def test_modules_of_two_tokenizers_are_compared_word_by_word(make_model: Make, make_module: Make) -> None:
    teacher = module_of(make_module, make_model(layers=2))
    student = module_of(make_module, make_model(width=24, layers=2, unigram=True))
    found = regraft.compare(teacher, student, PAIRS, progress=False)
    assert (found.rows, found.cut) == (sum(len(words_of(context)) for context in CONTEXTS), 0)
    short = regraft.compare(teacher, student, PAIRS, options=AskOptions(max_length=48), progress=False)
    assert 0 < short.rows < found.rows


@pytest.mark.parametrize("unigram", [False, True])
def test_answers_are_learnt(make_model: Make, make_module: Make, tmp_path: Path, unigram: bool) -> None:
    teacher = module_of(make_module, make_model(layers=2, initializer_range=0.05))
    student = module_of(make_module, make_model(width=24, layers=2, initializer_range=0.05, unigram=unigram))
    before = regraft.compare(teacher, student, PAIRS, progress=False).agreement
    refined = refine(student, teacher, tmp_path, learning_rate=3e-2)
    after = regraft.compare(teacher, refined, PAIRS, progress=False).agreement
    assert refined.provenance["refinement"]["metric"] == "answer F1"
    assert refined.labels == ()
    assert after.percent > before.percent
    assert after.divergence < 0.75 * before.divergence


def test_what_cannot_be_asked_is_refused_in_a_sentence(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    module = module_of(make_module, base)
    headless = {key: tensor for key, tensor in module.tensors.items() if "qa_outputs" not in key}
    with pytest.raises(TaskError, match=r"80 texts that are no pairs, .*--column question,context"):
        ask(resolve(base), module, CONTEXTS, batch_size=80, progress=False)
    with pytest.raises(TaskError, match=r"1 questions fill the 12 tokens that are read, .*--max-length"):
        ask(resolve(base), module, [("the " * 20, "a river")], max_length=12, progress=False)
    words = [(question, "river") for question in make_texts(80)]
    with pytest.raises(TaskError, match="gives one answer to all of 80 words of contexts"):
        regraft.compare(module, module, words, progress=False)
    with pytest.raises(TaskError, match="gives one answer to all of the 80 texts"):
        regraft.refine(module, module, words, answers=tmp_path, progress=False)
    with pytest.raises(ModuleFileError, match="has no task head"):
        regraft.compare(module, replace(module, tensors=headless), PAIRS, progress=False)
