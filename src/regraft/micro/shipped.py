"""The models of the micro world that come with regraft; ``recipes/micro_models.py`` made them."""

from __future__ import annotations

from pathlib import Path

MODELS = ("teacher", "student", "wide-teacher", "apart-student")
"""``student`` was distilled from ``teacher``; the other two were pretrained apart."""

LANGUAGES = ("en", "de")
"""What they were pretrained on."""


def model_path(name: str) -> Path:
    """Return the directory of a model, one of `MODELS`."""
    return Path(__file__).parent / "models" / name
