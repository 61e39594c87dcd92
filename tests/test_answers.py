"""What modules answer to plain texts, word by word: PEFT and transformers say the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from conftest import load_peft, make_texts

import regraft
from regraft.distillation.answers import ask
from regraft.distillation.words import words_of
from regraft.errors import ModuleFileError, TaskError
from regraft.models.pretrained import resolve

Make = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Angela Merkel (CDU), Berlin.", ["Angela", "Merkel", "(", "CDU", ")", ",", "Berlin", "."]),
        ("the state-of-the-art U.S. didn't", ["the", "state-of-the-art", "U.S", ".", "didn't"]),
        ("\u6771\u4eac is in Japan\u3002", ["\u6771", "\u4eac", "is", "in", "Japan", "\u3002"]),
        ("a_b _ 3,5%", ["a_b", "_", "3,5", "%"]),
        ("  ", []),
    ],
)
def test_words_are_told_apart(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_words_answer_with_their_first_piece(make_model: Make, make_module: Make) -> None:
    base = make_model()
    module = make_module(base, labels=3)
    texts = make_texts(9)
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(base), load_peft(base, module, 3)
    answers = ask(resolve(base), regraft.load(module), texts, batch_size=4, progress=False)
    row = 0
    for text in texts:
        encoded = tokenizer(words_of(text), is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**encoded).logits[0]
        for word in range(len(words_of(text))):
            first = encoded.word_ids().index(word)
            torch.testing.assert_close(answers.logits[row], logits[first])
            row += 1
    assert row == len(answers.logits)


def test_texts_answer_as_wholes_and_pairs_together(make_model: Make, make_module: Make) -> None:
    base = make_model()
    module = make_module(base, labels=2, task_type="SEQ_CLS")
    first, second = make_texts(6), make_texts(6, seed=5)
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(base), load_peft(base, module, 2, "SEQ_CLS")
    with torch.no_grad():
        alone = model(**tokenizer(first, padding=True, return_tensors="pt")).logits
        paired = model(**tokenizer(first, second, padding=True, return_tensors="pt")).logits
    loaded = resolve(base), regraft.load(module)
    torch.testing.assert_close(ask(*loaded, first, progress=False).logits, alone)
    torch.testing.assert_close(
        ask(*loaded, list(zip(first, second, strict=True)), batch_size=2, progress=False).logits, paired
    )
    with pytest.raises(TaskError, match="1 pairs of texts among 2 texts"):
        ask(*loaded, [first[0], (first[0], second[0])], progress=False)


def test_answers_of_two_tokenizers_lie_side_by_side(make_model: Make, make_module: Make) -> None:
    """A student that cuts a text earlier has fewer rows; what both answer is the same words."""
    teacher, student = make_model(), make_model(width=24, unigram=True)
    texts = make_texts(8)
    answers = [
        ask(resolve(base), regraft.load(make_module(base, labels=3)), texts, max_length=length, progress=False)
        for base, length in ((teacher, 256), (student, 8))
    ]
    mine, its, text = answers[1].beside(answers[0])
    assert len(mine) == len(its) == len(text) == len(answers[1].logits) < len(answers[0].logits)
    assert set(text) == set(range(8))
    words = dict(zip(zip(answers[0].text, answers[0].word, strict=True), answers[0].logits, strict=True))
    for row, key in enumerate(zip(answers[1].text, answers[1].word, strict=True)):
        torch.testing.assert_close(its[row], words[key])


def test_a_module_without_a_head_answers_nothing(make_model: Make, make_module: Make) -> None:
    base = make_model()
    with pytest.raises(ModuleFileError, match="task type"):
        ask(resolve(base), regraft.load(make_module(base)), make_texts(4), progress=False)
    ported = regraft.transfer(regraft.load(make_module(base, labels=3)), make_model(layers=2), head="fresh")
    with pytest.raises(ModuleFileError, match="drawn at random by a port"):
        ask(resolve(make_model(layers=2)), ported, make_texts(4), progress=False)
