"""Answers of a module that are kept, so that they are computed once for all students that learn from them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ..errors import ModelError, ModuleFileError
from ..files.directories import new_directory, obstacle
from ..files.fingerprints import hash_file, hash_rows, versions
from ..files.reading import read_safetensors
from ..files.seals import read_sealed, sealed
from ..files.texts import Text
from ..files.writing import told, write_json, write_tensors
from ..models.pretrained import ModelLike
from ..modules.module import PROVENANCE, Module, base_of
from .answer_kinds import kind_of
from .answers import Answers, answer_kind, ask
from .likeliest import tokens_of

_TENSORS = "answers.safetensors"
_FILES = (_TENSORS, PROVENANCE)
# Raised where other answers would be found under the same name: words told apart otherwise, another format.
_FORMAT = 1
# What a configuration says of where a module came from, and not of what it computes.
_OF_PLACE = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")


def answers_directory() -> Path:
    """Name the directory in which answers are kept: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regraft" / "answers"


def place_of_answers(directory: Path | None) -> Path:
    """Make the directory in which answers are kept, by default `answers_directory()`.

    Raises:
        ModuleFileError: it cannot be written.
    """
    directory = directory or answers_directory()
    if why := obstacle(directory):
        raise ModuleFileError(f"cannot keep answers in {directory}, since {why}; choose another place (--answers)")
    with told(directory):
        directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def kept_once(place: Path) -> Iterator[None]:
    """Wait until no other process keeps something in a place.

    Whoever comes second, such as another process of one training, finds what the first one kept.
    """
    # A soft lock, a file that is there, would outlive a process that is killed.
    with told(place.parent):
        held = FileLock(f"{place}.lock", fallback_to_soft=False).acquire()
    with held:
        yield


def told_by_module(module: Module) -> dict[str, str]:
    """Tell a module from others by what it computes."""
    config = sorted((key, value) for key, value in module.config.items() if key not in _OF_PLACE)
    return {"module": module.hash(), "config": hash_rows(config)}


def kept_answers(
    module: Module,
    texts: Sequence[Text],
    directory: Path | None = None,
    *,
    model: ModelLike | None = None,
    max_length: int = 256,
    hidden: bool = False,
    alone: bool = False,
    tokens: str = "",
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Answers:
    """Give what a module answers to texts; ask it, and keep the answers, where they are not there already.

    Answers are kept by what they depend on: the module, the weights of its base model, the texts, and where these are
    cut. What is read is checked; what is damaged is asked for again. Answers that were kept need no base model: where
    it is not there, the module and the texts alone tell them. A label's logit is kept in float16, a number in float32,
    a hidden state in float16; for a student that reads the same tokens, see `likeliest`.

    Args:
        module: a module with its task head.
        texts: plain texts, or pairs of them.
        directory: where answers are kept, by default `answers_directory()`. What is in it may be deleted at any time.
        model: the base model, by default the one that the module names.
        max_length: tokens after which a text is cut.
        hidden: keep the last hidden states beside them, from the same run.
        alone: ask its base model without it, see `ask`.
        tokens: what tells the tokens of a language model that learns, see `likeliest.tokens_of`; where they are the
            teacher's, the answers are those for one tokenizer.
        trust_remote_code: let Python code run that the base model brings along.
        progress: whether to draw a progress bar.

    Raises:
        ModuleFileError: a module that does not answer, or a directory that cannot be written.
        ModelError: answers are not there, nor is the base model.
    """
    kind = answer_kind(module)
    directory = place_of_answers(directory)
    told_by = {"format": _FORMAT, **told_by_module(module), "texts": hash_rows(texts)}
    told_by |= {"asked": "base model"} if alone else {}
    beside = ["hidden"] if hidden else []
    place, shared = (
        directory / hash_rows([*told.values(), max_length, *beside])
        for told in (told_by, {**told_by, "tokens": tokens})
    )
    with kept_once(place):
        try:
            base = base_of(module, model, trust_remote_code, "--teacher-model")
            one_tokenizer = bool(kind.one_tokenizer and tokens) and tokens == tokens_of(base, texts)
        except ModelError:
            kept = (_read(shared) if tokens else None) or _read(place)
            if kept is None:
                raise
            return kept[0]
        if one_tokenizer:
            place, told_by = shared, {**told_by, "tokens": tokens}
        kept = _read(place)
        weights = {"model": base.config_hash, "model_weights": base.weights_id}
        if kept is not None and weights.items() <= kept[1].items():
            return kept[0]
        answers = ask(
            base,
            module,
            texts,
            max_length=max_length,
            head_alone=alone,
            hidden=hidden,
            one_tokenizer=one_tokenizer,
            progress=progress,
        )
        _keep(place, answers, {**told_by, **weights})
        again = _read(place)
        assert again is not None
        return again[0]


def _keep(place: Path, answers: Answers, described: Mapping[str, Any]) -> None:
    tensors = {"text": torch.from_numpy(answers.text), "word": torch.from_numpy(answers.word)}
    tensors |= answers.kind.packed(answers.logits)
    if answers.states is not None:
        tensors["states"] = answers.states
    with new_directory(place, True, _FILES) as written:
        write_tensors(written / _TENSORS, tensors)
        content = {**described, "labels": answers.labels, "task_type": answers.task_type}
        content["sha256"] = hash_file(written / _TENSORS)
        write_json(written / PROVENANCE, sealed({"answers": content, "versions": versions()}))


def _read(place: Path) -> tuple[Answers, Mapping[str, Any]] | None:
    """Read answers that were kept, and what describes them; None where there are none that are whole."""
    if not place.is_dir():
        return None
    try:
        said = read_sealed(place / PROVENANCE, ("answers", "versions"))["answers"]
        if hash_file(place / _TENSORS) != said["sha256"]:
            raise ModuleFileError("its hash is another one")
        tensors = read_safetensors(place / _TENSORS)
        text, word = (tensors[name].numpy() for name in ("text", "word"))
        one_tokenizer, labels = "tokens" in said, tuple(said["labels"])
        logits = kind_of(said["task_type"], one_tokenizer).unpacked(tensors)
        states = tensors.get("states")
        return Answers(logits, text, word, labels, said["task_type"], one_tokenizer, states), said
    except (ModuleFileError, OSError, KeyError, TypeError) as error:
        warnings.warn(f"the answers in {place} are damaged ({error}), so the module is asked again", stacklevel=2)
        return None
