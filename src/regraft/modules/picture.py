"""A picture of a port: which layer of the student gets what, at which site, from which layer of the teacher.

It is drawn from the account that a port gives of itself, so that a module's card has it wherever the module goes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean
from typing import Any

# What happens to tensors -> its colour, first what decides where several happen at one place.
_ACTIONS = {
    "refused": "#f2a59b",
    "mapped": "#f4dca8",
    "averaged": "#cfdcf3",
    "reordered": "#e2d3ef",
    "scaled": "#d9e8c4",
    "copied": "#bfe3d0",
    "fresh": "#e4e4e4",
}
# How much is kept -> a colour, between which is mixed; without red and green, which not all tell apart.
_KEPT = ((0.0, (247, 222, 196)), (0.5, (214, 229, 240)), (1.0, (47, 127, 191)))
_PALE = 0.8  # on what is darker, letters are white
_STYLE = (
    "svg.port text{font:11px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',Arial,sans-serif;"
    "fill:#1b1d20}.port .p{fill:#fff}svg.port .m{fill:#5a6068}.port g{text-anchor:middle}svg.port .w text{fill:#fff}"
    ".port .b{fill:none;stroke:#8a9099}.port .n{fill:none;stroke:#b5bac1;stroke-dasharray:2 2}"
    ".port .l{fill:none;stroke:#8a9099;stroke-width:1.2}"
    "@media screen and (prefers-color-scheme:dark){svg.port text{fill:#e7e6e2}.port .p{fill:#15171a}"
    "svg.port .m{fill:#a3a9b1}svg.port .d text{fill:#1b1d20}}"
)
_PITCH, _BOX = 18, 14
_TEACHER, _STUDENT, _CELLS = 40, 120, 150  # right end of the teacher's boxes, left end of the student's rows and cells
_CELL, _GAP = 58, 4
_LEAST_WIDTH, _LETTER, _MARGIN = 380, 6.2, 8
_MOST_LAYERS = 1000
_HEAD, _SHARED = "head", "shared"


def port_picture(port: Mapping[str, Any]) -> str | None:
    """Draw a port as SVG, without scripts and with nothing from elsewhere.

    Args:
        port: what `Plan.describe` gives, or a module's ``report``, which says too how much is kept.

    Returns:
        The picture; None where the account does not say where tensors sit, as those of old versions of regraft.
    """
    try:
        return _Picture(port).drawn()
    # An old account, or not one of ours.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        return None


class _Picture:
    """A picture in the making; lengths are pixels, from the top left."""

    def __init__(self, port: Mapping[str, Any]) -> None:
        self.port = port
        self.parts: list[str] = []
        self.boxes: dict[str, list[str]] = defaultdict(list)  # colour -> paths
        self.words: dict[str, list[str]] = defaultdict(list)  # kind -> texts in boxes
        self.cells: dict[tuple[int | None, str], str] = {}
        for made in port["tensors"].values():
            place, order = (made["layer"], made["site"]), [*_ACTIONS]
            self.cells[place] = min(self.cells.get(place, made["action"]), made["action"], key=order.index)
        by_place: dict[tuple[int | None, str], list[float]] = {}
        for one in port.get("fidelity", ()):
            if one["r2"] is not None:
                by_place.setdefault((one["layer"], one["site"]), []).append(one["r2"])
        self.kept = {place: fmean(shares) for place, shares in by_place.items() if place in self.cells}
        self.sites = list(dict.fromkeys(site for layer, site in self.cells if layer is not None))
        most = max([1, *(len(self._of(stack)) for stack in port["groups"])])
        self.width = max(_LEAST_WIDTH, _CELLS + most * (_CELL + _GAP))

    def drawn(self) -> str:
        """Draw from the top to the bottom."""
        teacher, student = (str(self.port[name]) for name in ("teacher", "student"))
        self._text(0, 14, self._cut(f"from {teacher}"))
        self._text(0, 30, self._cut(f"to {student}"))
        y = 40.0
        for stack, groups in self.port["groups"].items():
            if groups and self._of(stack):
                y = self._stack(stack, groups, y)
        for site in (_HEAD, _SHARED):
            if (None, site) in self.cells:
                y = self._alone(site, y)
        height = self._legend(y + 20)
        left, wide, high = -_MARGIN, self.width + 2 * _MARGIN, height + _MARGIN
        boxes = (f'<path fill="{colour}" d="{"".join(drawn)}"/>' for colour, drawn in self.boxes.items())
        words = (f'<g class="{kind}">{"".join(texts)}</g>' for kind, texts in self.words.items())
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="port" viewBox="{left} 0 {wide} {high:g}" width="{wide}" '
            f'height="{high:g}" role="img" aria-label="{_said(self._described())}"><style>{_STYLE}</style>'
            f'<path class="p" d="M{left} 0h{wide}v{high:g}h-{wide}z"/>'
            f"{''.join([*self.parts, *boxes, *words])}</svg>\n"
        )

    def _of(self, stack: str) -> list[str]:
        """The sites of a stack that get something."""
        return [site for site in self.sites if site.rpartition(".")[0] == stack]

    def _stack(self, stack: str, groups: Sequence[Sequence[Mapping[str, Any]]], y: float) -> float:
        """Draw the layers of a stack side by side; return where they end."""
        sites, depth = self._of(stack), int(self.port["teacher_layers"][stack])
        if max(depth, len(groups)) > _MOST_LAYERS:
            raise ValueError(f"found {depth} layers, expected as many as models have")
        self._text(0, y + 22, "teacher", "m")
        self._text(_STUDENT + 16, y + 22, "student", "m", "end")
        for number, site in enumerate(sites):
            words = site.rpartition(".")[2].split("_", 1)
            for line, word in enumerate(words):
                at = y + 22 - 12 * (len(words) - 1 - line)
                self._text(_CELLS + number * (_CELL + _GAP) + _CELL / 2, at, word, "m", "middle")
        if stack:
            self._text(0, y + 8, stack, "m")
        top, height = y + 30, float(_PITCH * max(depth, len(groups)))
        from_, to = ([top + height * (i + 0.5) / many for i in range(many)] for many in (depth, len(groups)))
        used = {share["layer"] for layer, group in enumerate(groups) for share in group if self._gets(layer, sites)}
        for kind, layers in (("b", used), ("n", set(range(depth)) - used)):
            self._path(kind, "".join(f"M14 {_half(from_[i])}h{_TEACHER - 14}v{_BOX}h{14 - _TEACHER}z" for i in layers))
        for i, at in enumerate(from_):
            self._text((14 + _TEACHER) / 2, at + 4, str(i), "" if i in used else "m", "middle")
        links = [
            f"M{_TEACHER} {from_[share['layer']]:g}C{_TEACHER + 40} {from_[share['layer']]:g} {_STUDENT - 44} {at:g} "
            f"{_STUDENT - 4} {at:g}"
            for layer, at in enumerate(to)
            for share in groups[layer]
            if self._gets(layer, sites)
        ]
        self._path("l", "".join(links))
        for layer, at in enumerate(to):
            self._text(_STUDENT + 16, at + 4, str(layer), "", "end")
            for number, site in enumerate(sites):
                self._cell(layer, site, _CELLS + number * (_CELL + _GAP), at)
            if not self._gets(layer, sites):
                self._text(_CELLS, at + 4, "gets nothing", "m")
        return top + height

    def _gets(self, layer: int, sites: Sequence[str]) -> bool:
        return any((layer, site) in self.cells for site in sites)

    def _alone(self, site: str, y: float) -> float:
        """Draw what belongs to no layer."""
        at = y + _PITCH / 2 + 4
        self._text(0, at + 4, "task head" if site == _HEAD else "shared by all sites")
        self._cell(None, site, _CELLS, at)
        return y + _PITCH + 4

    def _cell(self, layer: int | None, site: str, x: float, y: float) -> None:
        if (layer, site) not in self.cells:
            return
        action, kept = self.cells[layer, site], self.kept.get((layer, site))
        self._box(x, y, _ACTIONS[action] if kept is None else _colour(kept))
        text = action if kept is None else f"{kept:.2f}".replace("-", "\N{MINUS SIGN}")
        self._word(x + _CELL / 2, y, text, kept)

    def _legend(self, y: float) -> float:
        """Say what colours mean; return where it ends."""
        if self.kept:
            for number, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
                self._box(number * 40, y, _colour(share), 36)
                self._word(number * 40 + 18, y, f"{share:g}", share)
            self._text(0, y + 22, "R2 on held-out texts: how much of what the module", "m")
            self._text(0, y + 36, "reads in the teacher it can still read in the student", "m")
            y += 52
        words = [*dict.fromkeys(action for place, action in self.cells.items() if place not in self.kept)]
        self._text(0, y + 4, "dashed: a layer of the teacher that is not taken over", "m")
        if words:
            y += 18
            self._text(0, y + 4, f"words: what happens to tensors ({', '.join(words)})", "m")
        return y + 14

    def _described(self) -> str:
        many = len({layer for layer, _ in self.cells if layer is not None})
        return f"Port from {self.port['teacher']} to {self.port['student']}: {many} layers get something"

    def _cut(self, text: str) -> str:
        """Cut a name at its beginning, where a path is least telling."""
        most = int(self.width / _LETTER)
        first, _, name = text.partition(" ")
        return text if len(text) <= most else f"{first} \N{HORIZONTAL ELLIPSIS}{name[len(first) + 2 - most :]}"

    def _path(self, kind: str, drawn: str) -> None:
        if drawn:
            self.parts.append(f'<path class="{kind}" d="{drawn}"/>')

    def _box(self, x: float, y: float, colour: str, width: int = _CELL) -> None:
        self.boxes[colour].append(f"M{x:g} {_half(y)}h{width}v{_BOX}h-{width}z")

    def _word(self, x: float, y: float, text: str, kept: float | None) -> None:
        kind = "w" if kept is not None and kept > _PALE else "d"
        self.words[kind].append(f'<text x="{x:g}" y="{y + 4:g}">{_said(text)}</text>')

    def _text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "") -> None:
        of_kind = f' class="{kind}"' if kind else ""
        anchored = f' text-anchor="{anchor}"' if anchor else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{of_kind}{anchored}>{_said(text)}</text>')


def _half(y: float) -> str:
    """Where a box around a line begins."""
    return f"{y - _BOX / 2:g}"


def _said(text: str) -> str:
    """Write text as XML can hold it."""
    return escape(re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text))


def _colour(kept: float) -> str:
    """Mix the colour of a share; what is below 0 is as 0."""
    kept = round(20 * min(max(kept, 0.0), 1.0)) / 20  # few colours, so that many boxes are one path
    (low, pale), (high, dark) = (_KEPT[0], _KEPT[1]) if kept <= _KEPT[1][0] else (_KEPT[1], _KEPT[2])
    share = (kept - low) / (high - low)
    return "#" + "".join(f"{round(one + share * (other - one)):02x}" for one, other in zip(pale, dark, strict=True))
