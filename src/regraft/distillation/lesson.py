"""What a student learns from: texts, the teacher's answers to them, and which of them it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..alignment.moments import Moments
from ..errors import SamplingError, TaskError, TrainingDivergedError
from ..files.texts import Text
from ..models.pretrained import Pretrained
from ..seeding import generator
from ..tasks.agreement import Agreement, agree, one_answer
from ..tasks.records import Task
from .answer_kinds import AnswerKind, Distance
from .answers import Answers, answered, collected, tokenizer_of
from .hidden import HiddenDistance
from .labelled import LabelledRows
from .likelihood import changes, weighed_by_changes
from .options import RefineOptions
from .order import drawn
from .rows import Ints

# A tenth of the texts is held out to judge by; so many at least, as many as are left to learn from, and at most.
_HELD_OUT, _FEWEST, _MOST = 0.1, 20, 1000


def distinct(texts: Sequence[Text]) -> list[Text]:
    """Leave out texts that are blank, and those that occur before: a text that is learnt says nothing when held out."""
    return list(dict.fromkeys(text for text in texts if "".join(text).strip()))


def held_out_texts(count: int, seed: int) -> Ints:
    """Choose texts to judge by: their numbers, ascending.

    Args:
        count: how many texts there are.
        seed: of the choice.

    Raises:
        SamplingError: there are too few.
    """
    if count < 2 * _FEWEST:
        raise SamplingError(
            f"found {count} texts, each counted once, expected some hundred, {2 * _FEWEST} at the very least: "
            f"{_FEWEST} are held out to judge by; give more texts"
        )
    chosen = torch.randperm(count, generator=generator(seed, "held-out texts"))
    return np.sort(chosen[: min(max(round(count * _HELD_OUT), _FEWEST), _MOST)].numpy())


@dataclass(frozen=True)
class Lesson:
    """What is learnt, and what it is judged by.

    Attributes:
        texts: plain texts, or pairs of them.
        answers: the teacher's to all texts, the columns in the order of the student's head.
        held_out: numbers of the texts to judge by.
        max_length: tokens after which a text is cut.
        batch_size: texts per batch, and labelled rows beside them.
        labelled: rows with labels to learn from as well; None where there are none.
        limit: learn from so many texts, the first; None from all.
        bridge: takes what the student says to what the teacher says, see `bridged`; None where nothing has to.
        hidden: the distance of last hidden states, see `bridged`; None where these are not learnt.
    """

    texts: Sequence[Text]
    answers: Answers
    held_out: Ints
    max_length: int
    batch_size: int
    labelled: LabelledRows | None = None
    limit: int | None = None
    bridge: Callable[[Tensor], Tensor] | None = None
    hidden: HiddenDistance | None = None

    @property
    def kind(self) -> AnswerKind:
        """How both models answer."""
        return self.answers.kind

    def distance(self, options: RefineOptions) -> Distance:
        """Give the loss.

        Args:
            options: how rows are compared and weighed; changes are in units of their mean over the teacher's rows.
        """
        answers, text = self.answers.logits, torch.from_numpy(self.answers.text)
        distance = self.kind.distance(answers, options.temperature, options.hard, options.certainty)
        if not options.weigh_changes:
            return distance
        return weighed_by_changes(distance, float(changes(answers[:, :1], answers[:, -1:], text).abs().mean()))

    @property
    def learnt(self) -> Ints:
        """Numbers of the texts to learn from."""
        return np.setdiff1d(np.arange(len(self.texts)), self.held_out)[: self.limit]

    def drawn(self, batches: int, seed: int) -> list[int]:
        """Draw the texts of so many batches by the seed alone, see `order.drawn`."""
        lengths = [len("".join(text)) for text in self.texts]
        return drawn(self.learnt, lengths, self.batch_size, batches, generator(seed, "order of texts"))

    def examples(self, batches: int, seed: int) -> dict[str, list[int]]:
        """Draw what each step takes: the ``number`` of a text and, beside it, of a labelled ``row``."""
        texts = {"number": self.drawn(batches, seed)}
        return texts if self.labelled is None else {**texts, "row": self.labelled.drawn(self.batch_size, batches, seed)}

    @property
    def task(self) -> Task:
        """Describe what is learnt as far as it is known; labels without a name are numbered."""
        task_type: Any = self.answers.task_type
        numbered = tuple(f"LABEL_{row}" for row in range(self.answers.judged.shape[1]))
        return Task("as taught", task_type, ("text",), "label", self.answers.labels or numbered, ())

    def check(self, teacher: str) -> str:
        """Check that the teacher has opinions to learn, and some to judge by.

        Args:
            teacher: what to call it.

        Returns:
            What agreement with it is measured in.

        Raises:
            TaskError: it gives one answer to all texts, or none at all.
        """
        logits, labels = self.answers.judged, self.answers.labels
        task_type, text = self.answers.task_type, self.answers.text
        judged = np.isin(text, self.held_out)
        for rows, count, which in (
            (np.ones_like(judged), len(self.texts), "texts"),
            (judged, len(self.held_out), "held-out texts"),
        ):
            some = logits[torch.from_numpy(rows)].numpy()
            if not len(some):
                raise TaskError(f"{teacher} has no answer to any of the {count} {which}; give texts of words")
            if one_answer(task_type, some, text[rows]):
                label = f" ({labels[int(some[0].argmax())]})" if labels and some.shape[1] > 1 else ""
                raise TaskError(
                    f"{teacher} gives one answer{label} to all of the {count} {which}, so there is nothing to learn; "
                    "give more texts, of the kind that it was trained on"
                )
        return agree(task_type, some, some, text[judged], labels).metric

    @property
    def learnt_beside(self) -> Ints:
        """Numbers of some of the texts to learn from, as many as are held out, spread over all."""
        every = np.linspace(0, len(self.learnt) - 1, min(len(self.held_out), len(self.learnt)))
        return self.learnt[every.astype(np.int64)]

    def agreement(self, model: Any, base: Pretrained, numbers: Ints | None = None) -> Agreement:
        """Compare a model's answers with the teacher's.

        Args:
            model: what answers.
            base: its base model.
            numbers: of the texts to answer, by default those that are held out.

        Raises:
            TaskError: the two answer no word in common, or the model's answers are no numbers.
        """
        task_type = self.answers.task_type
        student, teacher, text = self._beside(model, base, self.held_out if numbers is None else numbers)
        if self.bridge is not None:
            student = self.bridge(student)
        if not student.isfinite().all():
            raise TrainingDivergedError("the training diverged; use a lower learning rate (--learning-rate)")
        return agree(task_type, teacher.numpy(), student.numpy(), text, self.answers.labels)

    def bridged(self, model: Any, base: Pretrained) -> Lesson:
        """Fit what takes a model's answers, where their kind needs it, or its last hidden states to the teacher's.

        It is fitted to the texts to learn from and fixed from then on, so that what is learnt is the model's.
        """
        if self.kind.bridge is not None:
            return replace(self, bridge=self.kind.bridge(*self._beside(model, base, self.learnt)[:2]))
        if self.answers.states is not None:
            return replace(self, hidden=HiddenDistance.fitted(self._moments(model, base, self.answers.states)))
        return self

    def _moments(self, model: Any, base: Pretrained, of_teacher: Tensor) -> Moments:
        """Take the moments of the last hidden states of both models, on the texts to learn from."""
        texts = [self.texts[number] for number in self.learnt]
        total: Moments | None = None
        for _, states, text, word in answered(
            model, base, self.kind, texts, self.batch_size, self.max_length, hidden=True
        ):
            assert states is not None
            there, here = self.answers.at(self.learnt[text], word)
            some = Moments.of(states[torch.from_numpy(here)].float(), of_teacher[there].float(), full=True)
            total = some if total is None else total + some
        assert total is not None
        return total

    def _beside(self, model: Any, base: Pretrained, numbers: Ints) -> tuple[Tensor, Tensor, Ints]:
        """Ask a model some of the texts; its answers, the teacher's to the same, and the numbers of their texts."""
        texts = [self.texts[number] for number in numbers]
        batches = answered(model, base, self.kind, texts, self.batch_size, self.max_length)
        found = collected(batches, self.answers.labels, self.answers.task_type)
        return replace(found, text=numbers[found.text]).beside(replace(self.answers, logits=self.answers.judged))


class LessonCollator:
    """Make batches of texts, with the teacher's answers to those rows that the student has as well.

    ``answers`` are (rows, labels), ``answers_text`` and ``answers_token`` say whose they are, ``answers_states`` are
    the teacher's last hidden states beside them. Where there are labelled rows, ``labelled`` is a batch of them.
    """

    def __init__(self, lesson: Lesson, base: Pretrained) -> None:
        self.lesson, self.kind = lesson, lesson.kind
        self.tokenizer, self.max_length = tokenizer_of(base, self.kind), min(lesson.max_length, base.longest)

    def __call__(self, examples: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """Encode the texts, and the labelled rows, with these numbers."""
        numbers = np.array([example["number"] for example in examples], dtype=np.int64)
        texts = [self.lesson.texts[number] for number in numbers]
        encoded, rows = self.kind.encode(self.tokenizer, texts, self.max_length)
        answers = self.lesson.answers
        there, found = answers.at(numbers[rows.text], rows.word)
        batch: dict[str, Any] = {
            **encoded,
            "answers": answers.logits[there],
            "answers_text": torch.from_numpy(rows.text[found]),
        }
        if answers.states is not None:
            batch["answers_states"] = answers.states[there]
        if rows.token is not None:
            batch["answers_token"] = torch.from_numpy(rows.token[found])
        if self.lesson.labelled is not None:
            batch["labelled"] = self.lesson.labelled.batch([example["row"] for example in examples])
        return batch
