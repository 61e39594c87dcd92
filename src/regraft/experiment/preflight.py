"""Refuse ports that cannot be made before anything is trained: from configurations and shapes alone."""

from __future__ import annotations

import copy

import torch

from ..checkpoint import Module
from ..distillation.shallower import choose_layers
from ..models import HEAD_CLASSES, BaseModel, resolve
from ..port import plan
from ..starts import fresh_config, plain_config
from ..student import expected_tensors
from ..tasks.records import task_named
from .grid import Grid
from .jobs import Distill, Source, Train, Transfer
from .starts import Start


def check_ports(grid: Grid) -> None:
    """Plan every sort of port of an experiment once, with a module of the shapes that the teacher's will have.

    Raises:
        RegraftError: a model that cannot be found, or the first port that its plan refuses.
    """
    checked: set[tuple[Source, Source, str, str, Start]] = set()
    for cell in grid.cells.values():
        if not isinstance(cell.job, Transfer):
            continue
        trained = grid.cells[cell.job.module.where].job
        assert isinstance(trained, Train)
        sort = (cell.job.teacher, cell.job.student, trained.peft, trained.data.task, cell.job.start)
        if sort not in checked:
            checked.add(sort)
            _check(trained, cell.job, _student(grid, cell.job.student), cell.label)


def _student(grid: Grid, source: Source) -> BaseModel:
    if not source.made:
        return resolve(source.where)
    job = grid.cells[source.where].job
    assert isinstance(job, Distill)
    teacher = resolve(job.teacher.where)
    config = copy.deepcopy(teacher.config)
    layers = choose_layers(job.layers, config.num_hidden_layers)
    config.num_hidden_layers = len(layers)
    return BaseModel(f"student of {teacher.name}", config)


def _check(trained: Train, job: Transfer, student: BaseModel, label: str) -> None:
    teacher, chosen = resolve(job.teacher.where), trained.settings
    task = task_named(trained.data.task)
    fresh = fresh_config(teacher, task, trained.peft, chosen.rank, chosen.alpha, chosen.bottleneck_size)
    config = plain_config(fresh, teacher)
    labels = len(trained.data.labels or task.labels) or 2  # any number will do for shapes
    skeleton = teacher.skeleton(HEAD_CLASSES[task.task_type], labels)
    shapes = expected_tensors(config, skeleton)
    module = Module(config, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, label)
    start = job.start
    layers = start.layers if isinstance(start.layers, str) else list(start.layers)
    head = "teacher" if start.head else "fresh"
    plan(module, student, teacher, layers, start.align, start.spaces, head).check()
