"""Any PEFT module that changes linear layers, as a LoRA of a given rank: what can be mapped to other dimensions."""

from __future__ import annotations

import copy
import re
import warnings
from statistics import fmean
from typing import Any

import torch
import transformers
from peft import LoraConfig, PromptLearningConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import ModuleFileError, first_line
from ..models.pretrained import ModelLike, Pretrained
from ..progress import with_progress
from .config import PREFIX, check_portable, head_class_of, parse_config, plain_config
from .module import Module, base_of
from .peft_types import PEFT_TYPES

# What a LoRA's configuration takes over beside its targets: where it does not sit, and what was trained with it.
_KEPT = ("exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "task_type", "auto_mapping")


def convert_to_lora(
    module: Module,
    rank: int,
    base: ModelLike | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Module:
    """Convert a module to a plain LoRA that adds the same to the base weights, as nearly as its rank allows.

    What a layer adds is what PEFT's merging makes of the layer, less the layer; its best approximation of a rank is the
    truncated singular value decomposition (Eckart & Young, Psychometrika 1936). It is PEFT's ``convert_to_lora`` for
    all types that merge; PEFT's takes those alone whose addition does not depend on the base weights.

    Args:
        module: of any type that PEFT can merge into linear layers.
        rank: of the LoRA, 1 or more; layers of less than that are converted exactly.
        base: the model it was trained on, of which the weights are read; by default the one that the module names.
        trust_remote_code: let Python code run that the base model brings along.
        progress: whether to draw a progress bar: large layers take seconds each.

    Returns:
        The LoRA with alpha equal to the rank, and the task head as it was. ``provenance["converted"]`` has the relative
        errors, |B A - D| / |D| in the Frobenius norm with D what the layer added: by layer, their mean and the largest.

    Raises:
        ModuleFileError: a rank below 1, or a module that does not fit its base or has no counterpart.
        ModelError: the base model cannot be loaded.
    """
    if rank < 1:
        raise ModuleFileError(f"found rank {rank} for a LoRA, expected 1 or more (--rank)")
    _check(module)
    resolved = base_of(module, base, trust_remote_code)
    model = _with_module(module, resolved)
    tensors: dict[str, Tensor] = {}
    errors, biased, transposed = {}, False, False
    for name, layer in with_progress(_layers(model), "Converting", unit="layers", shown=progress):
        delta, bias = _added(layer, f"{module.source} on {name}")
        biased, transposed = biased or bias is not None, transposed or isinstance(layer.get_base_layer(), Conv1D)
        tensors |= _factors(name, delta, bias, rank, module)
        lora_a, lora_b = (tensors[f"{name}.lora_{part}.weight"].double() for part in "AB")
        errors[name.removeprefix(PREFIX)] = float((lora_b @ lora_a - delta).norm() / delta.norm().clamp(min=1e-300))
    if not errors:
        raise ModuleFileError(
            f"{module.source} ({module.peft_type}) changes no linear layer, so that no LoRA is like it"
        )
    if biased:  # PEFT expects the bias everywhere or nowhere
        for name in errors:
            column = tensors[f"{PREFIX}{name}.lora_B.weight"][:, 0]
            tensors.setdefault(f"{PREFIX}{name}.lora_B.bias", torch.zeros_like(column))
    on_layers = tuple(f"{PREFIX}{name}." for name in errors)
    head = {
        key: tensor
        for key, tensor in module.tensors.items()
        if key.startswith(PREFIX) and not key.startswith(on_layers)
    }
    kept = {option: module.config[option] for option in _KEPT if option in module.config}
    kept["target_modules"] = model.peft_config["default"].target_modules  # which each type has defaults of its own for
    options: dict[str, Any] = {"r": rank, "lora_alpha": rank, "lora_bias": biased, "fan_in_fan_out": transposed}
    options["inference_mode"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the rank is PEFT's own
        config = plain_config(LoraConfig(**kept, **options), resolved)
    converted = {
        "format": "lora",
        "source": module.source,
        "peft_type": module.peft_type,
        "rank": rank,
        "mean_error": fmean(errors.values()),
        "max_error": max(errors.values()),
        "errors": errors,
    }
    provenance = {**module.provenance, "converted": converted}
    return Module(config, {**tensors, **head}, module.source, provenance, module.commit)


def _check(module: Module) -> None:
    kinds = {kind.value: config_class for kind, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if module.peft_type in PEFT_TYPES:
        check_portable(module.config, module.source)
    elif issubclass(kinds.get(module.peft_type, PromptLearningConfig), PromptLearningConfig):
        raise ModuleFileError(
            f"{module.source} is of type {module.peft_type}, expected one of those that PEFT can merge into weights"
        )
    elif module.config.get("bias", "none") != "none":
        raise ModuleFileError(f"{module.source} trains biases of the base model, which no LoRA does")


def _with_module(module: Module, base: Pretrained) -> Any:
    """Load the base model, of the class that the module's keys are of, with the module on it."""
    alone = {"modules_to_save", "task_type", "auto_mapping"}
    config = {key: value for key, value in module.config.items() if key not in alone}
    lists = "|".join(re.escape(layers) for layers, _ in base.family.places.values())
    match = next(
        filter(None, (re.match(rf"{re.escape(PREFIX)}(.*?)(?:{lists})\.\d", key) for key in module.tensors)), None
    )
    has_head = bool(module.config.get("modules_to_save"))
    ending = head_class_of(module.config, module.source, match[1] if match else "", base.family.causal, has_head)
    if base.loaded is not None:
        model = copy.deepcopy(base.loaded).float()
    else:
        model, _ = base.load(getattr(transformers, f"AutoModel{ending}"), dtype=torch.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(model, parse_config(config))
            expected = get_peft_model_state_dict(model, save_embedding_layers=False)
            set_peft_model_state_dict(model, {key: module.tensors[key] for key in expected})
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ModuleFileError(
            f"{module.source} does not fit {base.name} ({first_line(error)}); name the model that it was trained on "
            "(--model)"
        ) from error
    return model.eval()


def _layers(model: Any) -> list[tuple[str, BaseTunerLayer]]:
    modules = model.named_modules()
    return [(name, one) for name, one in modules if isinstance(one, BaseTunerLayer) and hasattr(one, "merge")]


@torch.no_grad()
def _added(layer: Any, what: str) -> tuple[Tensor, Tensor | None]:
    """Work out what a layer's module adds: to the weight, (out, in), and to the bias, (out,), or None."""
    own = layer.get_base_layer()
    if not isinstance(own, nn.Linear | Conv1D):
        raise ModuleFileError(
            f"{what} sits on a {type(own).__name__}, expected a linear layer; it cannot become a LoRA, port it as it is"
        )
    layer.double()
    before = [None if part is None else part.detach().clone() for part in (own.weight, own.bias)]
    layer.merge()
    own = layer.get_base_layer()
    weight, bias = (
        None if old is None else part.detach() - old for old, part in zip(before, (own.weight, own.bias), strict=True)
    )
    assert weight is not None
    layer.float()
    return weight.T if isinstance(own, Conv1D) else weight, bias if bias is not None and bias.any() else None


def _factors(name: str, delta: Tensor, bias: Tensor | None, rank: int, module: Module) -> dict[str, Tensor]:
    """Take apart what a layer adds into B A of a rank, in the type of the module's tensors."""
    dtype = next(tensor.dtype for key, tensor in module.tensors.items() if key.startswith(f"{name}."))
    left, sizes, right = torch.linalg.svd(delta, full_matrices=False)
    kept = min(rank, len(sizes))
    root = sizes[:kept].sqrt()  # half to each, so that neither is rounded more than the other
    lora_a, lora_b = torch.zeros(rank, delta.shape[1]), torch.zeros(delta.shape[0], rank)
    lora_a[:kept], lora_b[:, :kept] = root[:, None] * right[:kept], left[:, :kept] * root
    tensors = {f"{name}.lora_A.weight": lora_a.to(dtype), f"{name}.lora_B.weight": lora_b.to(dtype)}
    return tensors if bias is None else {**tensors, f"{name}.lora_B.bias": bias.to(dtype)}
