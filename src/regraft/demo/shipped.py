"""The models and the data of the micro world that come with regraft; ``recipes/micro_models.py`` made them."""

from __future__ import annotations

from pathlib import Path

MODELS = ("teacher", "student", "wide-teacher", "apart-student")
"""``student`` was distilled from ``teacher``; the other two were pretrained apart."""

LANGUAGES = ("en", "de")
"""What they were pretrained on."""

TASKS = ("ner", "nli")
"""Of which tasks there are data, in these languages."""

SEED = 1
"""Of those data. The settings of the demo were chosen on data of another seed."""


def model_path(name: str) -> Path:
    """Return the directory of a model, one of `MODELS`."""
    return Path(__file__).parent / "models" / name


def task_path(name: str) -> Path:
    """Return the folder of a task's data, one of `TASKS`."""
    return Path(__file__).parent / "tasks" / name
