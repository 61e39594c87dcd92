"""One record per model type: where its layers, sites and heads are. A new model is a new record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import ModelError, unknown_choice

HEADS = ("fresh", "teacher")
"""Where a task head comes from."""


@dataclass(frozen=True)
class Head:
    """The task head of a model class.

    Attributes:
        linears: paths of its linear layers, from what it reads to the labels.
        reads: the space it reads: the final hidden state of each token (or of the one that stands for the text), or
            what the model's pooler makes of the first token.
        activation: between two linear layers, a key of transformers' ``ACT2FN``.
    """

    linears: tuple[str, ...]
    reads: Literal["final_hidden", "pooled"] = "final_hidden"
    activation: str | None = None

    @property
    def modules(self) -> list[str]:
        """Names of the modules that hold it in the model."""
        return sorted({path.partition(".")[0] for path in self.linears})


@dataclass(frozen=True)
class Family:
    """Where the sites of a model type are.

    Attributes:
        layers: path of the list of layers inside the bare model.
        sites: site name (a key of `roles.SITES`) -> path of the submodule inside a layer.
        heads: how a model class ends (such as ``"ForTokenClassification"``) -> its task head.
        final_norm: path, inside the bare model, of the module whose output is the final hidden state; empty where that
            is the output norm of the last layer.
        pooler: path of the bare model's pooler; empty where it has none.
        word_options: what the tokenizer has to be told so that it takes texts split into words.
        spare_positions: position embeddings that no token uses (RoBERTa's begin behind the padding's index).
        causal: whether a token sees only what precedes it, so that a word is best represented by its last piece.
    """

    layers: str
    sites: Mapping[str, str]
    heads: Mapping[str, Head]
    final_norm: str = ""
    pooler: str = ""
    spare_positions: int = 0
    causal: bool = False
    word_options: Mapping[str, Any] = field(default_factory=dict)

    def parse(self, path: str) -> tuple[int, str] | None:
        """Split a submodule's path into (layer, site); None where it is no site of this family."""
        match = re.fullmatch(rf"(?:.*\.)?{re.escape(self.layers)}\.(\d+)\.(.+)", path)
        if match is None:
            return None
        site = next((name for name, sub in self.sites.items() if sub == match[2]), None)
        return None if site is None else (int(match[1]), site)

    def pattern(self, site: str) -> str:
        """Regular expression that PEFT matches against the full paths of a site in all layers."""
        return rf"(.*\.)?{re.escape(self.layers)}\.\d+\.{re.escape(self.sites[site])}"

    def pattern_of(self, places: Iterable[tuple[int, str]]) -> str:
        """Regular expression that PEFT matches against the full paths of some (layer, site), and of no others."""
        layers: dict[str, list[str]] = {}
        for layer, site in sorted(places):
            layers.setdefault(site, []).append(str(layer))
        choices = "|".join(
            rf"(?:{'|'.join(numbers)})\.{re.escape(self.sites[site])}" for site, numbers in layers.items()
        )
        return rf"(?:.*\.)?{re.escape(self.layers)}\.(?:{choices})"


_ONE_LINEAR = {"ForTokenClassification": Head(("classifier",)), "ForQuestionAnswering": Head(("qa_outputs",))}


def _classifies(head: Head) -> dict[str, Head]:
    return {**_ONE_LINEAR, "ForSequenceClassification": head}


_BERT = Family(
    layers="encoder.layer",
    sites={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_output": "attention.output.dense",
        "ff_up": "intermediate.dense",
        "ff_down": "output.dense",
        "output_norm": "output.LayerNorm",
    },
    heads=_classifies(Head(("classifier",), reads="pooled")),
    pooler="pooler",
)

_ROBERTA = replace(
    _BERT,
    heads=_classifies(Head(("classifier.dense", "classifier.out_proj"), activation="tanh")),
    pooler="",
    spare_positions=2,
)

_ELECTRA = replace(
    _BERT, heads=_classifies(Head(("classifier.dense", "classifier.out_proj"), activation="gelu")), pooler=""
)

_DISTILBERT = Family(
    layers="transformer.layer",
    sites={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "ff_up": "ffn.lin1",
        "ff_down": "ffn.lin2",
        "output_norm": "output_layer_norm",
    },
    heads=_classifies(Head(("pre_classifier", "classifier"), activation="relu")),
)

_LLAMA = Family(
    layers="layers",
    sites={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_output": "self_attn.o_proj",
        "ff_gate": "mlp.gate_proj",
        "ff_up": "mlp.up_proj",
        "ff_down": "mlp.down_proj",
    },
    heads={
        "ForTokenClassification": Head(("score",)),
        "ForSequenceClassification": Head(("score",)),
        "ForQuestionAnswering": Head(("qa_outputs",)),
    },
    final_norm="norm",
    causal=True,
)

FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": replace(_ROBERTA, word_options={"add_prefix_space": True}),
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _ELECTRA,
    "distilbert": _DISTILBERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
}


def family_of(model_type: str) -> Family:
    """Return the record of a model type.

    Raises:
        ModelError: where there is none; the message lists those there are.
    """
    if model_type not in FAMILIES:
        raise ModelError(unknown_choice("model type", model_type, FAMILIES))
    return FAMILIES[model_type]
