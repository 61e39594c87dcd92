"""Derive the record of a model type that ships none, from the modules of its skeleton."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from ..errors import ModelError
from .families import Family, Inputs, Stack, TaskHead

# What linears are usually called inside a layer; the first that matches the end of a path names its site.
_USUAL: Mapping[str, str] = {
    "query": r"q_proj|query|q_lin|q|wq|query_proj",
    "key": r"k_proj|key|k_lin|k|wk|key_proj",
    "value": r"v_proj|value|v_lin|v|wv|value_proj",
    "attention_output": r"o_proj|out_lin|attention\.output\.dense|.*att\w*\.(?:out_proj|o|wo|dense|c_proj|out)",
    "ff_gate": r"gate_proj|wi_0",
    "ff_up": r"up_proj|fc1|c_fc|lin1|wi|wi_1|ffn|intermediate\.dense|dense_h_to_4h|fc_in",
    "ff_down": r"down_proj|fc2|lin2|wo|output\.dense|dense_4h_to_h|fc_out|mlp\.c_proj|ffn_output",
}
_CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)
_CROSS_SITES = {"query": "cross_query", "key": "cross_key", "value": "cross_value", "attention_output": "cross_output"}
# On which side a site of a usual name is as wide as the layers are.
_OUTER = {"query": -1, "key": -1, "value": -1, "ff_gate": -1, "ff_up": -1, "attention_output": 0, "ff_down": 0}
_HEADS = ("ForTokenClassification", "ForQuestionAnswering", "ForSequenceClassification")


def derive_family(build: Callable[[str], Any]) -> Family:
    """Find the repeated layers of a model and the linear layers in them.

    Sites get their usual names where path and widths agree with them; any other is called by its path, and what it
    reads and writes are spaces of its own.

    Args:
        build: gives the skeleton of the model with a head, by how its class ends; the bare one for an empty ending.

    Raises:
        ModelError: no repeated layers.
    """
    model = build("")
    lists = dict(_layer_lists(model))
    if not lists:
        raise ModelError(
            f"{type(model).__name__} has no list of layers with linear layers in them; describe it (--families FILE)"
        )
    main = _main(lists)
    width = int(getattr(model.config.get_text_config(), "hidden_size", 0) or 0)
    inputs = _inputs(str(model.main_input_name))
    stacks = {
        path: Stack(layers=path, sites=_sites(layers, width), inputs=_inputs(path)) for path, layers in lists.items()
    }
    pooler = getattr(model, "pooler", None)
    own = stacks.pop(main)
    return Family(
        layers=main,
        sites=own.sites,
        inputs=inputs,
        stacks={_short(path, lists): stack for path, stack in stacks.items()},
        task_heads=_task_heads(build, pooler is not None),
        final_norm=_final_norm(model),
        pooler="pooler" if pooler is not None and hasattr(getattr(pooler, "dense", pooler), "weight") else "",
        causal=_is_causal(model.config),
    )


def _inputs(name: str) -> Inputs:
    """Tell what is read by what it, or the list of layers that reads it, is called."""
    if re.search(r"pixel|vision|visual|image", name):
        return "images"
    return "sounds" if re.search(r"audio|speech|input_features|input_values", name) else "texts"


def _is_linear(module: Any) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _is_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and weight is not None and weight.dim() == 1


def _layer_lists(model: Any) -> Iterator[tuple[str, Any]]:
    """List the outermost lists of modules that hold linear layers."""
    outer: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(path.startswith(f"{before}.") for before in outer):
            continue
        if any(_is_linear(inside) for inside in module.modules()):
            outer.append(path)
            yield path, module


def _main(lists: Mapping[str, Any]) -> str:
    """Choose a model's own list: of its language model, else of its encoder, else the one with most parameters."""
    for word in ("language", "text", "encoder"):
        if paths := [path for path in lists if word in path]:
            return paths[0]
    return max(lists, key=lambda path: sum(parameter.numel() for parameter in lists[path].parameters()))


def _short(path: str, lists: Mapping[str, Any]) -> str:
    first = path.partition(".")[0]
    alone = sum(other.partition(".")[0] == first for other in lists) == 1
    return first if alone else path.replace(".", "_")


def _sites(layers: Any, width: int) -> dict[str, str]:
    """Name the linear layers in a list of layers: site -> path inside a layer."""
    linears = {
        path: module for layer in layers for path, module in layer.named_modules() if path and _is_linear(module)
    }
    names = {path: _usual_name(path, module, width) for path, module in linears.items()}
    # A name that several paths claim is none's, whatever their order.
    counts = Counter(names.values())
    return {names[path] if counts[names[path]] == 1 else path.replace(".", "/"): path for path in linears}


def _usual_name(path: str, linear: Any, width: int) -> str:
    """Name a linear layer by what it is usually called, where it is as wide as that; else by its path."""
    usual = next((site for site, names in _USUAL.items() if re.fullmatch(rf"(?:.*\.)?(?:{names})", path, re.I)), None)
    side = _OUTER[usual] if usual else 0
    if usual and width and linear.weight.shape[~side if type(linear).__name__ == "Conv1D" else side] != width:
        usual = None
    if usual and _CROSS.search(path):
        usual = _CROSS_SITES.get(usual)
    return usual or path.replace(".", "/")


def _final_norm(model: Any) -> str:
    """Find the last normalisation beside the layers."""
    norms = [name for name, module in model.named_children() if _is_norm(module)]
    return norms[-1] if norms else ""


def _is_causal(config: Any) -> bool:
    kind = type(config)
    writes = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    return writes and not getattr(config, "is_encoder_decoder", False)


def _task_heads(build: Callable[[str], Any], pooled: bool) -> dict[str, TaskHead]:
    """Find the linear layers of the classes with a task head, outside the bare model."""
    heads = {}
    for ending in _HEADS:
        try:
            whole = build(ending)
        except ModelError:
            continue
        inside = (f"{whole.base_model_prefix}.", *(f"{path}." for path, _ in _layer_lists(whole)))
        beside = {path: module for path, module in whole.named_modules() if not path.startswith(inside)}
        linears = tuple(path for path, module in beside.items() if _is_linear(module))
        if linears:
            reads: Literal["pooled", "final_hidden"] = (
                "pooled" if pooled and ending == "ForSequenceClassification" else "final_hidden"
            )
            activation = "its own" if len(linears) > 1 else None
            norms = tuple(path for path, module in beside.items() if _is_norm(module))
            heads[ending] = TaskHead(linears=linears, reads=reads, activation=activation, norms=norms)
    return heads
