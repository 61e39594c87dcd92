"""Configurations of AdapterHub's methods and PEFT's, where the two compute the same."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ...errors import ModuleFileError, unknown_choice
from ..bottleneck import NON_LINEARITIES
from ..config import CONVERT
from .layouts import check_fields

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

# Values of fields that PEFT, or regraft's bottleneck, has counterparts of.
_BOTTLENECK: Mapping[str, Any] = {
    "mh_adapter": False,
    "output_adapter": True,
    "original_ln_before": True,
    "original_ln_after": True,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "ln_before": False,
    "ln_after": False,
    "is_parallel": False,
    "use_gating": False,
    "phm_layer": False,
    "inv_adapter": None,
    "cross_adapter": False,
    "dropout": 0.0,
    "stochastic_depth": 0.0,
}
# What the library takes where a field is absent, if that is another.
_DEFAULTS = {"mh_adapter": None, "output_adapter": None, "original_ln_before": False}
_LORA: Mapping[str, Any] = {
    "composition_mode": "add",
    "use_gating": False,
    "use_dora": False,
    "vera_d": None,
    "vera_b": None,
}
# Options of PEFT's LoRA that AdapterHub's does not have.
_ONLY_PEFT = ("use_rslora", "lora_bias", "use_dora")

# Names of one function; configurations without a version come from a library whose gelu was an approximation.
_SAME_FUNCTION = {"silu": "swish"}
_OLD_NAMES = {"gelu": "gelu_new", "gelu_orig": "gelu"}
# Versions before this one scaled by r / r, whatever alpha said.
_ALPHA_COUNTS = (1, 1)


def read_config(fields: Mapping[str, Any], version: str, source: str) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Turn an AdapterHub configuration into PEFT's.

    Args:
        fields: AdapterHub's configuration.
        version: of the library that wrote it; empty in old ones.
        source: what to call the module in messages.

    Returns:
        PEFT's name of the method, its fields (of a bottleneck all but the width), and the sites.

    Raises:
        ModuleFileError: a method that PEFT or regraft lacks, or a field with a value that cannot be converted exactly.
    """
    architecture = fields.get("architecture")
    if architecture == "lora":
        return "LORA", *_read_lora(fields, version, source)
    if architecture is None:
        return "BOTTLENECK", _read_bottleneck(fields, version, source), SITES["BOTTLENECK"]
    raise ModuleFileError(
        f"{source} has architecture={architecture!r}, expected 'lora', or none for a bottleneck adapter"
    )


def _read_bottleneck(fields: Mapping[str, Any], version: str, source: str) -> dict[str, Any]:
    check_fields(fields, _BOTTLENECK, _DEFAULTS, "a bottleneck adapter", source)
    scaling = fields.get("scaling", 1.0)
    if isinstance(scaling, bool) or not isinstance(scaling, int | float):
        raise ModuleFileError(f"{source} is a bottleneck adapter with scaling={scaling!r}, expected a constant factor")
    name = str(fields.get("non_linearity")).lower()
    name = name if version else _OLD_NAMES.get(name, name)
    name = _SAME_FUNCTION.get(name, name)
    if name not in NON_LINEARITIES:
        raise ModuleFileError(f"{source}: {unknown_choice('non_linearity', name, NON_LINEARITIES)}")
    return {"non_linearity": name, "scaling": float(scaling)}


def reduction_factor(width: int, size: int) -> float:
    """Find the factor of which the library computes ``int(width // factor) == size``."""
    factor = width / size
    return factor if int(width // factor) == size else math.nextafter(factor, 0)


def _read_lora(fields: Mapping[str, Any], version: str, source: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    check_fields(fields, _LORA, {}, "a LoRA", source)
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


def check_plain(config: Mapping[str, Any], source: str) -> None:
    """Refuse options of PEFT's LoRA that AdapterHub's lacks.

    Raises:
        ModuleFileError: with the option.
    """
    if config["peft_type"] not in SITES:
        raise ModuleFileError(
            f"{source} is of type {config['peft_type']}, which AdapterHub's library reads otherwise, expected one of "
            f"{', '.join(SITES)}; {CONVERT}"
        )
    for option in _ONLY_PEFT:
        if config.get(option):
            raise ModuleFileError(
                f"{source} uses {option}, which AdapterHub's LoRA has no counterpart of, expected plain LoRA"
            )


def write_config(
    config: Mapping[str, Any], size: int, alphas: Collection[float], sites: Iterable[str], width: int, source: str
) -> dict[str, Any]:
    """Turn PEFT's configuration, or a `BottleneckConfig`, into AdapterHub's, all but ``leave_out``.

    Args:
        config: PEFT's configuration.
        size: rank of all pairs of matrices, or width of the bottleneck.
        alphas: the different alphas of the pairs of matrices.
        sites: where they sit.
        width: hidden size of the base model.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: a LoRA with several alphas.
    """
    if config["peft_type"] == "BOTTLENECK":
        return {
            **_BOTTLENECK,
            "non_linearity": config.get("non_linearity", "relu"),
            "scaling": float(config.get("scaling", 1.0)),  # the library takes an integer for a mistake
            "reduction_factor": reduction_factor(width, size),
        }
    if len(alphas) > 1:
        raise ModuleFileError(
            f"{source} has alphas {sorted(alphas)} (alpha_pattern), expected one: AdapterHub's LoRA has one for all"
        )
    there = set(sites)
    return {
        **_LORA,
        "architecture": "lora",
        "r": size,
        "alpha": next(iter(alphas)),
        "dropout": config.get("lora_dropout", 0.0),
        "selfattn_lora": not there.isdisjoint(_ATTENTION),
        "attn_matrices": [matrix for site, matrix in _ATTENTION.items() if site in there],
        **{field: site in there for site, field in _FEED_FORWARD.items()},
    }
