"""Look at every file of every finished cell of a store, and set aside what is no longer what was written."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ModuleFileError
from .store import Store


@dataclass(frozen=True)
class Unsound:
    """A finished cell that does not count.

    Attributes:
        key: of the cell.
        label: what it is; its key where its record does not tell.
        why: what is wrong with it.
        set_aside: whether it was moved to ``damaged``: not where another process works on it.
    """

    key: str
    label: str
    why: str
    set_aside: bool


@dataclass(frozen=True)
class Verified:
    """What was found in a store.

    Attributes:
        cells: number of finished cells.
        older: how many of those that count have no manifest, and were verified as far as they can be.
        unsound: the cells that do not count.
        lists: what is wrong with lists of the cells of an experiment.
    """

    cells: int
    older: int
    unsound: tuple[Unsound, ...]
    lists: tuple[str, ...]


def verify(store: Store, repair: bool = False) -> Verified:
    """Look at all cells and lists of a store, whatever experiment they belong to.

    Args:
        store: where they are.
        repair: move cells that do not count to ``damaged``, so that the next run makes them again. A run writes the
            list of its cells anew by itself.
    """
    keys = store.finished()
    # All are looked at before the first is moved.
    found = {key: why for key in keys if (why := store.unsound(key))}
    older = sum(store.is_older(key) for key in keys if key not in found)
    lists = []
    for name in store.experiments():
        try:
            store.read_index(name)
        except ModuleFileError as error:
            lists.append(str(error))
    unsound = [Unsound(key, _label(store, key), why, repair and _set_aside(store, key)) for key, why in found.items()]
    return Verified(len(keys), older, tuple(unsound), tuple(lists))


def _label(store: Store, key: str) -> str:
    try:
        return str(store.record(key)["label"])
    except ModuleFileError:
        return key


def _set_aside(store: Store, key: str) -> bool:
    with store.claim(key) as ours:
        if ours:
            store.set_aside(key)
        return ours
