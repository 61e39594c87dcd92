"""What models of the micro world read: texts to pretrain on, and the tasks' data, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from .facts import Fact, changed, draw_fact
from .language import Language
from .languages import LANGUAGES
from .sentences import Sentence, put

SEPARATOR = "</s>"
"""Between the two sentences of a text, as all tokenizers of the micro world put it between the two of a task."""

SIZES: Mapping[str, int] = {"train": 960, "val": 150, "test": 300}
"""Split -> number of rows."""

Pair = tuple[str, str, str]
"""(sentence, sentence, label)"""


@dataclass(frozen=True)
class Text:
    """A text to pretrain on.

    Attributes:
        sentences: one or two.
        follows: of two, whether the second is about the fact of the first; None for one.
    """

    sentences: tuple[str, ...]
    follows: bool | None = None

    def __str__(self) -> str:
        return f" {SEPARATOR} ".join(self.sentences)


def pretraining_texts(count: int, seed: int, languages: Sequence[str] = tuple(LANGUAGES)) -> list[Text]:
    """Draw texts in several languages by turns, one of a single sentence to three of two.

    The second sentence says the same as the first or its opposite, in half of the texts; in the others something else,
    half of the time about the same people or things.
    """
    dice = Random(f"pretraining {seed}")
    return [_text(LANGUAGES[languages[i % len(languages)]], dice) for i in range(count)]


def _text(language: Language, dice: Random) -> Text:
    fact = draw_fact(language, dice)
    first = put(fact, language, dice)
    if dice.random() < 0.25:
        return Text((first.text,))
    other = _maybe_denied(fact, dice)
    follows = dice.random() < 0.5
    if not follows:
        other = changed(other, language, dice) if dice.random() < 0.5 else draw_fact(language, dice)
    return Text((first.text, put(other, language, dice, unlike=first).text), follows)


def _maybe_denied(fact: Fact, dice: Random) -> Fact:
    """Turn a fact into its opposite, or leave it, with equal chances."""
    return fact if dice.random() < 0.5 else replace(fact, time=None, denied=not fact.denied)


def ner_rows(language: Language, count: int, dice: Random) -> list[Sentence]:
    """Draw tagged sentences."""
    return [put(draw_fact(language, dice), language, dice) for _ in range(count)]


def pi_rows(language: Language, count: int, dice: Random) -> list[Pair]:
    """Draw pairs that mean the same (``"1"``) or differ in one thing (``"0"``), by turns."""
    rows = []
    for i in range(count):
        fact = draw_fact(language, dice)
        first = put(fact, language, dice)
        other = fact if i % 2 else changed(fact, language, dice)
        rows.append((first.text, put(other, language, dice, unlike=first).text, str(i % 2)))
    return rows


def nli_rows(language: Language, count: int, dice: Random) -> list[Pair]:
    """Draw premises and hypotheses: the same or less (entailment), the opposite, or something else, by turns."""
    rows = []
    for i in range(count):
        fact = draw_fact(language, dice)
        first = put(fact, language, dice)
        label = ("entailment", "neutral", "contradiction")[i % 3]
        if label == "entailment":
            other = replace(fact, time=dice.choice([fact.time, None]))
        elif label == "contradiction":
            other = replace(fact, time=None, denied=not fact.denied)
        else:
            other = changed(_maybe_denied(fact, dice), language, dice)
        rows.append((first.text, put(other, language, dice, unlike=first).text, label))
    return rows


_PAIRS: Mapping[str, tuple[Callable[[Language, int, Random], list[Pair]], tuple[str, str, str]]] = {
    "pi": (pi_rows, ("sentence1", "sentence2", "label")),
    "nli": (nli_rows, ("premise", "hypothesis", "label")),
}

TASKS = ("ner", *_PAIRS)


def write_tasks(
    folder: Path,
    seed: int = 0,
    tasks: Sequence[str] = TASKS,
    languages: Sequence[str] = tuple(LANGUAGES),
    sizes: Mapping[str, int] = SIZES,
) -> None:
    """Write the tasks' data as `regraft.training.train` reads them: ``FOLDER/TASK/LANGUAGE/{train,val,test}.*``.

    Args:
        folder: where; made if need be.
        seed: of everything that is drawn. Every file is drawn apart, so that it does not depend on the other arguments.
        tasks: which of `TASKS`.
        languages: which of `LANGUAGES`.
        sizes: split -> number of rows.
    """
    for task in tasks:
        for code in languages:
            place = folder / task / code
            place.mkdir(parents=True, exist_ok=True)
            for split, count in sizes.items():
                dice = Random(f"{task} {code} {split} {seed}")
                if task == "ner":
                    text, ending = _conllu(ner_rows(LANGUAGES[code], count, dice)), "conllu"
                else:
                    draw, columns = _PAIRS[task]
                    text, ending = _table([columns, *draw(LANGUAGES[code], count, dice)]), "tsv"
                (place / f"{split}.{ending}").write_text(text, encoding="utf-8")


def _conllu(sentences: Sequence[Sentence]) -> str:
    blocks = (
        "".join(
            f"{i}\t{word}\t{tag}\n" for i, (word, tag) in enumerate(zip(sentence.words, sentence.tags, strict=True))
        )
        for sentence in sentences
    )
    return "\n".join(blocks)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)
