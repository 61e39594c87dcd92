"""One family of errors; each message says what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RegraftError(ValueError):
    """A mistake the user can mend: the command line prints its message and exits with code 2."""


class ModuleFileError(RegraftError):
    """A module directory that cannot be read, written or ported."""


class ModelError(RegraftError):
    """A base model that cannot be found, loaded or understood."""


class PlanError(RegraftError):
    """A port that the plan refuses."""


class SamplingError(RegraftError):
    """Texts, tokenizers or moments that do not serve."""


class TaskError(RegraftError):
    """Task data or training options that do not serve."""


class ReportError(RegraftError):
    """Results that cannot be read or reported."""


def unknown_choice(kind: str, got: object, valid: Iterable[str]) -> str:
    """Say that `got` is no valid `kind`, list the valid ones and name the nearest.

    Args:
        kind: what was to be chosen, e.g. ``"alignment"``.
        got: what the user gave.
        valid: the choices.
    """
    choices = sorted(valid)
    nearest = difflib.get_close_matches(str(got), choices, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {got!r}, expected one of {', '.join(choices)}{hint}"


def first_line(error: Exception) -> str:
    """Give the first line of what another library says, to go into a sentence of ours."""
    return str(error).strip().split("\n")[0]
