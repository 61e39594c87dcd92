"""What a cell of an experiment does, and the key that stands for everything that determines its outcome."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..activations import sampling
from ..distillation.options import DistillOptions, RefineOptions
from ..files.hub import HubId, locate
from ..port.options import PortOptions
from ..schema import Options
from ..training.options import EvaluateOptions, TrainOptions

# Part of every key. Raised when a change of the code changes results, so that old ones are not taken for new ones.
# 2: a start whose task head is kept competes with the checkpoints, so that `validation` and `test` may be its scores.
# 3: maps are fitted in stages within a layer in sequence, and ridge writes where nothing varies in the teacher.
# 4: ridge shrinks towards the scaled assignment, both ways and in all spaces; body and head of a port in sequence are
# chosen apart, by its answers, which choose its scale too.
# 5: held-out texts are of all lengths; language models of one tokenizer are refined on their likeliest tokens.
# 6: rows of a LoRA that a port would make ten times as long as the teacher's, or as short, are given its length.
RECIPE = 6


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


@dataclass(frozen=True)
class Refine:
    """Train a module on its teacher's answers to the first `limit` training inputs of a task, and score it.

    It starts from `start` or, where there is none, from a fresh one of the kind `peft` and the sizes of `fresh`.
    """

    start: Source | None
    peft: str
    fresh: TrainOptions | None
    model: Source
    module: Source
    teacher: Source
    data: TaskSource
    limit: int | None
    settings: RefineOptions
    scoring: EvaluateOptions


Job = Distill | Train | SamplePair | Transfer | Refine


def key_of(job: Job) -> str:
    """Hash everything that determines the outcome of a job; what other cells make counts by their keys."""
    plain = json.dumps([RECIPE, type(job).__name__, job], sort_keys=True, default=_plain)
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
    """Write one record out, in the form that keys have always had."""
    match value:
        case Source():
            return value.identity
        case PortOptions():
            same = {name: getattr(value, name) for name in ("layers", "align", "spaces", "sequential")}
            return {**same, "scale": value.factor, "head": value.head == "teacher"}
        case Distill():
            settings = dict(value.settings)
            return {**vars(value), "layers": settings.pop("layers"), "settings": settings}
        case RefineOptions() | TrainOptions():
            silent = ("hard", "certainty", "hidden", "weigh_changes", "sites")
            return {name: one for name, one in value if one or name not in silent}
        case Options():
            return dict(value)
        case _:
            return vars(value)


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
