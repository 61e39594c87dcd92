"""Score what a language model answers in conversations: exact match, and ROUGE-L (Lin, 2004)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from datasets import Dataset

from ..errors import TaskError
from ..models.pretrained import Pretrained
from ..models.weights import moved
from ..progress import with_progress
from ..tasks.chats import ANSWERS, find_answers, render
from ..tasks.language import Reader
from ..tasks.records import Task
from .generation import go_on, own_ends

_WORDS = re.compile(r"[^\W_]+")  # of any script; of English those of the original ROUGE


def check_scorer() -> None:
    """Refuse before any work what needs the package for ROUGE, where it is missing.

    Raises:
        TaskError: with the command that installs it.
    """
    if find_spec("rouge_score") is None:
        raise TaskError("ROUGE needs the package rouge-score; install it with: pip install 'regraft[eval]'")


def score_answers(
    task: Task, rows: Dataset, model: Any, base: Pretrained, max_length: int, batch_size: int, progress: bool
) -> dict[str, float]:
    """Let a language model give the last answer of each conversation, the likeliest token at a time, and score it.

    Args:
        task: names the columns of the rows.
        rows: those that are conversations are answered.
        model: base and module.
        base: the base model.
        max_length: tokens after which an answer is cut.
        batch_size: conversations at a time.
        progress: whether to draw a progress bar.

    Returns:
        Percent: ``exact_match``, how many answers are the conversation's own, blanks around them aside; ``rouge_l``,
        the mean F measure of ROUGE-L over words in lower case.

    Raises:
        TaskError: there is no conversation, one begins with its answer or is as long as the model can read, or the
            tokenizer's chat template does not serve.
    """
    conversations = [messages for messages in rows[task.messages] if messages is not None]
    if not conversations:
        raise TaskError(
            f"the data have no {task.messages!r}, expected conversations to answer; leave --generate out for texts"
        )
    reader = Reader.of(base.tokenizer())
    asked = [_asked(messages, reader, base) for messages in conversations]
    model = moved(model, None, None).eval()
    ends = {*own_ends(model, reader.end), *_turn_ends(conversations[0], reader)}
    said: list[str] = []
    for start in with_progress(range(0, len(asked), batch_size), "Answering", shown=progress):
        some = [tokens for tokens, _ in asked[start : start + batch_size]]
        longest = min(max(map(len, some)) + max_length, base.longest)
        answers = go_on(model, some, sorted(ends), reader.end, do_sample=False, max_length=longest)
        said += reader.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return compare_answers(said, [answer for _, answer in asked])


def _asked(messages: Sequence[Mapping[str, str]], reader: Reader, base: Pretrained) -> tuple[list[int], str]:
    """Encode a conversation up to its last answer, and give that."""
    last = max(at for at, message in enumerate(messages) if message["role"] == ANSWERS)
    answer = messages[last]["content"]
    if not last:
        raise TaskError(f"a conversation begins with its answer, {answer[:40]!r}, expected a question before it")
    reader.check_template()
    text = render(reader.tokenizer, messages[:last], asks=True)
    tokens = reader.text(text).tokens
    if len(tokens) >= base.longest:
        raise TaskError(
            f"a conversation has {len(tokens)} tokens before its answer, and {base.name} reads {base.longest}"
        )
    return tokens, answer


def _turn_ends(messages: Sequence[Mapping[str, str]], reader: Reader) -> list[int]:
    """Give the token that a template ends an answer with, where it has one for that."""
    text, answers = find_answers(reader.tokenizer, messages)
    behind = reader.text(text[answers[-1].through : answers[-1].end].strip()).tokens
    return [token for token in behind[:1] if token in reader.tokenizer.all_special_ids]


def compare_answers(said: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """Score answers by those that were expected; see `score_answers`."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    pairs = [(one.strip(), other.strip()) for one, other in zip(said, expected, strict=True)]
    same = sum(one == other for one, other in pairs)
    overlap = sum(scorer.score(other, one)["rougeL"].fmeasure for one, other in pairs)
    return {"exact_match": 100 * same / len(pairs), "rouge_l": 100 * overlap / len(pairs)}


class _Words:
    """What a text is cut into; the package's own knows the letters a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text.lower())
