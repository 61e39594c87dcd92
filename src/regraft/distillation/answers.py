"""What a module answers to plain texts: logits of words or of whole texts, or how likely they are.

A row is a word or a text, so that answers of two models can be laid side by side. A word is answered by its first
piece, as modules are trained (`tasks.encoding`), and words are told apart before any tokenizer sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from ..errors import ModuleFileError, unknown_choice
from ..files.texts import Text
from ..models.pretrained import Pretrained
from ..models.weights import moved
from ..modules.inventory import labels_of_base
from ..modules.module import Module
from ..modules.tensors import head_rows
from ..progress import with_progress
from ..tasks.records import Task
from ..training.attachment import attach
from .answer_kinds import ANSWERS, AnswerKind, kind_of
from .rows import Ints

_LARGEST = torch.finfo(torch.float16).max

Answered = tuple[Tensor, Tensor | None, Ints, Ints]
"""Of a batch of texts the logits, where asked for the last hidden states in float16, texts and words of the rows."""


@dataclass(frozen=True)
class Answers:
    """What a module answers to some texts.

    Attributes:
        logits: (rows, labels), in float32; of a language model (rows, 1) log-likelihoods, see `likelihood`; of question
            answering (rows, 2), of a word as the start and as the end of the answer, see `spans`; of
            a model without a head (rows, width) vectors, see `vectors`. What a teacher of language models gives beside
            its log-likelihoods stands behind them, see `likeliest`.
        text: (rows,) the number of the text, ascending.
        word: (rows,) what in it is answered, ascending, see `Rows`.
        labels: names of the columns; empty where nobody wrote them down.
        task_type: PEFT's name of what the module is for.
        one_tokenizer: whether they are for students that read the same tokens.
        states: (rows, width) the model's last hidden states beside them, in float16; None where nobody asked.
    """

    logits: Tensor
    text: Ints
    word: Ints
    labels: tuple[str, ...]
    task_type: str
    one_tokenizer: bool = False
    states: Tensor | None = None

    @property
    def kind(self) -> AnswerKind:
        """How they are given."""
        return kind_of(self.task_type, self.one_tokenizer)

    @property
    def judged(self) -> Tensor:
        """What of them is judged, (rows, columns): of language models the log-likelihoods alone."""
        return self.logits[:, :1] if self.kind.in_bits else self.logits

    def beside(self, other: Answers) -> tuple[Tensor, Tensor, Ints]:
        """Give the rows that both have: its own logits, the other's, and the number of the text of each."""
        mine, its = (_keys(answers) for answers in (self, other))
        _, here, there = np.intersect1d(mine, its, assume_unique=True, return_indices=True)
        return self.logits[torch.from_numpy(here)], other.logits[torch.from_numpy(there)], self.text[here]

    def at(self, text: Ints, word: Ints) -> tuple[Tensor, Ints]:
        """Give the numbers of its rows for some of (text, word), and which of them these are: those that it has."""
        asked, mine = text << 32 | word, _keys(self)
        place = np.minimum(np.searchsorted(mine, asked), len(mine) - 1)
        found = np.flatnonzero(mine[place] == asked)
        return torch.from_numpy(place[found]), found


def _keys(answers: Answers) -> Ints:
    return answers.text << 32 | answers.word


def answers_refused(module: Module) -> str:
    """Say why a module cannot be asked; empty where it can.

    It has no task head, one that was drawn at random, or one of a kind that cannot be asked.
    """
    task_type = str(module.config.get("task_type"))
    if task_type not in ANSWERS:
        return f"{module.source}: {unknown_choice('task type', task_type, ANSWERS)}"
    if not ANSWERS[task_type].has_head:
        return ""
    if head_rows(module.tensors) is None:
        return f"{module.source} has no task head, so it answers nothing; expected a module with its head"
    if module.head_is_random:
        return (
            f"the task head of {module.source} was drawn at random by a port, so its answers mean nothing; port it "
            "with its head (--head teacher)"
        )
    return ""


def answer_kind(module: Module) -> AnswerKind:
    """Say how a module answers.

    Raises:
        ModuleFileError: it cannot be asked, see `answers_refused`.
    """
    if refused := answers_refused(module):
        raise ModuleFileError(refused)
    return ANSWERS[module.config["task_type"]]


def labels_of(module: Module, base: Pretrained) -> tuple[str, ...]:
    """Name the labels that a module answers with, by its own files or its base model's; empty where nobody does."""
    return (module.labels or labels_of_base(module, base)) if answer_kind(module).has_labels else ()


def task_of(module: Module, base: Pretrained) -> Task:
    """Describe what a module was trained for as far as its own files say; labels without a name are numbered."""
    rows = head_rows(module.tensors) or 0
    names = labels_of(module, base) or tuple(f"LABEL_{row}" for row in range(rows))
    return Task("as trained", module.config["task_type"], ("text",), "label", names, ())


def tokenizer_of(base: Pretrained, kind: AnswerKind) -> Any:
    """Load the tokenizer of a model, set up for what a row is."""
    return base.tokenizer(**(base.family.word_options if kind.of == "words" else {}))


def ask(
    base: Pretrained,
    module: Module,
    texts: Sequence[Text],
    *,
    batch_size: int = 32,
    max_length: int = 256,
    head_alone: bool = False,
    hidden: bool = False,
    one_tokenizer: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Answers:
    """Ask a module what it makes of texts.

    Args:
        base: the model that it is for.
        module: the module, with its task head.
        texts: plain texts, or pairs of them where it was trained on pairs.
        batch_size: texts per batch; texts of like length share one.
        max_length: tokens after which a text is cut; what is cut has no row.
        head_alone: ask its task head on the bare model, what else the module holds is switched off; the bare model
            where no task head answers.
        hidden: keep the model's last hidden states beside its answers.
        one_tokenizer: ask it what students learn that read the same tokens, where its kind of answers has that.
        device: where to run; by default a GPU where there is one.
        progress: whether to draw a progress bar.

    Raises:
        ModuleFileError: a module that does not answer, or does not fit the model.
        TaskError: texts and pairs of texts mixed.
    """
    task = task_of(module, base)
    kind = kind_of(task.task_type, one_tokenizer)
    model = moved(attach(base, module, task), None, device).eval()
    if head_alone and not kind.has_head:
        model.base_model.disable_adapter_layers()
    elif head_alone:
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer):  # which a head that is saved whole is not
                layer.enable_adapters(False)
    elif kind.teaches is not None:
        kind = replace(kind, says=kind.teaches)
    run = answered(model, base, kind, texts, batch_size, max_length, hidden)
    batches = with_progress(run, "Answering", -(-len(texts) // batch_size), shown=progress)
    found = collected(batches, labels_of(module, base), task.task_type)
    return replace(found, one_tokenizer=one_tokenizer)


def collected(batches: Iterable[Answered], labels: tuple[str, ...], task_type: str) -> Answers:
    """Put together what `answered` gives, in the order of the texts."""
    logits, states, text, word = zip(*batches, strict=True)
    texts, words = np.concatenate(text), np.concatenate(word)
    order = np.lexsort((words, texts))
    rows = torch.from_numpy(order)
    hidden = None if states[0] is None else torch.cat(states)[rows]
    return Answers(torch.cat(logits)[rows], texts[order], words[order], labels, task_type, states=hidden)


def answered(
    model: Any,
    base: Pretrained,
    kind: AnswerKind,
    texts: Sequence[Text],
    batch_size: int,
    max_length: int,
    hidden: bool = False,
) -> Iterator[Answered]:
    """Run a model with its head over texts, batch by batch."""
    tokenizer = tokenizer_of(base, kind)
    order = sorted(range(len(texts)), key=lambda number: (len("".join(texts[number])), number))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        encoded, rows = kind.encode(tokenizer, [texts[number] for number in numbers], min(max_length, base.longest))
        inputs = {name: tensor.to(model.device) for name, tensor in encoded.items()}
        with torch.inference_mode():
            said, found = kind.asked(model, inputs, model if hidden else None)
        states = None if found is None else rows.take(found).float().clamp(-_LARGEST, _LARGEST).half().cpu()
        yield rows.take(said).float().cpu(), states, np.array(numbers, dtype=np.int64)[rows.text], rows.word
