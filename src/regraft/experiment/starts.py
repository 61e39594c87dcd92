"""What a student's module starts from, by name: ``student`` (random numbers) or ``tm-skip+lsa+measured+head``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

from ..alignment import METHODS
from ..errors import PlanError, unknown_choice
from ..layers import NAMES
from ..roles import Convention

BASELINE = "student"
_PREFIX = "tm-"
_SPACES = get_args(Convention)
_HEAD = "head"
_DEFAULT_SPACES: Convention = "released"


@dataclass(frozen=True)
class Start:
    """How the teacher's module becomes the student's first one.

    Attributes:
        layers: one of `layers.NAMES`, or one teacher layer per student layer.
        align: a key of `alignment.METHODS`.
        spaces: which space maps what a module writes.
        head: whether the teacher's task head is ported too.
    """

    layers: str | tuple[int, ...]
    align: str = "none"
    spaces: Convention = _DEFAULT_SPACES
    head: bool = False

    def __str__(self) -> str:
        layers = self.layers if isinstance(self.layers, str) else ",".join(map(str, self.layers))
        parts = [layers]
        parts += [self.align] if self.align != "none" else []
        parts += [self.spaces] if self.spaces != _DEFAULT_SPACES else []
        parts += [_HEAD] if self.head else []
        return _PREFIX + "+".join(parts)


def parse_start(name: str) -> Start | None:
    """Read the name of a start: ``tm-LAYERS``, then any of an alignment, spaces and ``head``, each behind a ``+``.

    Returns:
        The start; None for the baseline, which starts from random numbers.

    Raises:
        PlanError: a part that is unknown or that another one contradicts.
    """
    if name == BASELINE:
        return None
    layers, *parts = name.removeprefix(_PREFIX).split("+")
    if not name.startswith(_PREFIX) or not (layers in NAMES or all(map(str.isdecimal, layers.split(",")))):
        raise PlanError(
            unknown_choice("start", name.split("+")[0], (BASELINE, *(_PREFIX + known for known in NAMES)))
            + " (or teacher layers such as tm-0,2,4)"
        )
    chosen: dict[str, str] = {}
    aligns = [align for align in METHODS if align != "none"]
    for part in parts:
        option = "align" if part in aligns else "spaces" if part in _SPACES else "head" if part == _HEAD else ""
        if not option:
            raise PlanError(unknown_choice(f"part of the start {name}:", part, (*aligns, *_SPACES, _HEAD)))
        if option in chosen:
            raise PlanError(f"the start {name} names both {chosen[option]} and {part}, expected one of them")
        chosen[option] = part
    return Start(
        layers if layers in NAMES else tuple(int(number) for number in layers.split(",")),
        chosen.get("align", "none"),
        cast(Convention, chosen.get("spaces", _DEFAULT_SPACES)),
        "head" in chosen,
    )
