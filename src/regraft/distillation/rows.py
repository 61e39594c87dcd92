"""Rows of answers: what of a text a model answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The answers that a batch of texts has.

    Attributes:
        text: (rows,) the number of the text in the batch.
        word: (rows,) what in the text is answered: the number of a word, the place where a token ends, 0 for a whole
            text.
        token: (rows,) where among what is said of the text the answer is: the number of a token, or of a word where
            words are what is said; None where the model answers for the whole text.
    """

    text: Ints
    word: Ints
    token: Ints | None

    def take(self, answers: Tensor) -> Tensor:
        """Take the rows, (rows, labels), of what a model gives for the batch."""
        return answers if self.token is None else answers[torch.from_numpy(self.text), torch.from_numpy(self.token)]


def halved(logits: Tensor) -> dict[str, Tensor]:
    """Take (rows, labels) answers to a file: logits in float16, where there is one number for a row as it is."""
    largest = torch.finfo(torch.float16).max
    numbers = logits.shape[1] == 1
    return {"logits": logits if numbers else logits.clamp(-largest, largest).half()}


def whole(tensors: Mapping[str, Tensor]) -> Tensor:
    """Take answers from a file."""
    return tensors["logits"].float()
