"""AdapterHub's adapters to PEFT's modules and back, tensors bit for bit; what is not exactly the same is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...errors import ModuleFileError
from ...models.families import FAMILIES, Family
from ..config import PREFIX, alpha_at, check_portable, head_class_of
from .heads import head_paths, read_head, write_head
from .layouts import VERSION, HubFiles, Layout, check_keys, layout_of
from .methods import PARTS, SITES, check_plain, read_config, write_config
from .records import Adapter, Head, check_file

# The tensor whose rows are a module's size and whose columns are what it reads, and the option that varies the size.
_SIZED = {"LORA": ("lora_A.weight", "rank_pattern"), "BOTTLENECK": ("bottleneck_down.weight", "reduction_factor")}
# What the first versions of the library, which had one list per purpose, called the list of adapters.
_OLD_LIST = re.compile(r"(?:attention|layer)_text_(?:task|lang)_adapters")


def to_peft(files: HubFiles, source: str) -> tuple[dict[str, Any], dict[str, Tensor], tuple[str, ...]]:
    """Convert the content of an AdapterHub directory.

    Args:
        files: the content.
        source: what to call the module in messages.

    Returns:
        PEFT's configuration, PEFT's tensors by key, and the names of the labels (empty where nobody wrote them down).

    Raises:
        ModuleFileError: what PEFT, or regraft's bottleneck, cannot represent exactly.
    """
    check_file(files.config, Adapter, source, "adapter_config.json")
    if files.head_config is not None:
        check_file(files.head_config, Head, source, "head_config.json")
    fields = files.config["config"]
    model_type, name = files.config.get("model_type"), str(files.config.get("name"))
    layout = layout_of(model_type, source)
    family = FAMILIES[str(model_type)]
    fields = _mend_invertible(fields, files)
    method, config, sites = read_config(fields, files.config.get("version") or "", source)
    left_out = fields.get("leave_out") or []
    placed = {
        _OLD_LIST.sub("adapters", key.removeprefix(f"{layout.prefix}.")): tensor
        for key, tensor in files.tensors.items()
    }
    layers = _layers(placed, family) - set(left_out)
    keys = {
        _hub_key(family, layout, method, name, layer, site, part): (layer, site, suffix)
        for layer in layers
        for site in sites
        for suffix, part in PARTS[method].items()
    }
    check_keys(placed, set(keys), "the adapter's file", source)
    if not keys:
        raise ModuleFileError(f"{source} has no tensor of a layer, expected an adapter in at least one")
    size = _size(method, {keys[key]: tensor for key, tensor in placed.items()}, source)
    if method == "LORA" and size != config["r"]:
        raise ModuleFileError(f"{source} has matrices of rank {size}, expected {config['r']}, its r; mend the field")
    head = read_head(files, source)
    root = PREFIX + (f"{layout.prefix}." if head else "")
    tensors = {
        f"{root}{family.layers}.{layer}.{family.sites[site]}.{suffix}": placed[key]
        for key, (layer, site, suffix) in keys.items()
    }
    if head:
        tensors |= {PREFIX + path: tensor for path, tensor in head.tensors.items()}
    peft = {
        "peft_type": method,
        "base_model_name_or_path": files.config.get("model_name") or None,
        "inference_mode": True,
        "task_type": head.task_type if head else None,
        "modules_to_save": list(head.saved) if head else None,
        "target_modules": _target_modules(family, method, sites, layers, bool(left_out)),
        **config,
        **({} if method == "LORA" else {"bottleneck_size": size}),
    }
    return peft, tensors, head.labels if head else ()


def from_peft(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: Any, labels: Sequence[str], name: str, source: str
) -> HubFiles:
    """Convert a PEFT module into the content of an AdapterHub directory.

    Args:
        config: PEFT's configuration.
        tensors: PEFT's tensors by key.
        base: the base model's transformers configuration.
        labels: names of the labels in the order of the head's rows, empty where nobody wrote them down.
        name: what the library is to call the adapter, and its head.
        source: what to call the module in messages.

    Returns:
        The content, for the library's flexible model classes (``AutoAdapterModel``).

    Raises:
        ModuleFileError: what the library cannot represent exactly.
    """
    if not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise ModuleFileError(
            f"{name!r} cannot name an adapter, expected a word without dots that PyTorch does not use"
        )
    check_portable(config, source)
    check_plain(config, source)
    layout = layout_of(base.model_type, source)
    family = FAMILIES[base.model_type]
    method = config["peft_type"]
    ending = head_class_of(config, source)
    placed, head, alphas = {}, {}, set()
    for key, tensor in tensors.items():
        path = key.removeprefix(PREFIX)
        place = _place(path, method, family)
        if place is not None:
            placed[place] = tensor
            alphas.add(alpha_at(config, path.removesuffix(f".{place[2]}")))
        elif path in head_paths(base.model_type, ending):
            head[path] = tensor
        else:
            raise ModuleFileError(
                f"{source} has {key}, which AdapterHub has no place for, expected {method} on "
                f"{', '.join(SITES[method])} and the task's head alone"
            )
    layers, sites = _product(placed, method, base, source)
    size = _size(method, placed, source)
    fields = write_config(config, size, alphas, sites, base.hidden_size, source)
    fields["leave_out"] = sorted(set(range(base.num_hidden_layers)) - layers)
    common = {
        "model_type": base.model_type,
        "model_class": f"{layout.classes}AdapterModel",
        "model_name": config.get("base_model_name_or_path") or "",
        "hidden_size": base.hidden_size,
        "name": name,
        "version": VERSION,
    }
    parts = PARTS[method]
    converted = {
        f"{layout.prefix}.{_hub_key(family, layout, method, name, layer, site, parts[suffix])}": tensor
        for (layer, site, suffix), tensor in placed.items()
    }
    if not head:
        return HubFiles({**common, "config": fields}, converted)
    head_fields, head_tensors = write_head(base.model_type, ending, head, labels, name, source)
    return HubFiles({**common, "config": fields}, converted, {**common, "config": head_fields}, head_tensors)


def _mend_invertible(fields: Mapping[str, Any], files: HubFiles) -> Mapping[str, Any]:
    """Name invertible adapters as newer versions do, and forget those that old task adapters name but do not have."""
    nested = fields.get("invertible_adapter") or {}
    named = fields.get("inv_adapter") or nested.get("block_type")
    held = any("invertible" in key for key in files.tensors)
    return {**fields, "inv_adapter": None if files.config.get("type") == "text_task" and not held else named}


def _layers(keys: Mapping[str, Tensor], family: Family) -> set[int]:
    """All layers up to the last one with a tensor."""
    found = (re.match(rf"{re.escape(family.layers)}\.(\d+)\.", key) for key in keys)
    return set(range(1 + max((int(match[1]) for match in found if match), default=-1)))


def _hub_key(family: Family, layout: Layout, method: str, name: str, layer: int, site: str, part: str) -> str:
    place = f"{family.sites[site]}.loras" if method == "LORA" else layout.bottleneck
    return f"{family.layers}.{layer}.{place}.{name}.{part}"


def _place(path: str, method: str, family: Family) -> tuple[int, str, str] | None:
    for suffix in PARTS[method]:
        parsed = family.parse(path.removesuffix(f".{suffix}")) if path.endswith(f".{suffix}") else None
        if parsed is not None and parsed[1] in SITES[method]:
            return *parsed, suffix
    return None


def _product(
    placed: Mapping[tuple[int, str, str], Tensor], method: str, base: Any, source: str
) -> tuple[set[int], set[str]]:
    """Check that a module sits on the same sites of each of its layers, and that it fits the base model."""
    layers, sites = {layer for layer, _, _ in placed}, {site for _, site, _ in placed}
    for layer in sorted(layers):
        for site in sorted(sites):
            if any((layer, site, suffix) not in placed for suffix in PARTS[method]):
                raise ModuleFileError(
                    f"{source} has no {method} on {site} of layer {layer}, expected the same sites in each layer that "
                    "has any: AdapterHub leaves out whole layers only"
                )
    if not placed or max(layers) >= base.num_hidden_layers:
        raise ModuleFileError(
            f"{source} has tensors in layers {sorted(layers)}, expected some of the {base.num_hidden_layers} layers "
            "of the base model; name the model that it was trained on (--model)"
        )
    reads, _ = _SIZED[method]
    for (layer, site, suffix), tensor in placed.items():
        if suffix == reads and site != "ff_down" and tensor.shape[1] != base.hidden_size:
            raise ModuleFileError(
                f"{source} reads {tensor.shape[1]} dimensions on {site} of layer {layer}, expected the base model's "
                f"{base.hidden_size}; name the model that it was trained on (--model)"
            )
    return layers, sites


def _size(method: str, placed: Mapping[tuple[int, str, str], Tensor], source: str) -> int:
    """Width of all bottlenecks, or rank of all pairs of matrices."""
    first, cause = _SIZED[method]
    sizes = sorted({len(tensor) for (_, _, suffix), tensor in placed.items() if suffix == first})
    if len(sizes) > 1:
        raise ModuleFileError(
            f"{source} is a {method} module of sizes {sizes} ({cause}), expected one size for all layers and sites"
        )
    return sizes[0]


def _target_modules(family: Family, method: str, sites: Sequence[str], layers: set[int], some: bool) -> list[str] | str:
    """Name the wrapped modules as PEFT's users do: all layers by their last names, where these say it all."""
    last_names = [path.rpartition(".")[2] for path in family.sites.values()]
    targets = [family.sites[site].rpartition(".")[2] for site in sites]
    if method == "BOTTLENECK" and not some:
        return family.pattern("output_norm")
    if not some and all(last_names.count(target) == 1 for target in targets):
        return sorted(targets)
    return family.pattern_of((layer, site) for layer in layers for site in sites)
