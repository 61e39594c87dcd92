"""How to distill."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import TaskError, unknown_choice
from ..training.devices import PRECISIONS
from ..training.options import check_numbers


@dataclass(frozen=True)
class Settings:
    """How to distill. Every field that changes the outcome is here, and is written beside the result.

    The weights of the first three losses are those of DistilBERT's released script; they are for teachers with a
    language-model head. Of the others, only the hidden states are matched, with the last two.

    Attributes:
        epochs: passes over the texts.
        max_steps: stop after this many steps, whatever `epochs` says.
        batch_size: texts per step and device.
        learning_rate: peak of a linear schedule.
        warmup: share of the steps that warm up.
        seed: of which texts are held out, of masks, the order of the texts and dropout.
        max_length: tokens after which a text is cut; what follows is not read.
        temperature: that softens both models' predictions.
        weight_kl: of the divergence from the teacher's predictions.
        weight_lm: of the language model's own loss.
        weight_cosine: of the angle between the last hidden states.
        weight_hidden: of the distance from the teacher's hidden states, layer by layer.
        mlm_probability: share of the tokens that a masked language model has to predict.
        precision: one of `precision.PRECISIONS`; ``"auto"`` is mixed with bfloat16, or else float16, where a GPU can,
            and float32 elsewhere. Weights are float32 always.
        save_every: steps from one checkpoint, and evaluation, to the next.
    """

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 5e-4
    warmup: float = 0.06
    seed: int = 0
    max_length: int = 128
    temperature: float = 2.0
    weight_kl: float = 5.0
    weight_lm: float = 2.0
    weight_cosine: float = 1.0
    weight_hidden: float = 1.0
    mlm_probability: float = 0.15
    precision: str = "auto"
    save_every: int = 500

    def __post_init__(self) -> None:
        check_numbers(self, "max_steps", "batch_size", "max_length", "save_every")
        if self.precision not in PRECISIONS:
            raise TaskError(unknown_choice("precision", self.precision, PRECISIONS))
