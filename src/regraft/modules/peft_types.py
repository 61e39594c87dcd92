"""The declarative table: for each site of a layer its spaces, for each tensor of a PEFT method what its axes are.

Adding a PEFT method is adding rows to `ROLES`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..models.sites import SITES, SiteShape


def shape_at(role: Role, shape: tuple[int, ...], site: SiteShape) -> tuple[int, ...]:
    """Shape of a tensor with the free axes of `shape` when it sits on `site`."""
    if len(shape) != len(role.axes):
        return (math.prod(shape),)
    return tuple(
        size if isinstance(axis, Free) else (site.in_width if axis.measured == "in" else site.out_width)
        for axis, size in zip(role.axes, shape, strict=True)
    )


Convention = Literal["measured", "released"]
CONVENTIONS: tuple[Convention, ...] = ("measured", "released")


@dataclass(frozen=True)
class Role:
    """One tensor of a PEFT method.

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
        """Name the space of each axis (None for `Free`) when the method sits on `site`.

        Args:
            site: a key of `SITES`.
            convention: ``"measured"`` takes the space an axis lives in, ``"released"`` the one the authors' code uses.
        """
        return tuple(_space(axis, site, convention) for axis in self.axes)


def _space(axis: Axis, site: str, convention: Convention) -> str | None:
    if isinstance(axis, Free):
        return None
    if convention == "released" and axis.released is not None:
        return axis.released
    return SITES[site].space(axis.measured)


def _bottleneck(writes: str) -> tuple[Role, ...]:
    # The authors sample the feed-forward output for both sides of a bottleneck.
    down, up = Reads("out", released="ff_output"), Writes(writes, released="ff_output")
    return (
        Role("bottleneck_down.weight", (Free(), down)),
        Role("bottleneck_down.bias", (Free(),), beside="bottleneck_down.weight"),
        Role("bottleneck_up.weight", (up, Free())),
        Role("bottleneck_up.bias", (up,)),
    )


@dataclass(frozen=True)
class Writes:
    """An axis that adds to an activation; attributes as for `Reads`."""

    measured: str
    released: str | None = None


# The authors reorder the rows of B by the mapping fitted on the input of the query projection.
_LORA_OUT = Writes("out", released="attention_input")


@dataclass(frozen=True)
class Free:
    """An axis of the module's own (rank, bottleneck width): no map acts on it."""


@dataclass(frozen=True)
class Reads:
    """An axis that contracts with an activation.

    Attributes:
        measured: the side of the site it reads, ``"in"`` or ``"out"``.
        released: the name of the space that the paper's authors fit its map on; None where it is the measured one.
    """

    measured: str
    released: str | None = None


ROLES: Mapping[str, tuple[Role, ...]] = {
    "LORA": (
        Role("lora_A.weight", (Free(), Reads("in")), into="lora_B.weight"),
        Role("lora_B.weight", (_LORA_OUT, Free())),
        Role("lora_B.bias", (_LORA_OUT,)),
    ),
    "BOTTLENECK": _bottleneck(writes="out"),
    # Around a normalisation the module reads what leaves it and adds to what enters it.
    "BOTTLENECK on a norm": _bottleneck(writes="in"),
}

PEFT_TYPES = ("BOTTLENECK", "LORA")


def roles_of(peft_type: str, site: str) -> tuple[Role, ...]:
    """Return the rows of the table for a PEFT method on a site."""
    key = f"{peft_type} on a norm" if SITES[site].is_norm else peft_type
    return ROLES.get(key, ())


def spaces_at(site: str) -> set[str]:
    """Name the spaces that any PEFT method on a site maps, in either convention."""
    rows = (role for peft_type in PEFT_TYPES for role in roles_of(peft_type, site))
    names = {name for role in rows for convention in CONVENTIONS for name in role.spaces(site, convention)}
    return {name for name in names if name is not None}


Axis = Free | Reads | Writes
