"""Options of what runs two models over the same texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..schema import Options

if TYPE_CHECKING:
    import torch

    from ..files.texts import Text

Pairing = Literal["offsets", "position"]


class TextOptions(Options):
    """Texts to run models on."""

    texts: str | None = None
    """File (text, .conllu, table) or hub data set ID[:CONFIG]"""
    column: str = "text"
    """Column of a table; two for pairs: premise,hypothesis"""
    text_split: str = "train"
    """Split of a data set on the hub."""
    max_texts: int | None = Field(default=None, ge=1)
    """Read so many texts, the first."""

    def read(self) -> list[Text] | None:
        """Read the texts, or pairs of them; None where none are named.

        Raises:
            SamplingError: they cannot be read.
        """
        from ..files.texts import read_inputs

        return None if self.texts is None else read_inputs(self.texts, self.column, self.max_texts, self.text_split)


class SampleOptions(Options):
    """What of two models is compared: which tokens go together, of how much of a text, in which batches."""

    pairing: Pairing = "offsets"
    """offsets (by shared characters) or position."""
    max_length: int = Field(default=256, ge=8)
    """Tokens after which a text is cut."""
    batch_size: int = Field(default=32, ge=1)
    """Texts per batch; one batch in ten is held out."""


class RunOptions(Options):
    """Where and how models run. Unless they bring code along, the outcome depends on none of it but by rounding."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps. Default: a GPU if there is."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """float32, bfloat16, float16. Default: as stored."""
    hold_memory: float = Field(default=4, ge=0)
    """GB of activations in memory; others go to disk."""
    trust_remote_code: bool = False
    """Run Python code that the models bring along."""
    quiet: bool = False
    """No progress bars."""

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The type of the weights, as PyTorch calls it."""
        import torch

        return None if self.dtype is None else getattr(torch, self.dtype)
