"""Tables as Markdown, LaTeX, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.table import Table as RichTable
from rich.text import Text

from .table import NONE, Cell, Table

_NUMBER = re.compile(r"(?<![\w.)])-(?=\d)")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")
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


def heads(table: Table) -> list[str]:
    """Return one heading per column, with the one above it."""
    return [f"{column.group} {column.head}".strip() for column in table.columns]


def minus(text: str) -> str:
    """Write hyphens before numbers as minus signs."""
    return _NUMBER.sub("\N{MINUS SIGN}", text)


def to_markdown(table: Table) -> str:
    """Write a table for GitHub and its like, its caption before and its notes behind."""
    lines = [f"**{_markdown(table.title)}**", "", _line(map(_markdown, heads(table)))]
    lines.append(_line("---" if i < table.labels else "---:" for i in range(len(table.columns))))
    for row in table.rows:
        lines.append(_line(f"**{_markdown(cell.text)}**" if cell.bold else _markdown(cell.text) for cell in row))
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes)]).rstrip() + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text).replace("\n", " ")


def to_latex(table: Table) -> str:
    """Write a table for LaTeX with the package booktabs, its notes below in small print."""
    columns = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    lines = [
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_latex_groups(table),
        _latex_line(_latex(column.head) for column in table.columns),
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        if number and table.nested and table.spans(number)[0]:
            lines.append(r"\addlinespace")
        lines.append(_latex_line(map(_latex_cell, row)))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        lines += ["", rf"\smallskip\parbox{{\linewidth}}{{\footnotesize {' '.join(map(_latex, table.notes))}}}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_groups(table: Table) -> list[str]:
    if not any(column.group for column in table.columns):
        return []
    cells, rules, at = [], [], 1
    for name, columns in groupby(table.columns, key=lambda column: column.group):
        width = len(list(columns))
        if name:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex(name)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        else:
            cells += [""] * width
        at += width
    return [_latex_line(cells), "".join(rules)]


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = _NUMBER.sub("$-$", _latex(cell.text))
    return rf"\textbf{{{text}}}" if cell.bold else text


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def to_csv(tables: Sequence[Table]) -> str:
    """Write tables for programs, one line per cell: name of the table, row, column, text."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("table", "row", "column", "value"))
    for table in tables:
        for row in table.rows:
            label = " / ".join(cell.text for cell in row[: table.labels])
            for head, cell in zip(heads(table)[table.labels :], row[table.labels :], strict=True):
                writer.writerow((table.name, label, head, "" if cell.text == NONE else cell.text))
    return file.getvalue()


def to_rich(table: Table) -> RichTable:
    """Make a table for the terminal; without an outer edge a start with all its options still fits 80 columns."""
    notes = Text("\n".join(table.notes)) if table.notes else None
    shown = RichTable(title=Text(table.title), caption=notes, show_edge=False)
    for number, head in enumerate(heads(table)):
        label = number < table.labels
        shown.add_column(
            Text(head if label else head.replace(" ", "\n")), justify="left" if label else "right", no_wrap=True
        )
    for number, row in enumerate(table.rows):
        if number and table.nested and table.spans(number)[0]:
            shown.add_section()
        shown.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in row))
    return shown
