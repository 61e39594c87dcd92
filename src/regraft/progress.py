"""How far long work is: one line on a terminal, with the time left, that goes when the work is done."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from tqdm.auto import tqdm

_LINE = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {unit}, {remaining} left{postfix}"
_wanted = True


def show_progress(wanted: bool) -> None:
    """Show, or do not show, progress from now on in this process."""
    global _wanted
    _wanted = wanted


def with_progress(
    steps: Iterable[Any] | None, title: str, total: int | None = None, unit: str = "batches", shown: bool = True
) -> Any:
    """Go through steps, and show how many are done; nothing where the output is no terminal.

    Args:
        steps: what to go through; None to count them by hand, by the ``update`` of what is returned.
        title: what is done.
        total: how many there are, where they do not know it themselves.
        unit: what they are.
        shown: whether to show it.
    """
    silent = None if shown and _wanted else True  # None: as the terminal is
    return tqdm(steps, title, total, leave=False, unit=unit, dynamic_ncols=True, bar_format=_LINE, disable=silent)


def aside() -> AbstractContextManager[Any]:
    """Let other lines be printed in the block, above the one that shows how far the work is."""
    return tqdm.external_write_mode()  # type: ignore[no-any-return]
