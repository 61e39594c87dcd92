"""Texts that a teacher writes with its module, where there are none; they are kept for people to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ModuleFileError, SamplingError, TaskError
from ..files.directories import new_directory
from ..files.fingerprints import hash_file, hash_rows, versions
from ..files.reading import read_json
from ..files.texts import read_texts
from ..files.writing import write_json, write_json_lines
from ..models.pretrained import ModelLike, Pretrained
from ..models.weights import moved
from ..modules.module import PROVENANCE, Module, base_of
from ..progress import with_progress
from ..seeding import generator
from ..tasks.language import Reader
from ..training.attachment import attach
from ..training.generation import go_on, own_ends
from .answers import answer_kind, task_of
from .kept_answers import kept_once, place_of_answers, told_by_module

_TEXTS = "texts.jsonl"
# Texts that are written at once, whatever the options: a batch draws by one seed.
_AT_ONCE = 32


@dataclass(frozen=True)
class Writing:
    """Texts that a teacher is to write.

    Attributes:
        count: how many.
        prompts: what they begin with, in turn; none for the tokenizer's own beginning of a text.
    """

    count: int
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """Texts that a teacher wrote.

    Attributes:
        texts: those that are not blank, each with what it begins with.
        file: where they are, a row of JSON for each: texts may have several lines.
    """

    texts: list[str]
    file: Path


def written_texts(
    writing: Writing,
    module: Module,
    directory: Path | None = None,
    *,
    model: ModelLike | None = None,
    max_length: int = 256,
    seed: int = 0,
    trust_remote_code: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Written:
    """Let a language model write texts with its module on, or find those that it wrote before.

    Every token is drawn from all of the vocabulary with the probability that the model gives it (temperature 1),
    whatever the model's own settings for generation are, until it ends the text.

    Args:
        writing: how many texts, and what they begin with.
        module: the module of a causal language model.
        directory: where texts are kept, by default beside answers, see `kept_answers`.
        model: the base model, by default the one that the module names.
        max_length: tokens after which a text is cut, what it begins with included.
        seed: of what is drawn. The same seed gives the same texts, on the same kind of device.
        trust_remote_code: let Python code run that the base model brings along.
        device: where to run; by default a GPU where there is one.
        progress: whether to draw a progress bar.

    Raises:
        ModuleFileError: a module of something else, or a directory that cannot be written.
        ModelError: the base model is not there.
        TaskError: a tokenizer without a beginning of texts, a prompt that leaves no room, or blank texts alone.
    """
    if not answer_kind(module).in_bits:
        raise ModuleFileError(
            f"{module.source} is for {module.config['task_type']} and writes no texts, expected a module of a causal "
            "language model beside --generate; give --texts FILE"
        )
    base = base_of(module, model, trust_remote_code, "--teacher-model")
    directory = place_of_answers(directory)
    told_by: dict[str, Any] = {**told_by_module(module), "model": base.config_hash, "model_weights": base.weights_id}
    told_by |= {"asked": writing.count, "prompts": hash_rows(writing.prompts), "seed": seed, "max_length": max_length}
    place = directory / f"texts-{hash_rows([*told_by.values()])}"
    with kept_once(place):
        texts = _read(place)
        if texts is None:
            texts = list(_write(writing, module, base, max_length, seed, device, progress))
            if not texts:
                raise TaskError(f"{module.source} wrote {writing.count} blank texts; give prompts (--prompts FILE)")
            with new_directory(place, True, (_TEXTS, PROVENANCE)) as new:
                write_json_lines(new / _TEXTS, ({"text": text} for text in texts))
                said = {**told_by, "by": module.source, "sha256": hash_file(new / _TEXTS)}
                write_json(new / PROVENANCE, {"written": said, "versions": versions()})
    return Written(texts, place / _TEXTS)


def _read(place: Path) -> list[str] | None:
    """Read texts that were kept; None where there are none, or others than were written."""
    try:
        if hash_file(place / _TEXTS) != read_json(place / PROVENANCE)["written"]["sha256"]:
            return None
        return read_texts(place / _TEXTS)
    except (ModuleFileError, SamplingError, OSError, KeyError, TypeError):
        return None


def _write(
    writing: Writing, module: Module, base: Pretrained, max_length: int, seed: int, device: str | None, progress: bool
) -> Iterator[str]:
    tokenizer, length = base.tokenizer(), min(max_length, base.longest)
    reader = Reader.of(tokenizer)
    before, beginnings = _beginnings(writing, reader, length, base.name)
    model = moved(attach(base, module, task_of(module, base)), None, device).eval()
    ends = own_ends(model, reader.end)
    devices = [model.device] if model.device.type == "cuda" else []
    for start in with_progress(range(0, writing.count, _AT_ONCE), "Writing texts", shown=progress):
        numbers = range(start, min(start + _AT_ONCE, writing.count))
        some = [beginnings[number % len(beginnings)] for number in numbers]
        # All of the model's own settings but the ends would draw from something else than what it says.
        drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_length": length}
        with torch.random.fork_rng(devices):
            torch.manual_seed(generator(seed, f"texts from {start}").initial_seed())
            found = go_on(model, some, ends, reader.end, **drawn)
        for begin, new in zip(some, found, strict=True):
            text = tokenizer.decode([*begin[before:], *new], clean_up_tokenization_spaces=False)
            if text.strip():
                yield text


def _beginnings(writing: Writing, reader: Reader, length: int, name: str) -> tuple[int, Sequence[list[int]]]:
    """Encode what texts begin with; give also how many tokens stand before a text."""
    if not writing.prompts:
        first = reader.tokenizer.bos_token_id
        begin = reader.begin or ([] if first is None else [first])
        if not begin:
            raise TaskError(
                f"{name} has no token for the beginning of a text, expected one (bos_token) or prompts to go on from; "
                "give --prompts FILE"
            )
        return len(begin), [begin]
    begin = reader.begin or [reader.end]
    found = [[*begin, *reader.text(prompt).tokens] for prompt in writing.prompts]
    for number, tokens in enumerate(found, start=1):
        if len(tokens) >= length:
            raise TaskError(
                f"prompt {number} has {len(tokens)} tokens, expected fewer than the {length} after which texts are cut "
                "(--max-length); shorten it"
            )
    return len(begin), found
