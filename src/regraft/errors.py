"""One family of errors; each message says what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 80
"""How much of what a file holds is quoted."""


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


class TrainingDivergedError(TaskError):
    """A training whose numbers are none any more: there is nothing to go on from."""


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
    nearest = difflib.get_close_matches(str(got)[:LONGEST], choices, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {quoted(got)}, expected one of {', '.join(choices)}{hint}"


def quoted(found: object) -> str:
    """Quote what stands in a file, or what a user said, on one line of at most 80 characters and the quotes."""
    shown = found if isinstance(found, str) else repr(found)
    shown = shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."
    return repr(shown) if isinstance(found, str) else one_line(shown)


def one_line(text: str, longest: int = 1000) -> str:
    """Write a message so that it is one line in any terminal: escape what cannot be printed, leave out too much."""
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]} [...] {text[-longest // 3 :]}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in " ".join(text.split("\n")))


def first_line(error: Exception) -> str:
    """Give the first line of what another library says, to go into a sentence of ours."""
    return one_line(str(error).strip().split("\n")[0])
