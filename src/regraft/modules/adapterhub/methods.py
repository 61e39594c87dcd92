"""Configurations of AdapterHub's methods and PEFT's, where the two compute the same."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ...errors import ModuleFileError, unknown_choice
from ..bottleneck import NON_LINEARITIES
from .layouts import Field, check_fields

# PEFT's name of a tensor behind the site's path -> AdapterHub's behind the module's name.
PARTS: Mapping[str, Mapping[str, str]] = {
    "LORA": {"lora_A.weight": "lora_A", "lora_B.weight": "lora_B"},
    "BOTTLENECK": {
        "bottleneck_down.weight": "adapter_down.0.weight",
        "bottleneck_down.bias": "adapter_down.0.bias",
        "bottleneck_up.weight": "adapter_up.weight",
        "bottleneck_up.bias": "adapter_up.bias",
    },
}

_ATTENTION = {"query": "q", "key": "k", "value": "v"}
# Sites that AdapterHub puts LoRA on, beside attention -> the field that says so.
_FEED_FORWARD = {"ff_up": "intermediate_lora", "ff_down": "output_lora"}
SITES: Mapping[str, tuple[str, ...]] = {"LORA": (*_ATTENTION, *_FEED_FORWARD), "BOTTLENECK": ("output_norm",)}

_BOTTLENECK: Mapping[str, Field] = {
    "mh_adapter": Field(False),
    "output_adapter": Field(True),
    "original_ln_before": Field(True, False),
    "original_ln_after": Field(True, True),
    "residual_before_ln": Field(True, True),
    "adapter_residual_before_ln": Field(False, False),
    "ln_before": Field(False, False),
    "ln_after": Field(False, False),
    "is_parallel": Field(False, False),
    "use_gating": Field(False, False),
    "phm_layer": Field(False, False),
    "inv_adapter": Field(None),
    "cross_adapter": Field(False, False),
    "dropout": Field(0.0, 0.0),
    "stochastic_depth": Field(0.0, 0.0),
}
_LORA: Mapping[str, Field] = {
    "composition_mode": Field("add", "add"),
    "use_gating": Field(False, False),
    "use_dora": Field(False, False),
    "vera_d": Field(None),
    "vera_b": Field(None),
}
# Options of PEFT's LoRA that AdapterHub's does not have.
ONLY_PEFT = ("use_rslora", "lora_bias")

# Names of one function; configurations without a version come from a library whose gelu was an approximation.
_SAME_FUNCTION = {"silu": "swish"}
_OLD_NAMES = {"gelu": "gelu_new", "gelu_orig": "gelu"}
# Versions before this one scaled by r / r, whatever alpha said.
_ALPHA_COUNTS = (1, 1)


def method_of(fields: Mapping[str, Any], source: str) -> str:
    """Name the PEFT method of an AdapterHub configuration.

    Raises:
        ModuleFileError: a method that PEFT or regraft lacks.
    """
    methods = {None: "BOTTLENECK", "lora": "LORA"}
    architecture = fields.get("architecture")
    if architecture not in methods:
        raise ModuleFileError(
            f"{source} has architecture={architecture!r}, expected 'lora', or none for a bottleneck adapter"
        )
    return methods[architecture]


def read_bottleneck(fields: Mapping[str, Any], version: str, source: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Turn a bottleneck's configuration into fields of `BottleneckConfig`, all but the width, and the sites.

    Args:
        fields: AdapterHub's configuration.
        version: of the library that wrote it; empty in old ones.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: a field with a value that cannot be converted exactly.
    """
    check_fields(fields, _BOTTLENECK, "a bottleneck adapter", source)
    scaling = fields.get("scaling", 1.0)
    if isinstance(scaling, bool) or not isinstance(scaling, int | float):
        raise ModuleFileError(f"{source} is a bottleneck adapter with scaling={scaling!r}, expected a constant factor")
    name = str(fields.get("non_linearity")).lower()
    name = name if version else _OLD_NAMES.get(name, name)
    name = _SAME_FUNCTION.get(name, name)
    if name not in NON_LINEARITIES:
        raise ModuleFileError(f"{source}: {unknown_choice('non_linearity', name, NON_LINEARITIES)}")
    return {"non_linearity": name, "scaling": float(scaling)}, SITES["BOTTLENECK"]


def write_bottleneck(config: Mapping[str, Any], size: int, width: int) -> dict[str, Any]:
    """Turn a `BottleneckConfig` into AdapterHub's configuration, all but ``leave_out``.

    Args:
        config: PEFT's configuration.
        size: width of the bottleneck.
        width: hidden size of the base model.
    """
    return {
        **{name: field.expected for name, field in _BOTTLENECK.items()},
        "non_linearity": config.get("non_linearity", "relu"),
        "scaling": float(config.get("scaling", 1.0)),  # the library takes an integer for a mistake
        "reduction_factor": reduction_factor(width, size),
    }


def reduction_factor(width: int, size: int) -> float:
    """Find the factor of which the library computes ``int(width // factor) == size``."""
    factor = width / size
    return factor if int(width // factor) == size else math.nextafter(factor, 0)


def read_lora(fields: Mapping[str, Any], version: str, source: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Turn a LoRA's configuration into fields of PEFT's, and the sites.

    Args:
        fields: AdapterHub's configuration.
        version: of the library that wrote it; empty in old ones.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: a field with a value that cannot be converted exactly.
    """
    check_fields(fields, _LORA, "a LoRA", source)
    rank = fields.get("r", 8)
    old = re.match(r"adapters\.(\d+)\.(\d+)", version)
    faulty = old is not None and (int(old[1]), int(old[2])) < _ALPHA_COUNTS
    matrices = fields.get("attn_matrices", ["q", "v"]) if fields.get("selfattn_lora", True) else []
    unknown = sorted(set(matrices) - set(_ATTENTION.values()))
    if unknown:
        raise ModuleFileError(f"{source}: {unknown_choice('attn_matrices', unknown[0], _ATTENTION.values())}")
    sites = [site for site, matrix in _ATTENTION.items() if matrix in matrices]
    sites += [site for site, field in _FEED_FORWARD.items() if fields.get(field, False)]
    config = {
        "r": rank,
        "lora_alpha": rank if faulty else fields.get("alpha", 8),
        "lora_dropout": fields.get("dropout", 0.0),
        "bias": "none",
    }
    return config, tuple(sites)


def write_lora(
    config: Mapping[str, Any], rank: int, alphas: Collection[float], sites: Iterable[str], source: str
) -> dict[str, Any]:
    """Turn PEFT's LoRA configuration into AdapterHub's, all but ``leave_out``.

    Args:
        config: PEFT's configuration.
        rank: of all pairs of matrices.
        alphas: the different alphas of the pairs of matrices.
        sites: where they sit.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: several alphas.
    """
    if len(alphas) > 1:
        raise ModuleFileError(
            f"{source} has alphas {sorted(alphas)} (alpha_pattern), expected one: AdapterHub's LoRA has one for all"
        )
    held = set(sites)
    return {
        **{name: field.expected for name, field in _LORA.items()},
        "architecture": "lora",
        "r": rank,
        "alpha": next(iter(alphas)),
        "dropout": config.get("lora_dropout", 0.0),
        "selfattn_lora": not held.isdisjoint(_ATTENTION),
        "attn_matrices": [matrix for site, matrix in _ATTENTION.items() if site in held],
        **{field: site in held for site, field in _FEED_FORWARD.items()},
    }
