"""How to distill, and how to refine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator, Field

from ..activations.options import TextOptions
from ..errors import SamplingError, TaskError, quoted
from ..port.options import parse_layers
from ..schema import MOST, TOKEN, Count, Length, Names, Options, Seed, Size, names
from ..training.options import LearningOptions, StepOptions

if TYPE_CHECKING:
    from ..files.texts import Text
    from .writing import Writing


def _layers(value: Any) -> Any:
    layers = parse_layers(value)
    if isinstance(layers, str):
        raise ValueError(f"found {quoted(value)}, expected numbers such as 0,2,4; for every k-th layer use --every")
    return layers


class DistillOptions(LearningOptions):
    """How to distill.

    The weights of the first three losses are those of DistilBERT's released script; they are for teachers with a
    language-model head. Of the others, only the hidden states are matched, with the last two.
    """

    layers: Annotated[int | tuple[int, ...], BeforeValidator(_layers), TOKEN, Parameter(show_default=False)] = 2
    """These layers (0-based) instead: 0,2,4."""
    learning_rate: float = Field(default=5e-4, ge=0, le=1e3)
    """Peak of a linear schedule."""
    max_length: Length = 128
    """Tokens after which a text is cut."""
    max_steps: Count | None = None
    """Stop after so many steps."""
    temperature: float = Field(default=2.0, gt=0)
    """Softens both models' predictions."""
    weight_kl: float = Field(default=5.0, ge=0)
    """Of the teacher's predictions."""
    weight_lm: float = Field(default=2.0, ge=0)
    """Of the language model's own loss."""
    weight_cosine: float = Field(default=1.0, ge=0)
    """Of the last hidden states' angle."""
    weight_hidden: float = Field(default=1.0, ge=0)
    """Of hidden states' distance (no LM head)."""
    mlm_probability: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens to be predicted."""
    save_every: Count = 500
    """Steps between checkpoints."""


class DistillTexts(TextOptions):
    """Texts to learn from."""

    texts: tuple[str, ...] = Field(min_length=1)  # type: ignore[assignment]
    """Text, .conllu, table or hub data set; repeatable"""

    def read_all(self) -> list[str]:
        """Read the texts of all sources.

        Raises:
            SamplingError: one cannot be read.
        """
        from ..files.texts import read_texts

        return [text for one in self.texts for text in read_texts(one, self.column, self.max_texts, self.text_split)]


class TaughtTexts(TextOptions):
    """Texts for a teacher to answer, or to write itself."""

    generate: Count | None = None
    """Let the teacher's language model write so many."""
    prompts: Path | None = None
    """Beginnings for --generate, one per line."""

    def given(self) -> list[Text] | Writing | None:
        """Read the texts, or say which are to be written; None where neither is asked for.

        Raises:
            SamplingError: they cannot be read, or both are asked for.
        """
        from ..files.texts import read_prompts
        from .writing import Writing

        if self.generate is None:
            if self.prompts is not None:
                raise SamplingError("found --prompts without --generate, expected how many texts to write from them")
            return self.read()
        if self.texts is not None:
            raise SamplingError("found --generate beside --texts, expected one of them")
        return Writing(self.generate, () if self.prompts is None else tuple(read_prompts(self.prompts)))


class ComparedTexts(TaughtTexts):
    """Texts for two modules to answer."""

    seed: Seed = 0
    """Of the texts that --generate writes."""


AUTO: Literal["auto"] = "auto"


def parse_steps(value: Any) -> Any:
    """Read a number of steps, or auto."""
    if value == AUTO:
        return value
    if not str(value).isdecimal() or len(str(value)) > len(str(MOST)) or not 0 < int(value) < MOST:
        raise ValueError(f"found {quoted(value)}, expected a number of steps, 1 or more, or auto")
    return int(value)


Steps = Annotated[int | Literal["auto"], BeforeValidator(parse_steps), TOKEN]


def parse_sizes(value: str | None) -> tuple[int, ...]:
    """Read numbers of texts, separated by commas.

    Raises:
        TaskError: one is none.
    """
    found = names(value) if value else ()
    for one in found:
        if not one.isdecimal() or len(one) > len(str(MOST)):
            raise TaskError(f"found --by-texts {quoted(one)}, expected numbers of texts such as 100,400,1600")
    return tuple(map(int, found))


class RefineOptions(StepOptions):
    """How a module is trained on its teacher's answers."""

    steps: Steps = AUTO
    """Number, or auto: until nothing more is gained."""
    learning_rate: float = Field(default=5e-3, ge=0, le=1e3)
    """Peak: of a linear schedule; auto keeps to it."""
    temperature: float = Field(default=1.0, gt=0)
    """Softens both models' answers."""
    hard: bool = False
    """Learn only which answer is the largest."""
    certainty: bool = False
    """Weigh answers by how sure the teacher is."""
    hidden: float = Field(default=0.0, ge=0)
    """Weight of the distance of last hidden states."""
    weigh_changes: bool = False
    """Weigh tokens by what the teacher's module changes."""
    grow: Names = None
    """Sites to take in beside: all-linear or A,B."""
    rank: Size | None = None
    """Grow to this rank, or bottleneck size."""


class AskOptions(Options):
    """How modules are asked what they make of texts."""

    batch_size: Count = 32
    """Texts per batch."""
    max_length: Length = 256
    """Tokens after which a text is cut."""
