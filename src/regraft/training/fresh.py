"""Modules of random weights that a training begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peft import LoraConfig, PeftConfig, get_peft_model

from ..errors import TaskError, unknown_choice
from ..models.pretrained import HEAD_CLASSES, Pretrained
from ..models.sites import find_sites
from ..modules.bottleneck import BottleneckConfig
from ..modules.module import Module
from ..modules.places import places_at
from ..tasks.records import Task
from .attachment import detach, with_head
from .options import TrainOptions


def _lora(base: Pretrained, size: TrainOptions, options: Mapping[str, Any]) -> PeftConfig:
    sites = base.family.sites
    targets: list[str] | str = [sites[site].rpartition(".")[2] for site in ("query", "value", "qkv") if site in sites]
    if size.sites is not None:
        there = find_sites(base.skeleton(HEAD_CLASSES[options["task_type"]]), base.family)
        targets = base.family.pattern_of(places_at(size.sites, "LORA", base, there, "--sites"))
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
        peft: ``"lora"`` (on query and value, if `options` say no other sites) or ``"bottleneck"``.
        options: its size, and where a LoRA is.

    Raises:
        TaskError: another `peft`, a model without a place for a bottleneck, or a site that it lacks.
    """
    if peft not in _FRESH:
        raise TaskError(unknown_choice("PEFT method", peft, _FRESH))
    # PEFT would leave out the first layer of DistilBERT's head.
    head = base.family.task_heads[HEAD_CLASSES[task.task_type]].modules if task.target else None
    return _FRESH[peft](base, options, {"task_type": task.task_type, "modules_to_save": head})


def fresh_module(base: Pretrained, task: Task, peft: str, options: TrainOptions) -> Module:
    """Draw a module, with a task head, that nothing has trained; arguments as for `fresh_config`.

    What is drawn follows PyTorch's seed.
    """
    model = get_peft_model(with_head(base, task), fresh_config(base, task, peft, options))
    return detach(model, base, f"a random {peft} module", {"labels": list(task.labels)})
