"""What happens in the micro world: facts, drawn at random, and how one becomes another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from .language import Language

RELATIONS: Mapping[str, tuple[str, str]] = {
    "visit": ("PER", "LOC"),
    "leave": ("PER", "LOC"),
    "lead": ("PER", "ORG"),
    "found": ("PER", "ORG"),
    "praise": ("PER", "PER"),
    "teach": ("PER", "PER"),
    "buy": ("ORG", "ORG"),
    "supply": ("ORG", "ORG"),
    "win": ("PER", "MISC"),
    "host": ("LOC", "MISC"),
}
"""Relation -> the kinds of what it is between."""

# Shares of all that is drawn.
_NAMED = 0.8  # the rest are nouns
_HINTED = 0.7  # last syllables that tell the kind, the rest are those of any kind
_WITH_MIDDLE = 0.5
_DENIED = 0.2
_TIMED = 0.6  # of what is not denied


@dataclass(frozen=True)
class Mention:
    """Somebody or something, by name or not."""

    kind: str
    words: tuple[str, ...]
    named: bool


@dataclass(frozen=True)
class Fact:
    """One thing that happened, or never did.

    Attributes:
        relation: a key of `RELATIONS`.
        a: who did it.
        b: to what or whom.
        time: a place in the language's list of times; None for no time.
        denied: whether it never happened; then there is no time.
    """

    relation: str
    a: Mention
    b: Mention
    time: int | None = None
    denied: bool = False


def draw_mention(language: Language, kind: str, dice: Random) -> Mention:
    """Draw somebody or something of a kind."""
    if dice.random() >= _NAMED:
        return Mention(kind, tuple(dice.choice(language.nouns[kind]).split()), named=False)
    pattern = dice.choice(language.patterns[kind])
    words = pattern.format(*(_stem(language, kind, dice) for _ in range(pattern.count("{}"))))
    return Mention(kind, tuple(words.split()), named=True)


def _stem(language: Language, kind: str, dice: Random) -> str:
    middle = dice.choice(language.middles) if dice.random() < _WITH_MIDDLE else ""
    hint = kind if dice.random() < _HINTED else dice.choice(sorted(language.closings))
    return dice.choice(language.openings) + middle + dice.choice(language.closings[hint])


def draw_fact(language: Language, dice: Random) -> Fact:
    """Draw a fact between two that differ."""
    relation = dice.choice(list(RELATIONS))
    kinds = RELATIONS[relation]
    a = draw_mention(language, kinds[0], dice)
    b = _another(language, kinds[1], (a,), dice)
    if dice.random() < _DENIED:
        return Fact(relation, a, b, denied=True)
    return Fact(relation, a, b, dice.randrange(len(language.times)) if dice.random() < _TIMED else None)


def changed(fact: Fact, language: Language, dice: Random) -> Fact:
    """Change one thing about a fact: who, whom, what, when, or who did it to whom."""
    kinds = RELATIONS[fact.relation]
    others = [name for name, between in RELATIONS.items() if between == kinds and name != fact.relation]
    known = (fact.a, fact.b)
    ways: list[Callable[[], Fact]] = [
        lambda: replace(fact, a=_another(language, kinds[0], known, dice)),
        lambda: replace(fact, b=_another(language, kinds[1], known, dice)),
    ]
    if others:
        ways.append(lambda: replace(fact, relation=dice.choice(others)))
    if kinds[0] == kinds[1]:
        ways.append(lambda: replace(fact, a=fact.b, b=fact.a))
    if fact.time is not None:
        times = [time for time in range(len(language.times)) if time != fact.time]
        ways.append(lambda: replace(fact, time=dice.choice(times)))
    return dice.choice(ways)()


def _another(language: Language, kind: str, than: tuple[Mention, ...], dice: Random) -> Mention:
    while (drawn := draw_mention(language, kind, dice)) in than:
        pass
    return drawn
