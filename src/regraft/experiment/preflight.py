"""Refuse what could not work before anything is trained: models, data or texts that are not there, impossible ports."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..distillation.shallower import choose_layers
from ..files.texts import read_texts
from ..models.pretrained import HEAD_CLASSES, Pretrained, resolve
from ..modules.config import expected_tensors, plain_config
from ..modules.module import Module
from ..port.options import PortOptions
from ..port.pipeline import Port
from ..tasks.records import task_named
from ..tasks.sources import find_rows
from ..training.fresh import fresh_config
from ..training.options import TrainOptions
from .grid import Cell, Grid
from .jobs import Distill, Reading, SamplePair, Source, TaskSource, TextSource, Train, Transfer, on_hub


def check(grid: Grid) -> None:
    """Look at all models' configurations, at local data and texts, and plan every sort of port once.

    Ports are planned with a module of the shapes that the teacher's will have. Of the hub only configurations are read.

    Raises:
        RegraftError: the first thing that cannot work.
    """
    checked: set[object] = set()
    for cell in grid.cells.values():
        for what in _parts(grid, cell):
            if what not in checked:
                checked.add(what)
                _check(grid, what, cell.label)


@dataclass(frozen=True)
class _Port:
    """A sort of port, once for all languages and seeds."""

    teacher: Source
    student: Source
    peft: str
    task: str
    labels: tuple[str, ...] | None
    start: PortOptions
    training: TrainOptions


def _parts(grid: Grid, cell: Cell) -> Iterator[Source | TaskSource | TextSource | _Port]:
    """List what a cell depends on that can be looked at beforehand."""
    job = cell.job
    match job:
        case Distill():
            yield job.teacher
            yield from job.texts
        case Train():
            yield job.model
            yield job.data
        case SamplePair(reading=Reading(texts=TextSource() as texts)):
            yield texts
        case Transfer():
            if job.reading is not None and isinstance(job.reading.texts, TextSource):
                yield job.reading.texts
            trained = grid.cells[job.module.where].job
            assert isinstance(trained, Train)
            yield _Port(
                job.teacher,
                job.student,
                trained.peft,
                trained.data.task,
                trained.data.labels,
                job.start,
                trained.settings,
            )


def _check(grid: Grid, what: Source | TaskSource | TextSource | _Port, label: str) -> None:
    match what:
        case Source():
            _base(grid, what)
        case TaskSource() if not on_hub(what.data):
            task = task_named(what.task)
            renamed = {name: name for name in task.columns} | dict(what.columns)
            find_rows(task, what.data.where, what.language, renamed)
        case TextSource() if not on_hub(what.source):
            read_texts(what.source.where, what.column, 1, what.split)
        case _Port():
            _check_port(what, _base(grid, what.teacher), _base(grid, what.student), label)


def _base(grid: Grid, source: Source) -> Pretrained:
    """Find a model, or say what the one will look like that is yet to be made."""
    if not source.made:
        return resolve(source.where)
    job = grid.cells[source.where].job
    assert isinstance(job, Distill)
    teacher = resolve(job.teacher.where)
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(choose_layers(job.settings.layers, config.num_hidden_layers))
    return Pretrained(f"student of {teacher.name}", config)


def _check_port(port: _Port, teacher: Pretrained, student: Pretrained, label: str) -> None:
    task = task_named(port.task)
    config = plain_config(fresh_config(teacher, task, port.peft, port.training), teacher)
    labels = len(port.labels or task.labels) or 2  # any number will do for shapes
    shapes = expected_tensors(config, teacher.skeleton(HEAD_CLASSES[task.task_type], labels))
    module = Module(config, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, label)
    # What it is fitted on is read when its cell is carried out: no plan depends on it.
    Port(module, teacher, student, port.start, texts=()).plan.check()
