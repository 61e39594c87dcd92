"""A module made larger, with no effect at first: a higher rank, more sites."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import TaskError
from ..models.pretrained import HEAD_CLASSES, Pretrained
from ..models.sites import Place, find_sites
from ..modules.axes import Free, Role
from ..modules.config import PREFIX, expected_tensors, with_sizes
from ..modules.inventory import Inventory, take_inventory
from ..modules.module import Module
from ..modules.peft_method import PeftMethod
from ..modules.peft_types import PEFT_TYPES, roles_of
from ..modules.places import places_at
from ..seeding import generator


def grown(module: Module, base: Pretrained, sites: Sequence[str] | None, rank: int | None, seed: int) -> Module:
    """Make a module larger, so that it can learn more; it computes what it did.

    Of what is new, what reads is drawn as in a fresh LoRA (Hu et al. 2022, arXiv 2106.09685), and what writes is zero.

    Args:
        module: the module.
        base: the model that it is for.
        sites: where it is to be as well, in all layers; ``("all-linear",)`` for all sites that are linear layers.
        rank: what its rank, or the size of its bottleneck, is to be at least; by default new sites get its own.
        seed: of what is drawn.

    Returns:
        The module as it was, where nothing is asked for.

    Raises:
        TaskError: a module of a type that cannot grow so, a site that the model lacks, or a rank below the module's.
    """
    if sites is None and rank is None:
        return module
    method = PEFT_TYPES.get(module.peft_type)
    if method is None or not method.grows or method.bound(module.config):
        kinds = ", ".join(sorted(name for name, one in PEFT_TYPES.items() if one.grows))
        raise TaskError(
            f"{module.source} is a {module.peft_type} module that cannot grow, expected one of {kinds} without DoRA; "
            "leave --grow and --rank out"
        )
    inventory = take_inventory(module, base.family)
    skeleton = base.skeleton(HEAD_CLASSES[module.config["task_type"]], inventory.num_labels)
    shapes = find_sites(skeleton, base.family)
    new = places_at(sites or (), module.peft_type, base, shapes, "--grow")
    places = {*inventory.holdings} | new
    config = _config(module, method, base, inventory, {place: shapes[place].path for place in places}, rank)
    roles = {
        f"{PREFIX}{shapes[place].path}.{role.suffix}": role
        for place in places
        for role in roles_of(module.peft_type, place[1])
    }
    dtype = next(iter(module.tensors.values())).dtype
    tensors = {
        key: _grown(module.tensors.get(key), roles[key], shape, seed, key).to(dtype)
        if key in roles
        else module.tensors[key]
        for key, shape in expected_tensors(config, skeleton).items()
    }
    return Module(config, tensors, module.source, module.provenance, module.commit)


def _config(
    module: Module,
    method: PeftMethod,
    base: Pretrained,
    inventory: Inventory,
    paths: Mapping[Place, str],
    rank: int | None,
) -> dict[str, Any]:
    """Name the places and their sizes; with the size alpha grows, so that what was there keeps its factor."""
    config = {**with_sizes(module.config), **dict.fromkeys(method.of_layers), "exclude_modules": None}
    config["target_modules"] = base.family.pattern_of(paths)
    own = {place: (holding.size, holding.alpha) for place, holding in inventory.holdings.items()}
    largest = max(size for size, _ in own.values())
    if rank is not None and rank < largest:
        raise TaskError(f"{module.source} has rank {largest} already, expected --rank {largest} or more, not {rank}")
    general = config[method.size], config[method.alpha] if method.alpha else 0
    by_root = bool(config.get(method.root_scaled))

    def larger(size: int, alpha: float) -> tuple[int, float]:
        grown_to = size if rank is None else max(size, rank)
        times = grown_to / size
        larger_alpha = alpha * (math.sqrt(times) if by_root else times)
        return grown_to, int(larger_alpha) if larger_alpha == int(larger_alpha) else larger_alpha

    config[method.size], alpha = larger(*general)
    if method.alpha:
        config[method.alpha] = alpha
    sizes = {paths[place]: larger(*own.get(place, general)) for place in paths}
    return config | method.patterns(config, sizes)


def _grown(old: Tensor | None, role: Role, shape: tuple[int, ...], seed: int, key: str) -> Tensor:
    """Put what was there before what is new, along the axis that is the module's own."""
    if old is not None and tuple(old.shape) == shape:
        return old
    if role.scaled or len(shape) == 1:  # what writes, and biases
        new = torch.zeros(shape)
    else:
        bound = 1 / math.sqrt(shape[1 - role.axes.index(Free())])
        new = (2 * torch.rand(shape, generator=generator(seed, key)) - 1) * bound
    if old is not None:
        new[tuple(slice(size) for size in old.shape)] = old.to(new.dtype)
    return new
