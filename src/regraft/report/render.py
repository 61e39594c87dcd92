"""Tables as Markdown, LaTeX, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from .table import NONE, Table

_NUMBER = re.compile(r"(?<![\w.)])-(?=\d)")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")
_GAP = 2  # between two columns of the terminal
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "±": r"$\pm$",
    NONE: "--",
}


def minus(text: str) -> str:
    """Write hyphens before numbers as minus signs."""
    return _NUMBER.sub("\N{MINUS SIGN}", text)


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text).replace("\n", " ")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


HTML = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEXT = HTML.overlay(
    block_start_string="<%",  # LaTeX is full of braces
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    autoescape=False,
    keep_trailing_newline=True,
)
_TEXT.filters |= {"markdown": _markdown, "latex": _latex, "latex_minus": lambda text: _NUMBER.sub("$-$", text)}


def to_markdown(table: Table) -> str:
    """Write a table for GitHub and its like, its caption before and its notes behind."""
    return _TEXT.get_template("table.md.j2").render(table=table)


def to_latex(table: Table) -> str:
    """Write a table for LaTeX with the package booktabs, its notes below in small print."""
    return _TEXT.get_template("table.tex.j2").render(table=table)


def to_csv(tables: Sequence[Table]) -> str:
    """Write tables for programs, one line per cell: name of the table, row, column, text."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("table", "row", "column", "value"))
    for table in tables:
        for row in table.rows:
            label = " / ".join(cell.text for cell in row[: table.labels])
            for head, cell in zip(table.heads[table.labels :], row[table.labels :], strict=True):
                writer.writerow((table.name, label, head, "" if cell.text == NONE else cell.text))
    return file.getvalue()


def to_rich(table: Table, width: int) -> list[RichTable]:
    """Make a table for the terminal; columns that have no room beside the labels follow in tables below it.

    Args:
        table: what to show.
        width: of the terminal.
    """
    heads = [head if number < table.labels else head.replace(" ", "\n") for number, head in enumerate(table.heads)]
    widths = [
        max(map(len, [*head.split("\n"), *(row[number].text for row in table.rows)]))
        for number, head in enumerate(heads)
    ]
    # Labels are folded where they would take more than half of the room.
    room = width - min(sum(widths[: table.labels]) + _GAP * table.labels, width // 2)
    blocks: list[list[int]] = [[]]
    for number in range(table.labels, len(heads)):
        if blocks[-1] and sum(widths[one] + _GAP for one in [*blocks[-1], number]) > room:
            blocks.append([])
        blocks[-1].append(number)
    return [_block(table, heads, block, first=block is blocks[0], last=block is blocks[-1]) for block in blocks]


def _block(table: Table, heads: Sequence[str], block: Sequence[int], first: bool, last: bool) -> RichTable:
    notes = Text("\n".join(table.notes)) if last and table.notes else None
    shown = RichTable(
        title=Text(table.title) if first else None,
        caption=notes,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number in range(table.labels):
        shown.add_column(Text(heads[number]), overflow="fold")
    for number in block:
        shown.add_column(Text(heads[number]), justify="right", no_wrap=True)
    for number, row in enumerate(table.rows):
        if number and table.nested and table.spans(number)[0]:
            shown.add_section()
        cells = [*row[: table.labels], *(row[one] for one in block)]
        shown.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in cells))
    return shown
