"""What a cell of an experiment does, and the key that stands for everything that determines its outcome."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..activations import sampling
from ..distillation.options import DistillOptions
from ..files.hub import HubId, locate
from ..port.options import PortOptions
from ..schema import Options
from ..training.options import TrainOptions

# Part of every key. Raised when a change of the code changes results, so that old ones are not taken for new ones.
RECIPE = 1


@dataclass(frozen=True)
class TaskSource:
    """A task with its data, in one language."""

    task: str
    language: str
    data: Source
    columns: tuple[tuple[str, str], ...]
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class TextSource:
    """Texts of a file or of a data set on the hub."""

    source: Source
    column: str
    split: str
    limit: int | None


@dataclass(frozen=True)
class Distill:
    """Make a student of a teacher, in so many processes with a device each."""

    teacher: Source
    texts: tuple[TextSource, ...]
    settings: DistillOptions
    processes: int


@dataclass(frozen=True)
class Train:
    """Train a module, a fresh one of the kind `peft` or from `start`, in so many processes with a device each."""

    model: Source
    peft: str
    start: Source | None
    data: TaskSource
    settings: TrainOptions
    processes: int


@dataclass(frozen=True)
class Reading:
    """What two models are compared on: texts, or the first `limit` training rows of a task."""

    texts: TextSource | TaskSource
    limit: int
    pairing: str


@dataclass(frozen=True)
class SamplePair:
    """Run a pair of models over texts.

    The format of what is kept is part of the job, so that a sample of an older one is not taken for one of today's.
    """

    teacher: Source
    student: Source
    layers: str | tuple[int, ...]
    reading: Reading
    format: int = sampling.FORMAT


@dataclass(frozen=True)
class Transfer:
    """Port a module, by moments of the pair or by running it over texts."""

    module: Source
    teacher: Source
    student: Source
    start: PortOptions
    moments: Source | None
    reading: Reading | None
    seed: int


Job = Distill | Train | SamplePair | Transfer


def key_of(job: Job) -> str:
    """Hash everything that determines the outcome of a job; what other cells make counts by their keys."""
    plain = json.dumps([RECIPE, type(job).__name__, _plain(job)], sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def needs_of(job: Any) -> tuple[str, ...]:
    """Keys of the cells whose results a job takes."""
    if isinstance(job, Source):
        return (job.where,) if job.made else ()
    if isinstance(job, tuple):
        return tuple(key for part in job for key in needs_of(part))
    if is_dataclass(job):
        return tuple(dict.fromkeys(key for field in fields(job) for key in needs_of(getattr(job, field.name))))
    return ()


def _plain(value: Any) -> Any:
    if isinstance(value, Source):
        return value.identity
    if isinstance(value, PortOptions):
        return _plain(_start(value))
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Options):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if is_dataclass(value):
        plain = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Distill):  # keys have always had them here
            plain["layers"] = plain["settings"].pop("layers")
        return plain
    return value


def to_json(value: Any) -> Any:
    """Write a job out, as JSON has it."""
    if isinstance(value, Options):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return [to_json(part) for part in value]
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    return value


def _start(options: PortOptions) -> dict[str, Any]:
    """Give what a start decides, in the form that keys have always had."""
    return {
        "layers": options.layers,
        "align": options.align,
        "spaces": options.spaces,
        "sequential": options.sequential,
        "scale": options.factor,
        "head": options.head == "teacher",
    }


@dataclass(frozen=True)
class Source:
    """A model, data, texts, or what another cell makes.

    Attributes:
        where: a path or the id of something on the hub; the key of the cell that makes it.
        identity: what tells its content from another: this and nothing else of it goes into a key.
        made: whether a cell makes it.
    """

    where: str
    identity: str
    made: bool = False


def on_hub(source: Source) -> bool:
    """Whether it can only be looked for on the hub, where a task's own data (no name) are too."""
    return not source.where or isinstance(locate(source.where), HubId)
