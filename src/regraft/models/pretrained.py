"""Base models: their configurations (no weights), skeletons, weights and tokenizers."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from transformers import AutoModel, AutoTokenizer

from ..errors import ModelError
from ..files.fingerprints import hash_files, hash_parameters
from ..files.hub import fetched_commit, split_gguf, unpacked
from .adapters import adapters, bare, bare_parameters, unwrapped
from .configurations import read_config, reason_of
from .derivation import derive_family
from .families import FAMILIES, Family
from .weights import check_weights, moved, unreported

ModelLike = str | os.PathLike[str] | Any
"""A model id, a local directory, a loaded model, or a pair of a loaded model and its tokenizer."""

# How the classes end that carry the heads of PEFT's task types.
HEAD_CLASSES: Mapping[str, str] = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "CAUSAL_LM": "ForCausalLM",
    "SEQ_2_SEQ_LM": "ForSeq2SeqLM",
    "QUESTION_ANS": "ForQuestionAnswering",
    "FEATURE_EXTRACTION": "",
}


UNBOUNDED = 1 << 20


@dataclass(frozen=True)
class Pretrained:
    """A base model by name, or one that is loaded already.

    Attributes:
        name: model id or local path; what a module's configuration calls ``base_model_name_or_path``.
            ``DIR:FILE.gguf``, or the path of such a file, is a model in llama.cpp's format.
        config: its transformers configuration.
        loaded: the model itself where the caller passed one.
        given_tokenizer: its tokenizer where the caller passed one.
        trusts_code: whether Python code that the model brings along may run. Nothing else lets any of it run.
        loading: how its weights are loaded, as options of ``from_pretrained``: in four or eight bits, on which devices.
    """

    name: str
    config: Any
    loaded: Any = None
    given_tokenizer: Any = None
    trusts_code: bool = False
    loading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gguf_file(self) -> str:
        """Name of the file where the model is one in llama.cpp's format; else empty."""
        return split_gguf(self.name)[1] if self.loaded is None else ""

    @property
    def family(self) -> Family:
        """The record of its model type, or one that is derived from its modules."""
        return FAMILIES.get(self.config.model_type) or self._derived

    @property
    def is_derived(self) -> bool:
        """Whether its type has no record."""
        return self.config.model_type not in FAMILIES

    @property
    def is_quantised(self) -> bool:
        """Whether its linear layers hold their weights in fewer bits than they compute with."""
        return "quantization_config" in self.loading or getattr(self.config, "quantization_config", None) is not None

    @cached_property
    def _derived(self) -> Family:
        return derive_family(self.skeleton)

    @cached_property
    def config_hash(self) -> str:
        """Hash of the architecture: of the configuration without the fields that vary between saves of one model."""
        varying = {"transformers_version", "dtype", "torch_dtype", "architectures", "_name_or_path", "use_cache"}
        varying |= {"id2label", "label2id", "num_labels", "problem_type"}
        fields = {key: value for key, value in self.config.to_dict().items() if key not in varying}
        return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @cached_property
    def weights_id(self) -> str:
        """Tell the weights from others of the same shape, in milliseconds and without loading them.

        ``file:`` and a hash of samples of a local directory's weight files, ``hub:`` and a commit, or ``memory:`` and
        a hash of the first values of every parameter of a loaded model.
        """
        if self.loaded is not None:
            return f"memory:{hash_parameters(bare_parameters(self.loaded))}"
        place, gguf = split_gguf(self.name)
        if Path(place).is_dir():
            return f"file:{hash_files(Path(place), gguf)}"
        return f"hub:{fetched_commit(place, gguf or 'config.json')}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels of its own head, in the order of the rows; empty where its configuration names none."""
        names = {int(row): str(name) for row, name in (getattr(self.config, "id2label", None) or {}).items()}
        made_up = {row: f"LABEL_{row}" for row in names}  # transformers' names for labels without names
        if names == made_up or sorted(names) != [*range(len(names))] or len({*names.values()}) < len(names):
            return ()
        return tuple(names[row] for row in sorted(names))

    @property
    def longest(self) -> int:
        """How many tokens it can read; of a model without such a bound, what no text is as long as."""
        text = self.config.get_text_config()
        names = ("max_position_embeddings", "n_positions", "max_source_positions")
        sizes = [size for name in names if isinstance(size := getattr(text, name, None), int)]
        return sizes[0] - self.family.spare_positions if sizes else UNBOUNDED

    def skeleton(self, head: str = "", num_labels: int | None = None) -> Any:
        """Build the model on the meta device: every module and shape, no weights, milliseconds.

        Args:
            head: how the model's class ends, e.g. ``"ForTokenClassification"``; empty for the bare model.
            num_labels: width of the task head.
        """
        auto_class = getattr(transformers, f"AutoModel{head}", None)
        try:
            config = self.config.__class__.from_dict(self.config.to_dict())
            if num_labels is not None:
                config.num_labels = num_labels
            if auto_class is None:
                raise ValueError("transformers has no such class")
            with torch.device("meta"):
                return auto_class.from_config(config, trust_remote_code=self.trusts_code)
        except Exception as error:  # of whatever kind a configuration without a size, or code of its own, leads to
            raise ModelError(
                f"{self.name} ({self.config.model_type}) cannot be built as AutoModel{head}: {reason_of(error)}"
            ) from error

    def load(self, auto_class: Any, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """Load its weights.

        Args:
            auto_class: one of transformers' ``AutoModel`` classes.
            options: passed to ``from_pretrained``.

        Returns:
            The model, and what transformers reports: which keys are missing, unexpected or mismatched. Those of a
            pooler or a head may be missing, and are drawn at random then.

        Raises:
            ModelError: the weights cannot be loaded, are not all there, or hold NaN.
        """
        place, gguf = split_gguf(self.name)
        options = {**self.loading, **({"gguf_file": gguf} if gguf else {}), **options}
        try:
            with unreported():
                model, loading = auto_class.from_pretrained(
                    place, output_loading_info=True, trust_remote_code=self.trusts_code, **options
                )
        except Exception as error:  # the hub's client raises those of many libraries
            raise ModelError(f"cannot load the weights of {self.name!r}: {reason_of(error)}") from error
        check_weights(model, loading["missing_keys"], self.name)
        return model, loading

    @contextmanager
    def running(self, dtype: torch.dtype | None, device: str | torch.device | None) -> Iterator[Any]:
        """Give the bare model with its weights, in evaluation mode; a model that the caller loaded stays as it was.

        Args:
            dtype: of the weights; by default the checkpoint's, or the loaded model's, own.
            device: where to run; by default a GPU where there is one, or where the loaded model is.
        """
        if self.loaded is None:
            model, loading = self.load(AutoModel, dtype=dtype)
            if any(key.startswith("pooler.") for key in loading["missing_keys"]):
                model.pooler = None  # transformers would have drawn one at random
            # What is quantised, or spread over devices, lies where it is.
            yield (model if self.loading else moved(model, dtype, device)).eval()
            return
        model = bare(self.loaded)
        adapted = bool(adapters(model))
        if adapted:
            warnings.warn(
                f"{self.name} was passed with an adapter in it; its activations are those of the model without",
                stacklevel=2,
            )
        if adapted or (dtype or model.dtype, torch.device(device or model.device)) != (model.dtype, model.device):
            yield moved(unwrapped(copy.deepcopy(model)), dtype, device or model.device).eval()
            return
        training = model.training
        try:
            yield model.eval()
        finally:
            model.train(training)

    def tokenizer(self, **options: Any) -> Any:
        """Return the tokenizer that goes with the model.

        Raises:
            ModelError: there is none, or one that can neither pad nor end a text.
        """
        tokenizer = self.given_tokenizer or self._load_tokenizer(**options)
        if tokenizer.pad_token is None:  # decoders often have none
            if tokenizer.eos_token is None:
                raise ModelError(
                    f"the tokenizer of {self.name} has neither a token for padding nor one for the end of a text; "
                    "name one as pad_token in tokenizer_config.json"
                )
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def _load_tokenizer(self, **options: Any) -> Any:
        if self.loaded is not None:
            raise ModelError(
                f"{self.name} was passed as a loaded model without its tokenizer; pass the pair (model, tokenizer)"
            )
        place, gguf = split_gguf(self.name)
        options = {**options, **({"gguf_file": gguf} if gguf else {})}
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=self.trusts_code, **options)
        except Exception as error:  # the hub's client raises those of many libraries
            reason = reason_of(error, "tokenizer_config.json")
            raise ModelError(f"cannot load the tokenizer of {self.name!r}: {reason}") from error
        # transformers makes an empty tokenizer of a directory that holds a model alone.
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise ModelError(f"{self.name} holds no tokenizer, expected one beside the model; save it there too")
        _tell_of_code(self, "tokenizer_config.json", tokenizer.init_kwargs)
        return tokenizer


def resolve(
    model: ModelLike, trust_remote_code: bool = False, loading: Mapping[str, Any] = MappingProxyType({})
) -> Pretrained:
    """Turn what a user calls a model into a `Pretrained`; reads a configuration, no weights.

    Args:
        model: what the user calls it, ``package:NAME/PATH`` inside an installed package too; a `Pretrained` stays as it
            is.
        trust_remote_code: let Python code run that the model's files name (``auto_map``), here and in all later loads.
        loading: how the weights of a model that is not loaded yet are loaded, see `Pretrained`.

    Raises:
        ModelError: nothing of that name.
    """
    if isinstance(model, Pretrained):
        return model
    tokenizer = None
    if isinstance(model, tuple):
        model, tokenizer = model
    if isinstance(model, str | os.PathLike):
        name = unpacked(str(model))
        config = read_config(name, trust_remote_code)
        base = Pretrained(name, config, given_tokenizer=tokenizer, trusts_code=trust_remote_code, loading=loading)
        _tell_of_code(base, "config.json", vars(config))
    elif hasattr(model, "config"):
        base = Pretrained(model.config._name_or_path or type(model).__name__, model.config, model, tokenizer)
    else:
        raise ModelError(
            f"got a {type(model).__name__} for a model, expected a model id, a directory, a loaded model, "
            "or a pair (model, tokenizer)"
        )
    return base


def _tell_of_code(base: Pretrained, file: str, fields: Mapping[str, Any]) -> None:
    if fields.get("auto_map") and not base.trusts_code:
        warnings.warn(
            f"the {file} of {base.name} names Python code that comes with the model (auto_map); it was not run, and "
            "what transformers has for this type of model stands in for it (--trust-remote-code runs it)",
            stacklevel=2,
        )
