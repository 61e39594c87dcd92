"""What an experiment file calls models and data: where they are, and what tells their content from another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files.hub import HUB_ID
from ..files.rows import FORMATS


@dataclass(frozen=True)
class Source:
    """A model, data, texts, or what another cell makes.

    Attributes:
        where: a path or the id of something on the hub; the key of the cell that makes it.
        identity: what tells its content from another: this and nothing else of it goes into a key.
        made: whether a cell makes it.
    """

    where: str
    identity: str
    made: bool = False


def on_hub(source: Source) -> bool:
    """Whether it can only be looked for on the hub, where a task's own data (no name) are too."""
    named = HUB_ID.fullmatch(source.where) and Path(source.where).suffix not in (*FORMATS, ".txt")
    return source.identity.startswith("hub:") and bool(not source.where or named)
