"""A shallower copy of a model: some of its layers, and everything else as it is."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from ..errors import PlanError
from ..models.families import Family
from ..models.pretrained import Pretrained


def choose_layers(layers: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """Say which of a teacher's layers (0-based) a student is made of.

    Args:
        layers: k for every k-th layer, 0, k, 2k, ... (also where k does not divide the depth); or the layers' numbers.
        depth: of the teacher.

    Raises:
        PlanError: no layers, all layers, layers that the teacher has not, or layers out of order.
    """
    if isinstance(layers, int):
        if layers < 2:
            raise PlanError(f"got every {layers}-th layer, expected a step of 2 or more: every second layer and so on")
        layers = range(0, depth, layers)
    outside = [layer for layer in layers if not 0 <= layer < depth]
    if outside:
        raise PlanError(f"the layer list names layer {outside[0]}, expected 0 to {depth - 1}: the teacher's layers")
    if not layers or list(layers) != sorted(set(layers)):
        named = ",".join(map(str, layers)) or "no layer"
        raise PlanError(f"the layer list names {named}, expected one or more layers in ascending order, each once")
    if len(layers) == depth:
        raise PlanError(f"all {depth} layers of the teacher would be taken, expected fewer; name those to keep")
    return tuple(layers)


def matched_states(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """For each student layer, which of the teacher's hidden states (0: the embeddings) its output stands for.

    A student layer does the work of its teacher layer and of those that were left out behind it, so its output is what
    the next layer that was taken reads; that of the last is the teacher's last hidden state.
    """
    return (*layers[1:], depth)


def load_teacher(base: Pretrained) -> tuple[Any, bool]:
    """Load a teacher in single precision, with its language-model head where its checkpoint has one.

    Heads and poolers that transformers would draw at random, because the checkpoint lacks them, are left out. Models
    with a language-model head have no pooler in transformers; where the checkpoint has one, the model gets it back,
    so that a student made of it can be fine-tuned for sequence classification.

    Returns:
        The model, masked or causal by its family, or the bare model; whether it has a language-model head.

    Raises:
        ModelError: the checkpoint cannot be loaded, or lacks weights of the bare model.
    """
    bare, loading = base.load(AutoModel, dtype=torch.float32)
    if loading["missing_keys"]:
        bare.pooler = None
    auto_class = AutoModelForCausalLM if base.family.causal else AutoModelForMaskedLM
    whole, loading = base.load(auto_class, dtype=torch.float32)
    if loading["missing_keys"]:  # of the head: tied weights are not counted
        return bare, False
    if hasattr(bare, "pooler"):
        whole.base_model.pooler = bare.pooler
    return whole, True


def shallower(model: Any, family: Family, layers: Sequence[int]) -> Any:
    """Copy a model with some of its layers; embeddings, final norm, pooler and head come along.

    Args:
        model: a bare model, or one with a language-model head.
        family: the record of its model type.
        layers: which layers to take (0-based, ascending).

    Returns:
        A model of the same class, whose configuration tells its depth. Its pooler, which the losses of a distillation
        do not reach, is frozen.
    """
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):  # Qwen2's list of which layers attend to a window
        config.layer_types = [config.layer_types[layer] for layer in layers]
    student = type(model)(config)
    if hasattr(model.base_model, "pooler"):
        student.base_model.pooler = copy.deepcopy(model.base_model.pooler)
    if getattr(student.base_model, "pooler", None) is not None:
        student.base_model.pooler.requires_grad_(False)
    weights = {}
    for name, tensor in model.state_dict().items():
        match = re.fullmatch(rf"((?:.*\.)?{re.escape(family.layers)})\.(\d+)\.(.+)", name)
        if match is None:
            weights[name] = tensor
        elif int(match[2]) in layers:
            weights[f"{match[1]}.{layers.index(int(match[2]))}.{match[3]}"] = tensor
    student.load_state_dict(weights)  # strict: every weight comes from the teacher
    return student
