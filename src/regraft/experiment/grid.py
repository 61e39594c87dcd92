"""From an experiment to its cells: what is done once, what it needs, and which number of the tables it gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

from ..alignment.methods import METHODS
from ..distillation.options import DistillOptions, RefineOptions
from ..files.fingerprints import data_identity, model_identity, texts_identity
from ..files.hub import expand
from ..models.sites import ALL_LINEAR
from ..schema import Options
from ..tasks.records import Task, task_named
from ..training.options import EvaluateOptions, TrainOptions, preset
from .jobs import (
    Distill,
    Job,
    Reading,
    Refine,
    SamplePair,
    Source,
    TaskSource,
    TextSource,
    Train,
    Transfer,
    key_of,
    needs_of,
)
from .spec import KINDS, TASK_TEXTS, Experiment, Pair, Resources, TaskData
from .starts import Start, parse

TEACHER = "teacher"


@dataclass(frozen=True)
class Cell:
    """One thing to do.

    Attributes:
        key: hash of everything that determines its outcome.
        kind: one of `spec.KINDS`.
        label: for people.
        groups: cells of one group take about equally long; the most similar first.
        needs: keys of the cells whose results it takes.
        job: what to do.
    """

    key: str
    kind: str
    label: str
    groups: tuple[str, ...]
    needs: tuple[str, ...]
    job: Job


@dataclass(frozen=True)
class Number:
    """One number of the tables: the score of a trained module.

    Attributes:
        setting: name of the pair.
        task: name of the task in the file.
        metric: what picks the best checkpoint.
        language: of the data.
        peft: kind of the module.
        row: ``"teacher"``, ``"student"`` (the baseline) or another start.
        seed: of the training.
        key: the cell that trains it.
        start_key: the cell that ports its start, if any.
    """

    setting: str
    task: str
    metric: str
    language: str
    peft: str
    row: str
    seed: int
    key: str
    start_key: str | None = None


@dataclass(frozen=True)
class Grid:
    """The cells of an experiment, each once and behind those that it needs, and the numbers they give."""

    cells: Mapping[str, Cell]
    numbers: tuple[Number, ...]


def make_grid(experiment: Experiment) -> Grid:
    """List the cells of an experiment; reads local files to tell their content, nothing of the hub.

    Raises:
        RegraftError: variables, packages or settings that do not serve.
    """
    builder = _Builder(experiment)
    numbers = tuple(builder.numbers())
    cells = sorted(builder.cells.values(), key=lambda cell: KINDS.index(cell.kind))  # stable: seeds stay in order
    return Grid({cell.key: cell for cell in cells}, numbers)


@dataclass(frozen=True)
class _Place:
    """Where in the tables a cell belongs."""

    setting: str
    task: str = ""
    language: str = ""
    peft: str = ""

    def __str__(self) -> str:
        task = f"{self.task}/{self.language}" if self.task else ""
        return " ".join(part for part in (self.setting, task, self.peft) if part)


class _Builder:
    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.cells: dict[str, Cell] = {}
        self.model = cache(_model)
        self.data = cache(_data)
        self.texts = cache(_texts)

    def numbers(self) -> Iterator[Number]:
        # Seeds outermost: the table of the first seed is complete before the second begins.
        for seed in self.experiment.seeds:
            for setting, pair in self.experiment.pairs.items():
                for name in pair.tasks or self.experiment.tasks:
                    for language in self.experiment.tasks[name].languages:
                        for peft in self.experiment.modules:
                            yield from self.group(setting, pair, name, language, peft, seed)

    def group(self, setting: str, pair: Pair, name: str, language: str, peft: str, seed: int) -> Iterator[Number]:
        """Give the numbers that stand in one column of one block: the teacher's and those of its students."""
        entry = self.experiment.tasks[name]
        task = task_named(entry.task or name)
        place = _Place(setting, name, language, peft)
        data = TaskSource(
            entry.task or name,
            language,
            self.data(entry.data, language, task.formats),
            tuple((entry.columns or {}).items()),
            tuple(entry.labels) if entry.labels else None,
        )
        teacher, student = self.model(pair.teacher), self.student(setting, pair)

        number = partial(Number, setting, name, task.metrics[-1], language, peft)
        top = self.options(task, entry, peft, teachers=True)
        kind = self.experiment.peft(peft)
        module = self.add(TEACHER, place, "teacher", Train(teacher, kind, None, data, top, self.processes("teacher")))
        if seed == self.experiment.seeds[0]:
            yield number(TEACHER, top.seed, module.where)
        for row in pair.starts:
            start, ported = parse(row), None
            if start.port is not None:
                order = Transfer(module, teacher, student, start.port, None, None, seed)
                ported = self.port(place, pair, data, order, start.steps is None)
            head = "fresh" if start.port is None else start.port.head
            options = self.options(task, entry, peft, seed=seed, head=head)
            if start.steps is None:
                job: Job = Train(student, kind, ported, data, options, self.processes("student"))
                result = self.add("student", place, f"{row} seed {seed}", job)
            else:
                fresh = _of(options, TrainOptions, ("rank", "alpha", "sites", "bottleneck_size", "seed"))
                scoring = _of(options, EvaluateOptions, EvaluateOptions.model_fields)
                learnt = (data, self.experiment.refining.max_texts, self.refining(start, seed))
                begins = (ported, kind, fresh if ported is None else None)
                job = Refine(*begins, student, module, teacher, *learnt, scoring)
                result = self.add("refine", place, f"{row} seed {seed}", job)
            yield number(row, seed, result.where, ported.where if ported else None)

    def refining(self, start: Start, seed: int) -> RefineOptions:
        """Say how a start is refined; the rank of the file is that to which modules grow."""
        values: dict[str, Any] = {"precision": "float32", **self.experiment.refining.given()}
        if not start.grows:
            values.pop("rank", None)
        grow = (ALL_LINEAR,) if start.grows else None
        return RefineOptions(**{**values, "steps": start.steps, "grow": grow, "seed": seed})

    def student(self, setting: str, pair: Pair) -> Source:
        if pair.student is not None:
            return self.model(pair.student)
        recipe = pair.distill
        assert recipe is not None  # the file says so
        texts = tuple(self.texts(text, recipe.column, recipe.text_split, recipe.max_texts) for text in recipe.texts)
        options = DistillOptions(**{"precision": "float32", **recipe.given()})
        job = Distill(self.model(pair.teacher), texts, options, self.processes("distill"))
        return self.add("distill", _Place(setting), "distill", job)

    def port(self, place: _Place, pair: Pair, data: TaskSource, job: Transfer, trained: bool) -> Source:
        """Add a port, with what it is fitted on; `trained`: a training follows, which draws a fresh head anew."""
        start, method = job.start, METHODS[str(job.start.align)]
        if start.sequential:
            job = replace(job, reading=self.reading(pair, data))
        elif method.needs_moments:
            sample = SamplePair(job.teacher, job.student, start.layers, self.reading(pair, data))
            job = replace(job, moments=self.add("sample", replace(place, peft=""), "sample", sample))
        if not method.draws and (trained or start.head == "teacher"):  # then nothing that is kept depends on the seed
            job = replace(job, seed=0)
        return self.add("transfer", place, f"port {start}", job)

    def reading(self, pair: Pair, data: TaskSource) -> Reading:
        sampling = pair.sampling
        if sampling.texts == TASK_TEXTS:
            return Reading(data, sampling.max_texts, sampling.pairing)
        texts = self.texts(sampling.texts, sampling.column, sampling.text_split, sampling.max_texts)
        return Reading(texts, sampling.max_texts, sampling.pairing)

    def processes(self, kind: str) -> int:
        # One for each GPU. They count in the key, since a batch is so many rows per device.
        return max(1, int(self.experiment.resources.get(kind, Resources()).gpus))

    def add(self, kind: str, place: _Place, what: str, job: Job) -> Source:
        key = key_of(job)
        groups = (f"{kind} {place.setting} {place.task} {place.peft}", f"{kind} {place.task}", kind)
        self.cells.setdefault(key, Cell(key, kind, f"{place} {what}", groups, needs_of(job), job))
        return Source(key, key, made=True)

    def options(self, task: Task, entry: TaskData, peft: str, teachers: bool = False, **more: Any) -> TrainOptions:
        # From the most general to the most special; what is said of teachers counts more than all that is not.
        layers = (self.experiment.training, entry.training, self.experiment.modules[peft])
        # What the machine has is not to decide: the outcome is one for each key.
        values: dict[str, Any] = {"precision": "float32"}
        name = next((layer.preset for layer in reversed(layers) if layer.preset), "fast")
        values |= preset(name, task).model_dump(exclude_unset=True)
        for layer in layers:
            values |= layer.given()
        if teachers:
            for layer in layers:
                values |= layer.teacher.given()
            more = {"head": "fresh"}
        return TrainOptions(**{**values, **more})


Record = TypeVar("Record", bound=Options)


def _of(options: TrainOptions, record: type[Record], names: Iterable[str]) -> Record:
    return record(**{name: getattr(options, name) for name in names})


def _model(name: str) -> Source:
    where = expand(name)
    return Source(where, model_identity(where))


def _data(name: str | None, language: str, formats: tuple[str, ...]) -> Source:
    where = "" if name is None else expand(name)
    return Source(where, data_identity(where, language, formats))


def _texts(name: str, column: str, split: str, limit: int | None) -> TextSource:
    where = expand(name)
    return TextSource(Source(where, texts_identity(where)), column, split, limit)
