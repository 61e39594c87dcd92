"""What a teacher's module holds: its tensors by layer and site, its task head, and what cannot be ported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ModuleFileError
from ..models.families import Family
from ..models.pretrained import Pretrained
from ..models.sites import Place, SiteShape
from .axes import Free, Role
from .config import PREFIX, alpha_at, check_portable, head_class_of, size_at
from .module import Module
from .peft_types import PEFT_TYPES, roles_of, shape_at
from .tensors import head_rows


@dataclass(frozen=True)
class Holding:
    """All tensors of a module on one site of one teacher layer.

    Attributes:
        tensors: key of each tensor by role.
        shapes: its shape by role.
        size: of its free axes, such as LoRA's rank.
        alpha: its alpha here; 0 for PEFT types without.
    """

    tensors: Mapping[Role, str]
    shapes: Mapping[Role, tuple[int, ...]]
    size: int
    alpha: float

    @property
    def gains_what_is_read(self) -> bool:
        """Whether it multiplies what the site reads."""
        return any(role.gains_what_is_read for role in self.tensors)


@dataclass(frozen=True)
class Inventory:
    """A module, taken apart.

    Attributes:
        holdings: by (teacher layer, site).
        head: keys of the task head's tensors.
        shared: keys of the tensors that all sites share.
        refused: keys of all other tensors -> why they cannot be ported.
        head_class: how the class of its base model ends, e.g. ``"ForTokenClassification"``; empty for a bare model.
        num_labels: rows of the task head, None without one.
    """

    holdings: Mapping[Place, Holding]
    head: tuple[str, ...]
    shared: tuple[str, ...]
    refused: Mapping[str, str]
    head_class: str
    num_labels: int | None


def take_inventory(module: Module, family: Family) -> Inventory:
    """Sort the tensors of a module by layer, site and role.

    Args:
        module: the teacher's module.
        family: the record of the teacher's model type.

    Raises:
        ModuleFileError: a module of a kind, or with options, that cannot be ported, or without a single site.
    """
    check_portable(module.config, module.source)
    tensors: dict[Place, dict[Role, str]] = {}
    paths: dict[Place, str] = {}
    heads, head, refused = head_keys(module), [], {}
    shared = tuple(role.suffix for role in PEFT_TYPES[module.peft_type].shared if role.suffix in module.tensors)
    for key in sorted(module.tensors.keys() - set(shared)):
        place = _place(key, tuple(module.tensors[key].shape), module.peft_type, family)
        if place is not None:
            layer, site, role, path = place
            tensors.setdefault((layer, site), {})[role] = key
            paths[layer, site] = path
        elif key in heads:
            head.append(key)
        else:
            refused[key] = "no site of this model type that regraft knows"
    if not tensors:
        first = next(iter(refused), "no tensor at all")
        lists = ", ".join(sorted({f"{layers}.N" for layers, _ in family.places.values()}))
        raise ModuleFileError(
            f"{module.source} has no tensor on a known site (found {first}), expected one of "
            f"{', '.join(sorted(family.places))} in {lists}"
        )
    holdings = {}
    for at, keys in tensors.items():
        shapes = {role: tuple(module.tensors[key].shape) for role, key in keys.items()}
        fits = all(role.takes(shape) for role, shape in shapes.items())
        sizes = {shape[role.axes.index(Free())] for role, shape in shapes.items() if fits and Free() in role.axes}
        # Only where a mask says what is left of a size may that be nothing.
        if not fits or len(sizes) > 1 or (sizes == {0} and not PEFT_TYPES[module.peft_type].size_mask):
            found = ", ".join(f"{keys[role]} of shape {shape}" for role, shape in shapes.items())
            raise ModuleFileError(f"{module.source} has {found}, which do not go together; is the file complete?")
        size = next(iter(sizes), None)
        size = size_at(module.config, paths[at]) if size is None else size
        holdings[at] = Holding(keys, shapes, size, alpha_at(module.config, paths[at]))
    (layer, site), path = next(iter(paths.items()))
    before = path.removesuffix(family.path(layer, site))
    ending = head_class_of(module.config, module.source, before, family.causal, bool(head))
    return Inventory(holdings, tuple(head), shared, refused, ending, head_rows(module.tensors))


# What PEFT saves whole, beside ``modules_to_save``, with the classes of its task types.
_SAVED = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


def head_keys(module: Module) -> list[str]:
    """List the keys of the tensors that the module saves whole: those that PEFT would load into modules of the model.

    PEFT takes what ``modules_to_save`` names and, by the task type, the usual names of heads; a name stands for all
    modules whose path ends with it, so that ``classifier`` is DistilBERT's ``pre_classifier`` too.
    """
    names = (*(module.config.get("modules_to_save") or ()), *_SAVED.get(str(module.config.get("task_type")), ()))
    own = tuple(f".{role.suffix}" for rows in PEFT_TYPES[module.peft_type].rows.values() for role in rows)
    return sorted(key for key in module.tensors if not key.endswith(own) and _is_inside(key, names))


def _is_inside(key: str, names: tuple[str, ...]) -> bool:
    path = key.split(".")
    return any(".".join(path[:end]).endswith(names) for end in range(1, len(path)))


def labels_of_base(module: Module, base: Pretrained) -> tuple[str, ...]:
    """Name the labels of a module's head by the configuration of its base model.

    Returns:
        The names in the order of the rows; empty where the configuration does not name as many as the head has rows, or
        where a port made the module: its head comes from another model.
    """
    named = not module.report and len(base.labels) == head_rows(module.tensors)
    return base.labels if named else ()


def _place(key: str, shape: tuple[int, ...], peft_type: str, family: Family) -> tuple[int, str, Role, str] | None:
    for suffix in sorted({role.suffix for rows in PEFT_TYPES[peft_type].rows.values() for role in rows}):
        path = key.removeprefix(PREFIX).removesuffix(f".{suffix}")
        parsed = family.parse(path) if key.endswith(f".{suffix}") else None
        roles = [role for role in roles_of(peft_type, parsed[1]) if role.suffix == suffix] if parsed else []
        if parsed and roles:
            # Of several that share a name the shape tells; of none that fits, `check_fits` will say so.
            return *parsed, next((role for role in roles if role.takes(shape)), roles[0]), path
    return None


def check_fits(module: Module, inventory: Inventory, sites: Mapping[Place, SiteShape], name: str) -> None:
    """Refuse a module whose tensors do not fit the model it is said to have been trained on.

    Raises:
        ModuleFileError: a layer that the model lacks, or another width.
    """
    for (layer, site), holding in inventory.holdings.items():
        if (layer, site) not in sites:
            raise ModuleFileError(f"{module.source} has tensors on {site} of layer {layer}, which {name} lacks")
        for role, shape in holding.shapes.items():
            expected = shape_at(role, shape, sites[layer, site])
            if shape != expected:
                raise ModuleFileError(
                    f"{module.source} has {holding.tensors[role]} of shape {shape}, but on {name} it would be "
                    f"{expected}; name the model that the module was trained on (--teacher)"
                )
