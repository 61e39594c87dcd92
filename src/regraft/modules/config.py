"""The PEFT configuration of a student's module, and the tensors that PEFT then expects, asked of PEFT itself."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from peft.utils.other import get_pattern_key

from ..errors import ModuleFileError, unknown_choice
from ..models.pretrained import HEAD_CLASSES, Pretrained
from .axes import Free
from .peft_types import PEFT_TYPES


def plain_config(config: PeftConfig, base: Pretrained) -> dict[str, Any]:
    """Turn a configuration into what PEFT writes of it to a file."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    plain |= modules_to_save_once(plain)
    return {**plain, "peft_type": PeftType(config.peft_type).value, "base_model_name_or_path": base.name}


CONVERT = "convert it to LoRA first (regraft convert MODULE --to lora --rank R)"
PREFIX = "base_model.model."
"""What PEFT puts before the paths of a model's own modules."""


def check_portable(config: Mapping[str, Any], source: str) -> None:
    """Refuse methods and options that regraft does not port, by name.

    Args:
        config: PEFT's configuration.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: with the option and the reason.
    """
    method = PEFT_TYPES.get(str(config.get("peft_type")))
    if method is None:
        raise ModuleFileError(
            f"{source} is a {config.get('peft_type')} module, expected one of {', '.join(sorted(PEFT_TYPES))}; "
            f"where it changes linear layers, {CONVERT}"
        )
    if config["peft_type"] not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ModuleFileError(
            f"{source} is of type {config['peft_type']}, which the installed PEFT {version('peft')} does not know; "
            "upgrade it (pip install -U peft)"
        )
    for option, reason in method.refused.items():
        if config.get(option):
            raise ModuleFileError(f"{source} uses {option}, which cannot be ported: {reason}")
    if config.get("bias", "none") != "none":
        raise ModuleFileError(
            f"{source} trains biases of the base model (bias={config['bias']!r}), which cannot be "
            "ported; train with bias='none'"
        )
    init = str(config.get(method.init)).lower()
    if init.startswith(method.refused_inits):
        raise ModuleFileError(
            f"{source} was initialised with {init!r}, which changes the base weights too; "
            "convert it to plain LoRA first (PEFT: save_pretrained(path_initial_model_for_weight_conversion=...))"
        )


def head_class_of(
    config: Mapping[str, Any], source: str, before: str = "", causal: bool = False, has_head: bool = False
) -> str:
    """Tell how the class of a module's base model ends: from its task type, the class that PEFT noted, or its keys.

    Args:
        config: PEFT's configuration.
        source: what to call the module in messages.
        before: what stands before the path of the layers in its keys: empty where the base model was the bare one.
        causal: whether the family's language models are causal.
        has_head: whether it holds a task head.

    Raises:
        ModuleFileError: a task type without a class, or nothing that tells the class.
    """
    task_type = config.get("task_type")
    if task_type:
        if task_type not in HEAD_CLASSES:
            raise ModuleFileError(f"{source}: {unknown_choice('task type', task_type, HEAD_CLASSES)}")
        return HEAD_CLASSES[task_type]
    base_class = (config.get("auto_mapping") or {}).get("base_model_class", "")
    if match := re.search(r"For[A-Z]\w*$", base_class):
        return match[0]
    if base_class.endswith("LMHeadModel"):
        return "ForCausalLM"
    if before and has_head:
        raise ModuleFileError(
            f"{source} holds a task head and does not say of what task; write its task_type into adapter_config.json: "
            f"one of {', '.join(HEAD_CLASSES)}"
        )
    if before:  # the class is one with a head that the module leaves alone; its keys are those of a language model's
        return "ForCausalLM" if causal else "ForMaskedLM"
    return ""


def with_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add the size and the alpha that PEFT takes where a configuration leaves them out."""
    method, config_class = PEFT_TYPES[config["peft_type"]], PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]]
    return {**{option: getattr(config_class, option) for option in (method.size, method.alpha) if option}, **config}


def alpha_at(config: Mapping[str, Any], path: str) -> float:
    """Tell the alpha of the module at a path; 0 for a PEFT type without."""
    method = PEFT_TYPES[config["peft_type"]]
    alpha: float = _at(config, path, method.alpha, method.alpha_pattern)
    return alpha


def size_at(config: Mapping[str, Any], path: str) -> int:
    """Tell the size of the module at a path by its options; 0 for a PEFT type without."""
    method = PEFT_TYPES[config["peft_type"]]
    size: int = _at(config, path, method.size, method.size_pattern)
    return size


def _at(config: Mapping[str, Any], path: str, option: str, pattern: str) -> Any:
    """Tell an option of the module at a path, where a pattern may say it otherwise; 0 without such an option."""
    if not option:
        return 0
    patterns = config.get(pattern) or {}
    return patterns.get(get_pattern_key(list(patterns), path), with_sizes(config)[option])


def modules_to_save_once(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name each module to save once: PEFT adds the names of heads over and over."""
    names = config.get("modules_to_save")
    return {"modules_to_save": sorted(set(names))} if names else {}


def parse_config(config: Mapping[str, Any]) -> PeftConfig:
    """Make PEFT's configuration object of the content of ``adapter_config.json``."""
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]]
    # PEFT writes into the lists of a configuration.
    parsed: PeftConfig = config_class.from_peft_type(**config_class.check_kwargs(**copy.deepcopy(dict(config))))
    return parsed


def expected_tensors(config: Mapping[str, Any], skeleton: Any) -> dict[str, tuple[int, ...]]:
    """Ask PEFT which tensors it expects of a module with this configuration: key -> shape.

    Args:
        config: a PEFT configuration as in ``adapter_config.json``.
        skeleton: the base model without weights; PEFT's layers are put into it.
    """
    method = PEFT_TYPES[config["peft_type"]]
    # Masks pick values, of which a skeleton has none; so their sizes are filled in afterwards.
    masks = (config.get(method.size_pattern) or {}) if method.size_mask else {}
    asked = {**config, method.size_pattern: None} if masks else config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the skeleton has no name, which PEFT remarks on
        model = get_peft_model(skeleton, parse_config(asked), low_cpu_mem_usage=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    for name, mask in masks.items():
        for role in method.rows["linear"]:
            key = f"{PREFIX}{name.removesuffix(method.size_mask)}{role.suffix}"
            sizes = zip(role.axes, shapes[key], strict=True)
            shapes[key] = tuple(sum(mask) if isinstance(axis, Free) else size for axis, size in sizes)
    return shapes
