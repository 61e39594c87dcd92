"""What the axes of a module's tensors are: of the module alone, or of an activation space of the base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..models.sites import Side, site_of

Convention = Literal["measured", "released"]


@dataclass(frozen=True)
class Free:
    """An axis of the module's own (rank, bottleneck width): no map acts on it."""


@dataclass(frozen=True)
class One:
    """An axis of length 1, which tells apart tensors of one name."""


@dataclass(frozen=True)
class Whole:
    """All axes of a tensor that are none of these: their sizes follow from both widths of the site.

    Blocks, factors of a Kronecker product, places in a spectrum: no map acts on them, and the tensor means the same
    only on a site of both widths.
    """


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


@dataclass(frozen=True)
class Gains:
    """An axis that an activation is multiplied by, dimension by dimension; attributes as for `Reads`."""

    side: Side
    released: str | None = None


Axis = Free | One | Whole | Reads | Writes | Gains


@dataclass(frozen=True)
class Role:
    """One tensor of a PEFT type.

    Attributes:
        suffix: its key behind the site's path.
        axes: its axes in order; `Whole` stands for all of them.
        scaled: whether a factor of what the module writes goes into it.
        beside: of a bias, the suffix of the reading weight whose product it is added to; empty for all others.
        into: of a reading weight with nothing but another weight behind it, the suffix of that weight; empty for all
            others.
    """

    suffix: str
    axes: tuple[Axis, ...]
    scaled: bool = False
    beside: str = ""
    into: str = ""

    @property
    def neutral(self) -> float:
        """The value at which it changes nothing: 1 of gains, else 0."""
        return 1.0 if any(isinstance(axis, Gains) for axis in self.axes) else 0.0

    @property
    def gains_what_is_read(self) -> bool:
        """Whether it multiplies what the site reads, not what it writes."""
        return Gains("in") in self.axes

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Tell whether a tensor of that shape can be one of this role."""
        if Whole() in self.axes:
            return True
        return len(shape) == len(self.axes) and all(
            size == 1 for axis, size in zip(self.axes, shape, strict=True) if isinstance(axis, One)
        )

    def spaces(self, site: str, convention: Convention) -> tuple[str | None, ...]:
        """Name the space of each axis (None where no map acts) when the tensor is one of a site.

        Args:
            site: its name, see `sites.site_of`.
            convention: ``"measured"`` takes the space an axis lives in, ``"released"`` the one the authors' code uses.
        """
        released = convention == "released"
        return tuple(
            None
            if isinstance(axis, Free | One | Whole)
            else (released and axis.released) or site_of(site).space(axis.side)
            for axis in self.axes
        )
