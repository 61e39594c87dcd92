"""Rows with labels that a student learns from beside its teacher's answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from ..errors import ModuleFileError, TaskError
from ..files.texts import Text
from ..models.pretrained import Pretrained
from ..modules.module import Module
from ..seeding import generator
from ..tasks.data import Loaded
from ..tasks.kinds import KINDS
from ..training.labels import LabelOrder, known_order
from .order import drawn


@dataclass(frozen=True)
class LabelledRows:
    """Training rows of a task.

    Attributes:
        encoded: what a model takes, labels included.
        collate: makes a padded batch of encoded rows.
        order: the labels in the order of the student's head.
        count: how many rows they were before they were encoded.
    """

    encoded: Dataset
    collate: Any
    order: LabelOrder
    count: int

    def drawn(self, size: int, batches: int, seed: int) -> list[int]:
        """Draw the rows of so many batches by the seed alone, see `order.drawn`."""
        lengths = [len(tokens) for tokens in self.encoded["input_ids"]]
        return drawn(np.arange(len(lengths)), lengths, size, batches, generator(seed, "order of labelled rows"))

    def batch(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Make a batch of the rows with these numbers."""
        return dict(self.collate([self.encoded[number] for number in numbers]))


def labelled_rows(
    loaded: Loaded,
    labels: tuple[str, ...],
    teacher: Module,
    base: Pretrained,
    held_out: Collection[Text],
    max_length: int,
) -> LabelledRows:
    """Encode the training rows of a task for a student that learns from a teacher as well.

    Args:
        loaded: the task with its data.
        labels: those of the teacher's answers, in the order of the student's head; empty where nobody names them.
        teacher: the teacher's module, by which they are found then: the student's rows are learnt to be its rows.
        base: the student's base model.
        held_out: texts that the student is judged by; rows of them are left out.
        max_length: tokens after which a text is cut.

    Raises:
        ModuleFileError: the head is for other labels than the data have, or nothing says in which order they are.
        TaskError: rows that cannot be encoded, or none that is not held out.
    """
    if labels and not loaded.agrees(labels):
        raise ModuleFileError(
            f"{teacher.source} answers with the labels {', '.join(labels)}, the data have "
            f"{', '.join(loaded.task.labels)}, expected the same; give data of its task (--data, --task)"
        )
    order = LabelOrder(labels, "module") if labels else known_order(teacher, None, loaded, "transfer --teacher-labels")
    task, kind = loaded.ordered(order.labels).task, KINDS[loaded.task.task_type]
    rows, judged = loaded.splits["train"], set(held_out)
    rows = rows.select([place for place, row in enumerate(rows) if judged.isdisjoint(kind.texts(task, row))])
    if not len(rows):
        raise TaskError(
            f"all {len(loaded.splits['train'])} training rows of {loaded.source} are of held-out texts, expected "
            "others; give more rows (--data)"
        )
    tokenizer = base.tokenizer(**(base.family.word_options if kind.words else {}))
    encoded = kind.pack(task, rows, tokenizer, min(max_length, base.longest))
    return LabelledRows(encoded, kind.collator(tokenizer), order, len(rows))
