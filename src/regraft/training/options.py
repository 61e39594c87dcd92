"""How to train, and the sets of values that people start from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TaskError, unknown_choice
from ..models.families import HEADS
from ..tasks.records import Task
from .devices import PRECISIONS


@dataclass(frozen=True)
class Settings:
    """How to train. Every field that changes the outcome is here, and is written beside the result.

    Attributes:
        epochs: passes over the training split.
        batch_size: rows per step and device.
        learning_rate: peak of a linear schedule.
        warmup: share of the steps that warm up.
        length_grouped: whether batches are made of rows of similar length, which saves padding.
        precision: one of `precision.PRECISIONS`; ``"auto"`` is mixed precision where a GPU has it.
        seed: of the fresh weights, the order of the data and dropout.
        max_length: tokens after which an input is cut.
        max_train: how many training rows to use, all by default.
        max_eval: how many validation and test rows to use, all by default.
        rank: of a fresh LoRA.
        alpha: of a fresh LoRA.
        bottleneck_size: width of a fresh bottleneck.
        head: whether a start from a module keeps its task head (``"teacher"``) or draws one anew (``"fresh"``); by
            default it keeps a ported one whose label names are known and those of the task.
    """

    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.06
    length_grouped: bool = True
    precision: str = "auto"
    seed: int = 0
    max_length: int = 256
    max_train: int | None = None
    max_eval: int | None = None
    rank: int = 8
    alpha: int = 8
    bottleneck_size: int = 96
    head: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise TaskError(unknown_choice("precision", self.precision, PRECISIONS))
        check_numbers(self, "batch_size", "max_length", "max_train", "max_eval", "rank", "alpha", "bottleneck_size")
        if not 0 <= self.warmup < 1:
            raise TaskError(f"warmup is {self.warmup}, expected a share of the steps, from 0 to below 1")
        if self.head is not None and self.head not in HEADS:
            raise TaskError(unknown_choice("head", self.head, HEADS))


def check_numbers(settings: Any, *counts: str) -> None:
    """Refuse numbers that no training has: counts below 1, no epochs, a learning rate or a seed below 0.

    Args:
        settings: a record with ``epochs``, ``learning_rate`` and ``seed``.
        counts: names of its fields that are 1 or more, or None.

    Raises:
        TaskError: such a number.
    """
    for name in counts:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise TaskError(f"{name} is {value}, expected 1 or more")
    if not (settings.epochs > 0 and math.isfinite(settings.epochs)):
        raise TaskError(f"epochs is {settings.epochs}, expected a number above 0")
    if not (settings.learning_rate >= 0 and math.isfinite(settings.learning_rate)):
        raise TaskError(f"learning_rate is {settings.learning_rate}, expected 0 or more")
    if settings.seed < 0:
        raise TaskError(f"seed is {settings.seed}, expected 0 or more")


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


def preset(name: str, task: Task, **overrides: Any) -> Settings:
    """Return the settings of a preset.

    Args:
        name: ``"fast"`` (the defaults of `Settings`) or ``"paper"``.
        task: the paper trains some longer than others.
        overrides: values that replace the preset's; None leaves it.

    Raises:
        TaskError: an unknown preset.
    """
    if name not in PRESETS:
        raise TaskError(unknown_choice("preset", name, PRESETS))
    given = {key: value for key, value in overrides.items() if value is not None}
    return Settings(**{**PRESETS[name](task), **given})
