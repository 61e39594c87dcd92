"""How to train, and the sets of values that people start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import Field

from ..errors import TaskError, unknown_choice
from ..schema import Count, Length, Names, Options, Seed, Size
from ..tasks.records import Task

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class StepOptions(Options):
    """What every training has. Whatever changes the outcome is a field, and is written beside the result."""

    batch_size: Count = 32
    """Rows per step and device."""
    learning_rate: float = Field(default=1e-3, ge=0, le=1e3)
    """Peak of a linear schedule."""
    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps that warm up."""
    precision: Precision = "auto"
    """auto, float32, bfloat16, float16."""
    seed: Seed = 0
    """Of all that is random."""
    max_length: Length = 256
    """Tokens after which a text is cut."""


class LearningOptions(StepOptions):
    """What every training has that passes over its data some times."""

    epochs: float = Field(default=3.0, gt=0, le=1e6)
    """Passes over the training data."""


class TrainOptions(LearningOptions):
    """How to fine-tune a module."""

    length_grouped: Annotated[bool, Parameter(negative="--shuffled")] = True
    """Batch similar lengths."""
    max_train: Count | None = None
    """Use so many training rows."""
    max_eval: Count | None = None
    """Use so many validation and test rows."""
    rank: Size = 8
    """Rank of a fresh LoRA."""
    alpha: Size = 8
    """Alpha of a fresh LoRA."""
    sites: Names = Field(default=None, min_length=1)
    """LoRA's sites: all-linear or A,B. [query,value]"""
    bottleneck_size: Size = 96
    """Width of a fresh bottleneck."""
    head: Literal["teacher", "fresh"] | None = None
    """Head of --init: teacher (if it fits), fresh"""


class EvaluateOptions(Options):
    """How to score a module."""

    batch_size: Count = 32
    """Rows per batch."""
    max_length: Length = 256
    """Tokens after which a text is cut."""
    max_eval: Count | None = None
    """Score so many rows."""


def _paper(task: Task) -> dict[str, Any]:
    """Return what Klimaszewski et al. (LREC-COLING 2024) state; they name no warm-up."""
    return {
        "epochs": float(task.paper_epochs),
        "batch_size": 64,
        "learning_rate": 1e-5,
        "warmup": 0.0,
        "length_grouped": False,
        "precision": "float32",
        "rank": 8,
        "alpha": 8,
        "bottleneck_size": 96,
        "head": "fresh",
    }


PRESETS: Mapping[str, Callable[[Task], dict[str, Any]]] = {"fast": lambda _: {}, "paper": _paper}


def preset(name: str, task: Task) -> TrainOptions:
    """Return the values of a preset, to be put under what the user says: ``options.over(preset(name, task))``.

    Args:
        name: ``"fast"`` (the defaults of `TrainOptions`) or ``"paper"``.
        task: the paper trains some longer than others.

    Raises:
        TaskError: an unknown preset.
    """
    if name not in PRESETS:
        raise TaskError(unknown_choice("preset", name, PRESETS))
    return TrainOptions(**PRESETS[name](task))
