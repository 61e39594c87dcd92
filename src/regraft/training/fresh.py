"""Modules that training begins with."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model

from ..errors import TaskError, unknown_choice
from ..models.pretrained import HEAD_CLASSES, BaseModel
from ..modules.bottleneck import BottleneckConfig
from ..tasks.records import Task
from .attachment import _with_head
from .options import PEFT_KINDS, TrainOptions


def fresh_config(base: BaseModel, task: Task, peft: str, options: TrainOptions) -> PeftConfig:
    """Configure a module that is trained from random weights.

    Args:
        base: the base model.
        task: says which head.
        peft: ``"lora"`` (on query and value) or ``"bottleneck"``.
        options: its size.

    Raises:
        TaskError: another `peft`, or a model without a place for a bottleneck.
    """
    family = base.family
    # PEFT would leave out the first layer of DistilBERT's head.
    common: dict[str, Any] = {
        "task_type": task.task_type,
        "modules_to_save": family.heads[HEAD_CLASSES[task.task_type]].modules,
    }
    if peft == "lora":
        targets = [family.sites[site].rpartition(".")[2] for site in ("query", "value")]
        return LoraConfig(r=options.rank, lora_alpha=options.alpha, target_modules=targets, **common)
    if peft == "bottleneck" and "output_norm" in family.sites:
        return BottleneckConfig(bottleneck_size=options.bottleneck_size, **common)
    if peft == "bottleneck":
        raise TaskError(f"{base.name} ({base.config.model_type}) has no output LayerNorm for a bottleneck; use lora")
    raise TaskError(unknown_choice("PEFT method", peft, PEFT_KINDS))


def fresh_module(base: BaseModel, task: Task, peft: str, options: TrainOptions) -> PeftModel:
    """Put a module of random weights, and a fresh task head, on a base model; arguments as for `fresh_config`.

    Raises:
        TaskError: as `fresh_config`.
        ModelError: a checkpoint that lacks weights which the head reads.
    """
    config = fresh_config(base, task, peft, options)
    return get_peft_model(_with_head(base, task), config)
