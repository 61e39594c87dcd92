"""The PEFT configuration of a student's module, and the tensors that PEFT then expects, asked of PEFT itself."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from peft.utils.other import get_pattern_key

from ..errors import ModuleFileError, unknown_choice
from ..models.pretrained import HEAD_CLASSES, BaseModel
from .peft_types import PEFT_TYPES


def plain_config(config: PeftConfig, base: BaseModel) -> dict[str, Any]:
    """Turn a configuration into what PEFT writes of it to a file."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    plain |= modules_to_save_once(plain)
    return {**plain, "peft_type": PeftType(config.peft_type).value, "base_model_name_or_path": base.name}


PREFIX = "base_model.model."
"""What PEFT puts before the paths of a model's own modules."""
# Why a module with the option would be wrong elsewhere.
_REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA's magnitudes are relative to the teacher's base weights",
    "layer_replication": "replicated layers have no counterpart",
    "target_parameters": "bare parameters are no sites",
    "trainable_token_indices": "token embeddings are tied to the teacher's vocabulary",
    "megatron_config": "Megatron's layers are split across devices",
    "use_qalora": "QA-LoRA's matrices act on groups of the teacher's quantised inputs",
    "use_bdlora": "BD-LoRA's matrices are blocks of the teacher's dimensions",
    "kasa_config": "KaSA changes the base weights too",
    "alora_invocation_tokens": "the tokens that switch it on are the teacher's vocabulary",
    "arrow_config": "it routes between several modules",
    "monteclora_config": "its matrices are samples of a distribution",
}
# Initialisations that also change the base weights, so that the module alone is not what was trained.
_REFUSED_INITS = ("pissa", "olora", "loftq", "corda", "lora_ga", "mica")


def check_portable(config: Mapping[str, Any], source: str) -> None:
    """Refuse methods and options that regraft does not port, by name.

    Args:
        config: PEFT's configuration.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: with the option and the reason.
    """
    if config.get("peft_type") not in PEFT_TYPES:
        raise ModuleFileError(
            f"{source} is a {config.get('peft_type')} module, expected one of {', '.join(PEFT_TYPES)}"
        )
    for option, reason in _REFUSED.items():
        if config.get(option):
            raise ModuleFileError(f"{source} uses {option}, which cannot be ported: {reason}")
    if config.get("bias", "none") != "none":
        raise ModuleFileError(
            f"{source} trains biases of the base model (bias={config['bias']!r}), which cannot be "
            "ported; train with bias='none'"
        )
    init = str(config.get("init_lora_weights", True)).lower()
    if init.startswith(_REFUSED_INITS):
        raise ModuleFileError(
            f"{source} was initialised with {init!r}, which changes the base weights too; "
            "convert it to plain LoRA first (PEFT: save_pretrained(path_initial_model_for_weight_conversion=...))"
        )


def head_class_of(config: Mapping[str, Any], source: str) -> str:
    """Tell how the class of a module's base model ends, from its task type or else from the class that PEFT noted.

    Args:
        config: PEFT's configuration.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: a task type without a class.
    """
    task_type = config.get("task_type")
    if task_type:
        if task_type not in HEAD_CLASSES:
            raise ModuleFileError(f"{source}: {unknown_choice('task type', task_type, HEAD_CLASSES)}")
        return HEAD_CLASSES[task_type]
    base_class = (config.get("auto_mapping") or {}).get("base_model_class", "")
    match = re.search(r"For[A-Z]\w*$", base_class)
    return match[0] if match else ""


def alpha_at(config: Mapping[str, Any], path: str) -> float:
    """Tell LoRA's alpha on the module at a path."""
    patterns = config.get("alpha_pattern") or {}
    alpha: float = patterns.get(get_pattern_key(list(patterns), path), config.get("lora_alpha", 8))
    return alpha


def modules_to_save_once(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name each module to save once: PEFT adds the names of heads over and over."""
    names = config.get("modules_to_save")
    return {"modules_to_save": sorted(set(names))} if names else {}


def parse_config(config: Mapping[str, Any]) -> PeftConfig:
    """Make PEFT's configuration object of the content of ``adapter_config.json``."""
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]]
    parsed: PeftConfig = config_class.from_peft_type(**config_class.check_kwargs(**config))
    return parsed


def expected_tensors(config: Mapping[str, Any], skeleton: Any) -> dict[str, tuple[int, ...]]:
    """Ask PEFT which tensors it expects of a module with this configuration: key -> shape.

    Args:
        config: a PEFT configuration as in ``adapter_config.json``.
        skeleton: the base model without weights; PEFT's layers are put into it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the skeleton has no name, which PEFT remarks on
        model = get_peft_model(skeleton, parse_config(config), low_cpu_mem_usage=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {key: tuple(tensor.shape) for key, tensor in state.items()}
