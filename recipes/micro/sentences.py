"""How a language puts a fact."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .facts import Fact, Mention
from .language import Language


@dataclass(frozen=True)
class Sentence:
    """Words, each with its tag."""

    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words as one text."""
        return " ".join(self.words)


def put(fact: Fact, language: Language, dice: Random, unlike: Sentence | None = None) -> Sentence:
    """Put a fact in words, in any way that means the same but that of `unlike`."""
    while (sentence := _put(fact, language, dice)) == unlike:
        pass
    return sentence


def _put(fact: Fact, language: Language, dice: Random) -> Sentence:
    wordings = language.relations[fact.relation]
    time = () if fact.time is None else tuple(dice.choice(language.times[fact.time]).split())
    words: list[str] = []
    tags: list[str] = []
    for part in dice.choice(wordings.never if fact.denied else wordings.holds).split():
        mention = {"{a}": fact.a, "{b}": fact.b}.get(part)
        said = mention.words if mention else time if part == "{t}" else (part,)
        words.extend(said)
        tags.extend(_tags(mention) if mention else ["O"] * len(said))
    words[0] = words[0][0].upper() + words[0][1:]
    return Sentence(tuple(words), tuple(tags))


def _tags(mention: Mention) -> list[str]:
    if not mention.named:
        return ["O"] * len(mention.words)
    return [f"{'I' if place else 'B'}-{mention.kind}" for place in range(len(mention.words))]
