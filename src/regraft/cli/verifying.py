"""Look whether a store is what was written."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from ..errors import TaskError
from .app import OUTPUT, console
from .experiments import StoreOption, store_of
from .found_grids import Verified
from .output import Output, Printed

_REPAIR = "Move damaged cells to damaged/."


def verify_experiment(
    file: str,
    /,
    *,
    store: StoreOption = None,
    repair: Annotated[bool, Parameter(group=OUTPUT, help=_REPAIR)] = False,
    output: Printed = Output(),
) -> None:
    """Verify every file of every finished cell.

    Sizes and SHA-256 have to be those of the manifest that was written with the
    cell, and what it was built on has to be what is there. Cells of an older
    regraft, without a manifest, are verified as far as they can be. Exit code 1
    says that something is damaged. The next run makes again what --repair moved.

    Example: regraft experiment verify demo --repair

    Args:
        file: An experiment in YAML, or the name of one that ships with regraft.
    """
    from ..experiment.load import find, read_experiment
    from ..experiment.verify import verify

    results = store_of(read_experiment(find(file)), store)
    if not results.root.is_dir():
        raise TaskError(
            f"{results.root} does not exist, expected what 'regraft experiment run' wrote; name its --store"
        )
    found = verify(results, repair)
    sound = not found.unsound and not found.lists
    console.print(f"results: {results.root}", soft_wrap=True, highlight=False)
    for cell in found.unsound:
        moved = f"; moved to damaged/{cell.key}" if cell.set_aside else ""
        console.print(f"damaged: {cell.label} ({cell.key}): {cell.why}{moved}", soft_wrap=True, highlight=False)
    for why in found.lists:
        console.print(f"damaged: {why}", soft_wrap=True, highlight=False)
    console.print(f"{found.cells} cells, {found.cells - len(found.unsound)} of them sound", highlight=False)
    if found.older:
        console.print(
            f"{found.older} were written before there were manifests: verified are formats, and hashes of modules",
            soft_wrap=True,
            highlight=False,
        )
    output.give(
        Verified.model_validate({"store": str(results.root), "sound": sound, **asdict(found)}),
        *(cell.key for cell in found.unsound),
    )
    if not sound:
        sys.exit(1)
