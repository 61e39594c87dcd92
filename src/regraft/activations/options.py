"""Options of what runs two models over the same texts."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import Field, model_validator

from ..errors import SamplingError
from ..schema import Count, Length, Options, one_of

if TYPE_CHECKING:
    import torch

    from ..files.texts import Text

Pairing = Literal["offsets", "position"]
# Of accelerate.
_DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


class TextOptions(Options):
    """Texts to run models on."""

    texts: str | None = None
    """File (text, .conllu, table) or hub data set ID[:CONFIG]"""
    column: str = "text"
    """Column of a table; two for pairs: premise,hypothesis"""
    text_split: str = "train"
    """Split of a data set on the hub."""
    max_texts: Count | None = None
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
    max_length: Length = 256
    """Tokens after which a text is cut."""
    batch_size: Count = 32
    """Texts per batch; one in ten is held out."""


class RunOptions(Options):
    """Where and how models run. Unless they bring code along, the outcome depends on none of it but by rounding."""

    device: str | None = None
    """cpu, cuda, cuda:1, mps. Default: a GPU if there is."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """float32, bfloat16, float16. Default: as stored."""
    load_in_4bit: bool = False
    """Quantise the models (NF4; regraft[quantized])."""
    load_in_8bit: bool = False
    """Quantise the models to 8 bits."""
    device_map: Annotated[str | None, one_of("device map", _DEVICE_MAPS)] = None
    """Spread the models over devices: auto."""
    one_at_a_time: bool = False
    """Free the teacher before the student is loaded."""
    hold_memory: float = Field(default=4, ge=0)
    """GB of activations in memory; others go to disk."""
    trust_remote_code: bool = False
    """Run Python code that the models bring along."""
    quiet: Annotated[bool, Parameter(parse=False)] = False
    """No progress bars. On the command line the form of the output decides."""

    @model_validator(mode="after")
    def _one_size(self) -> RunOptions:
        if self.load_in_4bit and self.load_in_8bit:
            raise SamplingError("found --load-in-4bit beside --load-in-8bit, expected one of them")
        if self.device_map is not None and self.device is not None:
            raise SamplingError("found --device-map beside --device, expected one of them")
        return self

    @property
    def loading(self) -> dict[str, Any]:
        """How weights are loaded, as options of transformers' ``from_pretrained``, where that needs saying.

        Raises:
            SamplingError: the package that quantises is not installed.
        """
        options: dict[str, Any] = {}
        if self.load_in_4bit or self.load_in_8bit:
            if find_spec("bitsandbytes") is None:
                raise SamplingError("quantising needs the package bitsandbytes (pip install 'regraft[quantized]')")
            from transformers import BitsAndBytesConfig

            # NF4, as modules are trained on such models (Dettmers et al., QLoRA, NeurIPS 2023).
            four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": self.torch_dtype}
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=self.load_in_8bit, load_in_4bit=self.load_in_4bit, **(four if self.load_in_4bit else {})
            )
        if self.device_map is not None or (options and self.device is not None):
            options["device_map"] = self.device_map or {"": self.device}
        return options

    @property
    def runs_on_gpu(self) -> bool:
        """Whether the models run on CUDA devices, with memory of their own."""
        from ..models.weights import default_device

        return (self.device or default_device()).startswith("cuda")

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The type of the weights, as PyTorch calls it."""
        import torch

        return None if self.dtype is None else getattr(torch, self.dtype)
