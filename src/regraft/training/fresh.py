"""Modules of random weights that a training begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peft import LoraConfig, PeftConfig

from ..errors import TaskError, unknown_choice
from ..models.pretrained import HEAD_CLASSES, Pretrained
from ..modules.bottleneck import BottleneckConfig
from ..tasks.records import Task
from .options import TrainOptions


def _lora(base: Pretrained, size: TrainOptions, options: Mapping[str, Any]) -> PeftConfig:
    sites = base.family.sites
    targets = [sites[site].rpartition(".")[2] for site in ("query", "value", "qkv") if site in sites]
    return LoraConfig(r=size.rank, lora_alpha=size.alpha, target_modules=targets, **options)


def _bottleneck(base: Pretrained, size: TrainOptions, options: Mapping[str, Any]) -> PeftConfig:
    if "output_norm" not in base.family.sites:
        raise TaskError(f"{base.name} ({base.config.model_type}) has no output LayerNorm for a bottleneck; use lora")
    return BottleneckConfig(bottleneck_size=size.bottleneck_size, **options)


_FRESH: Mapping[str, Callable[..., PeftConfig]] = {"bottleneck": _bottleneck, "lora": _lora}
PEFT_KINDS = tuple(_FRESH)


def fresh_config(base: Pretrained, task: Task, peft: str, options: TrainOptions) -> PeftConfig:
    """Configure a module that is trained from random weights.

    Args:
        base: the base model.
        task: says which head.
        peft: ``"lora"`` (on query and value) or ``"bottleneck"``.
        options: its size.

    Raises:
        TaskError: another `peft`, or a model without a place for a bottleneck.
    """
    if peft not in _FRESH:
        raise TaskError(unknown_choice("PEFT method", peft, _FRESH))
    # PEFT would leave out the first layer of DistilBERT's head.
    head = base.family.task_heads[HEAD_CLASSES[task.task_type]].modules if task.target else None
    return _FRESH[peft](base, options, {"task_type": task.task_type, "modules_to_save": head})
