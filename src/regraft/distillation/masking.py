"""Texts for a distillation: those that are held out, their tokens, and their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding

from ..errors import ModelError, SamplingError
from ..seeding import generator

# This share of the texts, at least one and at most so many, is held out to evaluate on.
HELD_OUT, MOST_HELD_OUT = 0.05, 1000


def split(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Hold out some of the texts that are not blank; return those to train on, and those held out.

    Raises:
        SamplingError: there are not two.
    """
    texts = [text for text in texts if text.strip()]
    if len(texts) < 2:
        raise SamplingError(f"found {len(texts)} non-empty texts, expected some thousands, two at the very least")
    count = min(max(1, round(len(texts) * HELD_OUT)), MOST_HELD_OUT)
    held_out = set(torch.randperm(len(texts), generator=generator(seed, "held-out texts"))[:count].tolist())
    train = [text for i, text in enumerate(texts) if i not in held_out]
    return train, [texts[i] for i in sorted(held_out)]


def encode(texts: list[str], tokenizer: Any, max_length: int, masked: bool) -> Dataset:
    """Tokenize, and cut texts to `max_length` tokens; for masking, say which tokens are special."""
    options = {"truncation": True, "max_length": max_length, "return_token_type_ids": False}
    return Dataset.from_dict(dict(tokenizer(texts, return_special_tokens_mask=masked, **options)))


def collator(tokenizer: Any, mlm_probability: float | None, seed: int) -> Any:
    """Return what makes batches of encoded texts: it pads, and where there is a probability it masks.

    Raises:
        ModelError: there is a probability, and the tokenizer has no mask token.
    """
    if mlm_probability is None:
        return DataCollatorWithPadding(tokenizer)
    if tokenizer.mask_token is None:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path} has no mask token, expected one beside a masked language "
            "model; save the tokenizer with one there"
        )
    return SeededMasking(tokenizer, mlm_probability=mlm_probability, seed=seed)


class SeededMasking(DataCollatorForLanguageModeling):  # type: ignore[misc]
    """Mask tokens for a masked language model, depending on the seed and the batch's own tokens alone.

    So a resumed training masks as the uninterrupted one, and held-out batches, which are the same as long as their
    size is, are masked alike in every evaluation; the batches of a new epoch, shuffled anew, are masked anew (unless
    they are of one text).
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad and mask a batch."""
        self.generator = generator(self.seed, repr([example["input_ids"] for example in examples]))
        masked: dict[str, Any] = super().torch_call(examples)
        return masked
