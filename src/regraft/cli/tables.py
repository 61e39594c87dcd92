"""Tables for a terminal that cut nothing: words are folded, figures stand whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table.

    Args:
        console: where.
        heads: of the columns.
        rows: their cells. A column is one of figures where every cell is one word that begins or ends as a figure does.
        title: a line above it, which may be wider than the table.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head, cells in zip(heads, zip(*rows, strict=True) if rows else [()] * len(heads), strict=True):
        figures = any(cells) and all(map(_is_figure, cells))
        justify: Literal["left", "right"] = "right" if figures else "left"
        table.add_column(Text(head), justify=justify, no_wrap=figures, overflow="fold", min_width=_longest(head))
    for row in rows:
        table.add_row(*map(Text, row))
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)


def _is_figure(cell: str) -> bool:
    first, *rest = cell.split(" ") if cell else ["-"]
    number = first == "-" or first.lstrip("+-\N{MINUS SIGN}<")[:1].isdigit()
    return number and all(word[:1] in "(±" or word == "to" or word[:1].isdigit() for word in rest)


def _longest(head: str) -> int:
    return max(map(len, head.split()), default=0)
