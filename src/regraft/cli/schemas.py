"""Which record each command prints as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from .found import (
    Converted,
    Distilled,
    Evaluated,
    Families,
    FamilyRecord,
    Harnessed,
    Methods,
    Planned,
    Ported,
    Refined,
    Sampled,
    Told,
    Trained,
)
from .found_grids import GridPlanned, GridRun, Reported, Verified


def schemas() -> Mapping[str, type]:
    """Name, for each command, the record of its JSON."""
    from ..distillation.comparison import Comparison

    return {
        "plan": Planned,
        "transfer": Ported,
        "refine": Refined,
        "sample": Sampled,
        "methods": Methods,
        "train": Trained,
        "evaluate": Evaluated,
        "evaluate --harness": Harnessed,
        "compare": Comparison,
        "distill": Distilled,
        "convert": Converted,
        "info": Told,
        "families": Families,
        "family": FamilyRecord,
        "experiment plan": GridPlanned,
        "experiment run": GridRun,
        "experiment verify": Verified,
        "report": Reported,
        "demo": Reported,
    }
