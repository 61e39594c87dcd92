"""How a language model goes on from tokens, many texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig


def own_ends(model: Any, end: int) -> list[int]:
    """Give the tokens that a model ends a text with: those that it names, by default `end`."""
    own = model.generation_config.eos_token_id
    return [end] if own is None else [own] if isinstance(own, int) else list(own)


def go_on(
    model: Any, beginnings: Sequence[list[int]], ends: Sequence[int], pad: int, **settings: Any
) -> list[list[int]]:
    """Let a model write on until it ends the texts.

    Args:
        model: a causal language model.
        beginnings: tokens of each text, one at least.
        ends: tokens that end a text.
        pad: token for padding, on the left, where nothing reads it.
        settings: of transformers' GenerationConfig, such as ``max_length``, padding included. What is not said has its
            default there, whatever the model's own settings are.

    Returns:
        The tokens that it wrote, without the end.
    """
    model.generation_config = GenerationConfig(**settings, min_new_tokens=1, eos_token_id=[*ends], pad_token_id=pad)
    width = max(map(len, beginnings))
    ids = torch.tensor([[pad] * (width - len(one)) + one for one in beginnings], device=model.device)
    attended = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in beginnings], device=model.device)
    with torch.inference_mode():
        found = model.generate(input_ids=ids, attention_mask=attended)[:, width:].tolist()
    return [row[: next((at for at, token in enumerate(row) if token in ends), len(row))] for row in found]
