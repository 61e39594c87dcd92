"""The Trainer that distills: a student learns from its teacher's outputs on the same batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from .losses import IGNORED, cosine_distance, divergence, hidden_distance, language_model, mean_over


class Distiller(Trainer):  # type: ignore[misc]
    """Train a student on weighted losses against a teacher; evaluation reports each of them."""

    def __init__(
        self, teacher: Any, weights: Mapping[str, float], temperature: float, matched: Sequence[int], **options: Any
    ) -> None:
        """Take a teacher, and what to learn from it.

        Args:
            teacher: a model of the student's class.
            weights: of the losses ``kl``, ``lm``, ``cosine`` and ``hidden``; those that are not named are not computed.
            temperature: of ``kl``.
            matched: for each student layer the teacher's hidden state it is to match in ``hidden``.
            options: of the Trainer; the model is the student.
        """
        super().__init__(compute_metrics=self._averages, **options)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over this batch, whatever the model could do
        teacher.config.use_cache = False
        self.teacher = self.accelerator.prepare_model(teacher.requires_grad_(False).eval(), evaluation_mode=True)
        self.weights, self.temperature, self.matched = weights, temperature, matched
        self.reported = (*weights, "teacher_lm") if "lm" in weights else tuple(weights)

    def compute_loss(self, model: Any, inputs: Mapping[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Sum the weighted losses of a batch."""
        losses = self._losses(model, inputs)
        return torch.stack([weight * mean_over(*losses[name]) for name, weight in self.weights.items()]).sum()

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[None, Tensor, Tensor]:
        """Return each loss of each text as a sum over tokens and the number of these tokens, (texts, losses) each."""
        with torch.no_grad():
            losses = self._losses(model, self._prepare_inputs(inputs))
        pairs = [losses[name] for name in self.reported]
        sums = torch.stack([values.masked_fill(~tokens, 0).sum(1) for values, tokens in pairs], dim=1)
        return None, sums, torch.stack([tokens.sum(1) for _, tokens in pairs], dim=1)

    def _losses(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for each loss its (texts, tokens) values, and which of them count."""
        batch = {name: value for name, value in inputs.items() if name != "labels"}
        with torch.no_grad():
            expected = self.teacher(**batch, output_hidden_states=True)
        outputs = model(**batch, output_hidden_states=True)
        attended = batch["attention_mask"].bool()
        mine, its = outputs.hidden_states, expected.hidden_states
        losses = {"cosine": (cosine_distance(mine[-1], its[-1]), attended)}
        if "hidden" in self.weights:
            losses["hidden"] = (hidden_distance(mine[1:], [its[state] for state in self.matched]), attended)
        if "kl" in self.weights:
            losses["kl"] = (divergence(outputs.logits, expected.logits, self.temperature), attended)
        if "lm" in self.weights:
            labels = inputs["labels"] if "labels" in inputs else _next_tokens(batch["input_ids"], attended)
            losses["lm"] = (language_model(outputs.logits, labels), labels != IGNORED)
            if not model.training:
                losses["teacher_lm"] = (language_model(expected.logits, labels), labels != IGNORED)
        return losses

    def _averages(self, outputs: Any) -> dict[str, float]:
        sums, counts = outputs.predictions.sum(0, dtype="float64"), outputs.label_ids.sum(0)
        averages = dict(zip(self.reported, (sums / counts.clip(min=1)).tolist(), strict=True))
        return {"loss": sum(weight * averages[name] for name, weight in self.weights.items()), **averages}


def _next_tokens(tokens: Tensor, attended: Tensor) -> Tensor:
    """What a causal model is to predict at each token: the next one, where both are attended."""
    labels = torch.full_like(tokens, IGNORED)
    both = attended[:, 1:] & attended[:, :-1]
    labels[:, :-1] = tokens[:, 1:].masked_fill(~both, IGNORED)
    return labels
