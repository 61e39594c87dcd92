"""How often a ported module gives its teacher's answers, worked out from what was seen of held-out texts.

No model runs for it: of both models the states that their task heads read are at hand, so that of one run of a student
every head can be judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from ..activations.batches import Batch
from ..activations.pairing import Encoding, Ints
from ..alignment.maps import Map
from ..errors import SamplingError
from ..models.pretrained import HEAD_CLASSES, Pretrained
from ..models.sites import PER_TEXT, SpacePair
from ..modules.config import PREFIX
from ..modules.module import Module
from ..modules.tensors import head_rows
from ..tasks.agreement import Agreement, agree
from .execution import transfer_tensors
from .plan import Plan

Read = tuple[Batch, Tensor, Tensor]
"""A batch of held-out texts, and what the teacher's head reads of it and what the student's does."""

NO_TEXTS = "there are no held-out texts to judge by, expected a tenth of the texts; give more"
# PEFT's task types whose answers can be laid side by side.
ANSWERING = ("TOKEN_CLS", "SEQ_CLS")


class TaskHead:
    """The task head of a model as the model's own class computes it, without the model."""

    def __init__(self, base: Pretrained, head_class: str, num_labels: int) -> None:
        """Build it without weights; arguments as for `Pretrained.skeleton`."""
        self._model = base.skeleton(head_class, num_labels).eval()
        self._below = _Below()
        setattr(self._model, self._model.base_model_prefix, self._below)
        config = self._model.config.get_text_config()
        if config.pad_token_id is None:  # decoders look for the last token before the padding
            config.pad_token_id = base.tokenizer().pad_token_id

    @property
    def keys(self) -> set[str]:
        """The keys of its tensors in a module."""
        return {PREFIX + name for name, _ in self._model.named_parameters()}

    def __call__(self, tensors: Mapping[str, Tensor], encoding: Encoding, states: Tensor, per_text: bool) -> Tensor:
        """Answer a batch.

        Args:
            tensors: a module's, with those of the head.
            encoding: the batch.
            states: what the head reads: (texts * tokens, d), or (texts, d) where `per_text`.
            per_text: whether that is one vector per text.

        Returns:
            (texts * tokens, labels) logits, or (texts, labels).
        """
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        hidden = states.reshape(len(encoding.ids), -1, states.shape[-1])
        self._below.gives = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden, pooler_output=states if per_text else None
        )
        own = {name: tensors[PREFIX + name].to(states) for name, _ in self._model.named_parameters()}
        inputs = {"input_ids": encoding.ids, "attention_mask": encoding.attention}
        batch = {name: torch.from_numpy(values).to(states.device) for name, values in inputs.items()}
        with torch.no_grad():
            logits: Tensor = functional_call(self._model, own, kwargs=batch, strict=False).logits
        return logits.flatten(0, -2).cpu()


class _Below(torch.nn.Module):
    """Stands for the bare model: gives what was seen of it."""

    gives: Any = None

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.gives


class Answers:
    """The answers of a module's task head, and those of what is ported of it.

    Attributes:
        space: the pair of spaces that the heads read.
    """

    def __init__(self, plan: Plan, module: Module, teacher: Pretrained, student: Pretrained, space: SpacePair) -> None:
        """Build both heads without weights."""
        self._task_type, labels = str(module.config["task_type"]), head_rows(module.tensors)
        assert labels is not None
        self.space, self._module, self._labels = space, module, plan.labels
        own = tuple(target for target in plan.targets if target.place is None and not target.shared)
        self._head = replace(plan, targets=own)
        rows = [part.rows for target in own for part in target.parts if part.rows is not None]
        # Of the teacher's labels those of the student, in its order.
        self._rows = list(rows[0]) if rows else list(range(labels))
        self._teacher = TaskHead(teacher, HEAD_CLASSES[self._task_type], labels)
        self._student = TaskHead(student, HEAD_CLASSES[self._task_type], len(self._rows))
        self._complete = self._teacher.keys <= module.tensors.keys() and self._student.keys <= {t.key for t in own}

    @classmethod
    def of(
        cls, plan: Plan, module: Module, teacher: Pretrained, student: Pretrained, heads: Collection[SpacePair]
    ) -> Answers | None:
        """Prepare for the head of a port; None where it has none, or one whose answers cannot be laid side by side."""
        if not heads or plan.head != "teacher" or module.config.get("task_type") not in ANSWERING:
            return None
        answers = cls(plan, module, teacher, student, *heads)
        return answers if answers._complete else None

    def agreement(self, maps: Mapping[SpacePair, Map], read: Iterator[Read]) -> Agreement:
        """Compare the answers.

        Args:
            maps: that of what the head reads.
            read: the held-out texts.

        Raises:
            SamplingError: there are none.
        """
        tensors = transfer_tensors(self._head, self._module.tensors, maps)
        found = [self._of_batch(tensors, *batch) for batch in read]
        if not found:
            raise SamplingError(NO_TEXTS)
        counts = [0, *np.cumsum([batch_texts for *_, batch_texts in found])]
        its, mine = (np.concatenate([batch[side] for batch in found]) for side in (0, 1))
        text = np.concatenate([batch[2] + first for batch, first in zip(found, counts, strict=False)])
        return agree(self._task_type, its, mine, text, self._labels)

    def _of_batch(
        self, tensors: Mapping[str, Tensor], batch: Batch, states_t: Tensor, states_s: Tensor
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], Ints, int]:
        """Give the rows of the teacher's answers, those of the student's, the text of each, and how many texts."""
        assert batch.held_out is not None
        per_text = self.space.name in PER_TEXT
        its = self._teacher(self._module.tensors, batch.teacher, states_t, per_text)[:, self._rows].numpy()
        mine = self._student(tensors, batch.student, states_s, per_text).numpy()
        count = batch.held_out.count
        if self._task_type != "TOKEN_CLS":
            return its, mine, np.arange(count), count
        # A trained head means something on the first piece of a word.
        words = np.flatnonzero(batch.held_out.begins)
        rows_t = batch.pairs.teacher_rows[np.searchsorted(batch.pairs.teacher_pair, words)]
        rows_s = batch.pairs.student_rows[np.searchsorted(batch.pairs.student_pair, words)]
        return its[rows_t], mine[rows_s], batch.held_out.of_pair.numpy()[words], count
