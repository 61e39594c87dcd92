"""What commands of experiments and reports print as JSON, see `found`."""

from __future__ import annotations

from .found import Found


class Cell(Found):
    """A cell of an experiment."""

    key: str
    """Hash of what determines its outcome; its directory in the store."""
    kind: str
    """teacher, transfer, student and others."""
    label: str
    """For people."""
    needs: list[str]
    """Keys of cells that come first."""
    seconds: float | None
    """What it took; null where it is not done."""
    error: str | None
    """Why it failed, the last time."""


class GridPlanned(Found):
    """The cells of an experiment."""

    experiment: str
    """Its name."""
    file: str
    """Where it stands."""
    store: str
    """Directory of results."""
    cells: list[Cell]
    """All of them, in the order of the work."""
    seconds_left: float
    """Work that is left for one worker, of kinds of cells of which one is done."""


class GridRun(Found):
    """A run of an experiment; with exit code 1 where not all cells are done."""

    experiment: str
    """Its name."""
    store: str
    """Directory of results."""
    cells: int
    """How many there are."""
    done: int
    """How many are done."""
    failed: dict[str, str]
    """Key of a cell that failed: why."""
    not_tried: list[str]
    """Keys of cells that need one that failed."""


class FindingLine(Found):
    """What a report says of one setting."""

    setting: str
    """Its name."""
    verdict: str
    """In a few words."""
    sentences: list[str]
    """The numbers behind it."""


class Reported(Found):
    """A report that was written."""

    page: str
    """The page; tables lie beside it."""
    findings: list[FindingLine]
    """What it says."""
    gaps: list[str]
    """What is missing in the grid."""


class UnsoundCell(Found):
    """A finished cell that does not count."""

    key: str
    """Hash of what determines its outcome."""
    label: str
    """For people; the key where its record does not tell."""
    why: str
    """What is wrong with it."""
    set_aside: bool
    """Whether it was moved to damaged/."""


class Verified(Found):
    """What was found in a store; with exit code 1 where it is not sound."""

    store: str
    """Directory of results."""
    sound: bool
    """Whether all is what was written."""
    cells: int
    """Finished cells."""
    older: int
    """How many of those that count have no manifest, and were verified as far as they can be."""
    unsound: list[UnsoundCell]
    """The cells that do not count."""
    lists: list[str]
    """What is wrong with lists of the cells of an experiment."""
