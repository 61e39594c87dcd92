"""Where AdapterHub keeps things: one record per model type. A new model type of the library is a new record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...errors import ModuleFileError, unknown_choice

VERSION = "adapters.1.3.0"
"""What a configuration says of the library that wrote it; the library mends those of older versions."""


@dataclass(frozen=True)
class HubFiles:
    """The content of an AdapterHub directory.

    Attributes:
        config: ``adapter_config.json``.
        tensors: ``pytorch_adapter.bin`` or ``adapter.safetensors``.
        head_config: ``head_config.json``; None for a directory without a prediction head.
        head_tensors: ``pytorch_model_head.bin`` or ``model_head.safetensors``.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    head_config: Mapping[str, Any] | None = None
    head_tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """What AdapterHub calls the parts of a model type.

    Attributes:
        prefix: path of the bare model in a class with a head.
        classes: how the names of the model's classes begin.
        bottleneck: path, in a layer, of the bottlenecks behind the feed-forward block.
    """

    prefix: str
    classes: str
    bottleneck: str = "output.adapters"


LAYOUTS: Mapping[str, Layout] = {
    "bert": Layout("bert", "Bert"),
    "roberta": Layout("roberta", "Roberta"),
    "xlm-roberta": Layout("roberta", "XLMRoberta"),
    "electra": Layout("electra", "Electra"),
    "distilbert": Layout("distilbert", "DistilBert", bottleneck="output_adapters.adapters"),
}


def layout_of(model_type: object, source: str) -> Layout:
    """Return the record of a model type.

    Raises:
        ModuleFileError: where there is none; the message lists those there are.
    """
    if model_type not in LAYOUTS:
        raise ModuleFileError(f"{source}: {unknown_choice('model type for AdapterHub', model_type, LAYOUTS)}")
    return LAYOUTS[str(model_type)]


def check_fields(
    held: Mapping[str, Any], expected: Mapping[str, Any], defaults: Mapping[str, Any], what: str, source: str
) -> None:
    """Refuse a configuration that means what cannot be represented, by the name of its field.

    Args:
        held: the configuration.
        expected: field -> the one value that can be represented.
        defaults: what the library takes where a field is absent, as in configurations of older versions; by default
            the value expected.
        what: what the configuration is of.
        source: what to call the module in messages.

    Raises:
        ModuleFileError: with the field, its value and the one expected.
    """
    for name, only in expected.items():
        value = held.get(name, defaults.get(name, only))
        if value != only:
            raise ModuleFileError(
                f"{source} is {what} with {name}={value!r}, expected {only!r}: no other value can be converted exactly"
            )


def check_keys(held: Mapping[str, Tensor], expected: set[str], file: str, source: str) -> None:
    """Refuse tensors that are not those a configuration asks for.

    Raises:
        ModuleFileError: with the first tensor that is missing or not expected.
    """
    for key in sorted(expected - set(held)):
        raise ModuleFileError(f"{source} has no {key} in {file}, which its configuration asks for; save it anew")
    for key in sorted(set(held) - expected):
        raise ModuleFileError(f"{source} has {key} in {file}, which its configuration does not ask for; save it anew")
