"""A report as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .contents import Contents
from .groups import BASELINE
from .render import minus
from .table import Table

_SHAPES = ("circle", "square", "diamond", "triangle", "cross")
_COLOURS = 6  # as many as the style sheet has

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def to_html(contents: Contents) -> str:
    """Write a report as a page: no script, no other file, nothing from the network."""
    styles = {start: f"c{i % _COLOURS}" for i, start in enumerate(contents.starts)}
    shapes = {start: _SHAPES[i % len(_SHAPES)] for i, start in enumerate(contents.starts)}
    page: str = _environment.get_template("page.html.j2").render(
        report=contents,
        styles={BASELINE: "base", **styles},
        shapes={BASELINE: "circle", **shapes},
        version=version("regraft"),
        minus=minus,
        head_groups=_head_groups,
        path=_path,
        capital=_capital,
    )
    return page


def _capital(name: str) -> str:
    """Begin a name with a capital, unless it has capitals of its own, as mBERT has."""
    return name[:1].upper() + name[1:] if name.islower() else name


def _head_groups(table: Table) -> list[tuple[str, int]]:
    columns = table.columns[table.labels :]
    return [(name, len(list(group))) for name, group in groupby(columns, key=lambda column: column.group)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
