"""The Trainer of language models."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer

from ..tasks.encoding import IGNORED

# How many logits to have at once, in half a gigabyte: vocabularies are large.
_LOGITS = 1 << 27


class LanguageTrainer(Trainer):  # type: ignore[misc]
    """Train a language model; of what it says when it is scored, keep a number for each row and no logits."""

    def __init__(self, **options: Any) -> None:
        """Take options of the Trainer."""
        super().__init__(**options)
        self.label_names = ["labels", "bytes"]

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[None, Tensor, Tensor]:
        """Score a batch.

        Returns:
            Nothing; minus the log-likelihood of each row, (rows,) in nats; and how many tokens that is of, beside the
            column ``bytes``, (rows, 2).
        """
        batch = self._prepare_inputs(inputs)
        tokens, attended, labels = (batch[name] for name in ("input_ids", "attention_mask", "labels"))
        at_once = rows_at_once(self.model, tokens.shape[1])
        parts = zip(*(column.split(at_once) for column in (tokens, attended, labels)), strict=True)
        with torch.no_grad():
            nats = torch.cat(
                [token_losses(model(input_ids=ids, attention_mask=mask).logits, own).sum(1) for ids, mask, own in parts]
            )
        return None, nats, torch.stack([(labels[:, 1:] != IGNORED).sum(1), batch["bytes"]], dim=1)


def rows_at_once(model: Any, length: int) -> int:
    """Say of how many rows of so many tokens a language model may give its logits at once."""
    vocabulary: int = model.config.get_text_config().vocab_size
    return max(1, _LOGITS // (length * vocabulary))


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the log-likelihood of each token but the first, given those before it.

    Args:
        logits: (rows, tokens, vocabulary).
        labels: (rows, tokens), `IGNORED` where nothing is to be predicted; the loss is 0 there.

    Returns:
        (rows, tokens - 1), in nats.
    """
    targets = labels[:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    return losses.view(targets.shape)
