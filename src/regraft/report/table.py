"""A table that knows nothing of how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        head: its heading.
        group: a heading above it, shared with its neighbours of the same group.
    """

    head: str
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """What stands in one place.

    Attributes:
        text: as people read it.
        bold: whether it is the best of its kind.
        shade: 0 to 1, how strongly a heat map colours it.
    """

    text: str
    bold: bool = False
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: unique within a report; letters, digits and hyphens.
        title: its caption.
        columns: all columns.
        labels: how many columns, the first ones, say what a row is; rows are sorted by them.
        rows: cells, as many per row as there are columns.
        notes: sentences to stand below.
    """

    name: str
    title: str
    columns: Sequence[Column]
    labels: int
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    @property
    def heads(self) -> list[str]:
        """One heading per column, with the one above it."""
        return [f"{column.group} {column.head}".strip() for column in self.columns]

    @property
    def groups(self) -> list[tuple[str, list[int]]]:
        """The headings above those of the columns, each with the numbers of its columns, from 1."""
        numbered = groupby(enumerate(self.columns, start=1), key=lambda item: item[1].group)
        return [(name, [number for number, _ in items]) for name, items in numbered]

    @property
    def sections(self) -> list[tuple[tuple[str, ...], list[Sequence[Cell]]]]:
        """Rows that share all labels but the last, below these; all rows below none, where hardly any share them."""
        outer = groupby(self.rows, key=lambda row: tuple(cell.text for cell in row[: self.labels - 1]))
        sections = [(labels, list(rows)) for labels, rows in outer]
        return sections if len(sections) < len(self.rows) or len(sections) == 1 else [((), [*self.rows])]

    @property
    def nested(self) -> bool:
        """Whether a label belongs to several rows."""
        return any(0 in self.spans(row) for row in range(len(self.rows)))

    def spans(self, row: int) -> list[int]:
        """Say over how many rows each label of a row stretches; 0 where one above covers it, 1 for the last label."""
        return [self._span(row, label) if label < self.labels - 1 else 1 for label in range(self.labels)]

    def _span(self, row: int, label: int) -> int:
        keys = [tuple(cell.text for cell in cells[: label + 1]) for cells in self.rows]
        if row and keys[row - 1] == keys[row]:
            return 0
        return next((i for i, key in enumerate(keys[row:]) if key != keys[row]), len(keys) - row)


def texts(*values: str) -> list[Cell]:
    """Make plain cells."""
    return [Cell(value) for value in values]


def columns(*heads: str) -> list[Column]:
    """Make columns without headings above theirs."""
    return [Column(head) for head in heads]


def slug(*parts: str) -> str:
    """Join names to one that serves as the name of a table; names that differ only in other signs get the same."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else "-" for c in part.lower()) for part in parts)


def fixed(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """Write a number with so many digits, never as minus zero."""
    if value is None:
        return NONE
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    zero = f"{0:.{digits}f}"
    return zero if text in (f"-{zero}", f"+{zero}") else text


def percent(share: float | None) -> str:
    """Write a share in whole percent."""
    return NONE if share is None else f"{fixed(100 * share, 0)}%"


def p_value(p: float | None) -> str:
    """Write a p."""
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float | None) -> str:
    """Write a wall time as h:mm:ss."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(number: int, noun: str) -> str:
    """Count things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def of_task(task: str) -> str:
    """Write a task's name: short ones are abbreviations."""
    return task.upper() if len(task) <= 4 else task


def proper(name: str) -> str:
    """Write the name of a kind of module or of a metric as people do."""
    return {"lora": "LoRA", "f1": "F1"}.get(name, name)
