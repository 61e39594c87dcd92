"""What the micro world knows of a language.

Every noun takes the same article wherever it stands, so that no sentence needs inflection. In a wording ``{a}`` and
``{b}`` are what the relation is between and ``{t}`` is when, which may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """How a language puts a relation: all wordings of one tuple mean the same."""

    holds: tuple[str, ...]
    never: tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """Words, names and grammar of a language.

    Attributes:
        openings: first syllables of names of any kind.
        middles: syllables that a name may have in between.
        closings: kind -> last syllables, a hint at the kind.
        patterns: kind -> how names are made, each ``{}`` a word of its own; some tell their kind, some do not.
        nouns: kind -> what is not called by name.
        times: when something was; in each tuple are ways to say the same.
        relations: name of a relation -> how to put it.
    """

    openings: tuple[str, ...]
    middles: tuple[str, ...]
    closings: Mapping[str, tuple[str, ...]]
    patterns: Mapping[str, tuple[str, ...]]
    nouns: Mapping[str, tuple[str, ...]]
    times: tuple[tuple[str, ...], ...]
    relations: Mapping[str, Wordings]
