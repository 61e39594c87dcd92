"""The one table of PEFT types: what each tensor's axes are, and which options mean more than the tensors say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..models.sites import Side, SiteShape, site_of

Convention = Literal["measured", "released"]


@dataclass(frozen=True)
class Free:
    """An axis of the module's own (rank, bottleneck width): no map acts on it."""


@dataclass(frozen=True)
class Reads:
    """An axis that contracts with an activation.

    Attributes:
        side: of the site, what it reads.
        released: the name of the space that the paper's authors fit its map on; None where it is the one it lives in.
    """

    side: Side
    released: str | None = None


@dataclass(frozen=True)
class Writes:
    """An axis that adds to an activation; attributes as for `Reads`."""

    side: Side
    released: str | None = None


Axis = Free | Reads | Writes


@dataclass(frozen=True)
class Role:
    """One tensor of a PEFT type.

    Attributes:
        suffix: its key behind the site's path.
        axes: its axes in order.
        beside: of a bias, the suffix of the reading weight whose product it is added to; empty for all others.
        into: of a reading weight with nothing but another weight behind it, the suffix of that weight; empty for all
            others.
    """

    suffix: str
    axes: tuple[Axis, ...]
    beside: str = ""
    into: str = ""

    def spaces(self, site: str, convention: Convention) -> tuple[str | None, ...]:
        """Name the space of each axis (None for `Free`) when the tensor is one of a site.

        Args:
            site: its name, see `sites.site_of`.
            convention: ``"measured"`` takes the space an axis lives in, ``"released"`` the one the authors' code uses.
        """
        released = convention == "released"
        return tuple(
            None if isinstance(axis, Free) else (released and axis.released) or site_of(site).space(axis.side)
            for axis in self.axes
        )


@dataclass(frozen=True)
class PeftMethod:
    """A PEFT type; a new one is a new record.

    Attributes:
        rows: its tensors by the kind of site that it sits on.
        size: the option that says how wide its free axes are.
        size_pattern: the option that says where they are otherwise: path -> size; empty without one.
        alpha: the option that scales what it writes; empty without one, or where it belongs to no place.
        alpha_pattern: as `size_pattern`.
        of_layers: options that speak of the teacher's layers, of which the sites say all.
        transposed: the option that says whether the base model's weights lie transposed; empty without one.
        refused: option -> why a module with it would be wrong elsewhere.
        init: the option that names the initialisation; empty without one.
        refused_inits: how the names of initialisations begin that also change the base weights, so that the module
            alone is not what was trained.
        ours: whether PEFT knows it only once regraft is imported.
    """

    rows: Mapping[Literal["linear", "norm"], tuple[Role, ...]]
    size: str
    size_pattern: str = ""
    alpha: str = ""
    alpha_pattern: str = ""
    of_layers: tuple[str, ...] = ()
    transposed: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    init: str = ""
    refused_inits: tuple[str, ...] = ()
    ours: bool = False

    def patterns(self, config: Mapping[str, Any], sizes: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
        """Say of places by their paths what a configuration does not say of all.

        Args:
            config: PEFT's configuration, with `size` and `alpha`.
            sizes: path of a place -> size and alpha there.
        """
        options = ((self.size, self.size_pattern), (self.alpha, self.alpha_pattern))
        return {
            pattern: {path: pair[number] for path, pair in sizes.items() if pair[number] != config[option]}
            for number, (option, pattern) in enumerate(options)
            if pattern
        }


# The authors reorder the rows of B by the mapping fitted on the input of the query projection.
_LORA_OUT = Writes("out", released="attention_input")
_LORA = (
    Role("lora_A.weight", (Free(), Reads("in")), into="lora_B.weight"),
    Role("lora_B.weight", (_LORA_OUT, Free())),
    Role("lora_B.bias", (_LORA_OUT,)),
)


def _bottleneck(writes: Side) -> tuple[Role, ...]:
    # The authors sample the feed-forward output for both sides of a bottleneck.
    down, up = Reads("out", released="ff_output"), Writes(writes, released="ff_output")
    return (
        Role("bottleneck_down.weight", (Free(), down)),
        Role("bottleneck_down.bias", (Free(),), beside="bottleneck_down.weight"),
        Role("bottleneck_up.weight", (up, Free())),
        Role("bottleneck_up.bias", (up,)),
    )


_OF_LAYERS = ("layers_to_transform", "layers_pattern")

PEFT_TYPES: Mapping[str, PeftMethod] = {
    "LORA": PeftMethod(
        {"linear": _LORA},
        size="r",
        size_pattern="rank_pattern",
        alpha="lora_alpha",
        alpha_pattern="alpha_pattern",
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
        refused={
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
        },
        init="init_lora_weights",
        refused_inits=("pissa", "olora", "loftq", "corda", "lora_ga", "mica"),
    ),
    # Around a normalisation the module reads what leaves it and adds to what enters it.
    "BOTTLENECK": PeftMethod(
        {"linear": _bottleneck(writes="out"), "norm": _bottleneck(writes="in")},
        size="bottleneck_size",
        of_layers=_OF_LAYERS,
        ours=True,
    ),
}


def roles_of(peft_type: str, site: str) -> tuple[Role, ...]:
    """Return the rows of the table for a PEFT type on a site."""
    return PEFT_TYPES[peft_type].rows.get("norm" if site_of(site).is_norm else "linear", ())


def spaces_at(site: str) -> set[str]:
    """Name the spaces that any PEFT type on a site maps, in either convention."""
    rows = (role for peft_type in PEFT_TYPES for role in roles_of(peft_type, site))
    names = {
        name for role in rows for convention in get_args(Convention) for name in role.spaces(site, convention) if name
    }
    record = site_of(site)
    return names - {record.writes} | set(record.parts) if record.parts else names


def shape_at(role: Role, shape: tuple[int, ...], site: SiteShape) -> tuple[int, ...]:
    """Shape of a tensor with the free axes of `shape` when it sits on `site`."""
    if len(shape) != len(role.axes):
        return (math.prod(shape),)
    return tuple(
        size if isinstance(axis, Free) else site.width(axis.side) for axis, size in zip(role.axes, shape, strict=True)
    )
