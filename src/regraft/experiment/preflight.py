"""Refuse what could not work before anything is trained: models, data or texts that are not there, impossible ports."""

from __future__ import annotations

import copy
from functools import cache, partial

import torch

from ..distillation.shallower import choose_layers
from ..files.texts import read_texts
from ..models.pretrained import HEAD_CLASSES, Pretrained, resolve
from ..modules.config import expected_tensors, plain_config
from ..modules.module import Module
from ..port.pipeline import Port
from ..tasks.records import task_named
from ..tasks.sources import find_rows
from ..training.fresh import fresh_config
from .grid import Grid
from .jobs import Distill, Reading, Refine, SamplePair, Source, TaskSource, TextSource, Train, Transfer, on_hub


def check(grid: Grid) -> None:
    """Look at all models' configurations, at local data and texts, and plan every sort of port once.

    Ports are planned with a module of the shapes that the teacher's will have. Of the hub only configurations are read.

    Raises:
        RegraftError: the first thing that cannot work.
    """
    model, rows, texts = cache(partial(_base, grid)), cache(_find_rows), cache(_read_one)
    planned: set[object] = set()
    for cell in grid.cells.values():
        job = cell.job
        match job:
            case Distill():
                model(job.teacher)
                for source in job.texts:
                    texts(source)
            case Train() | Refine():
                model(job.model)
                rows(job.data)
            case SamplePair(reading=Reading(texts=source)) | Transfer(reading=Reading(texts=source)):
                if isinstance(source, TextSource):
                    texts(source)
        if isinstance(job, Transfer):
            trained = grid.cells[job.module.where].job
            assert isinstance(trained, Train)
            task, labels = trained.data.task, trained.data.labels
            sort = (job.teacher, job.student, job.start, trained.peft, task, labels, trained.settings)
            if sort not in planned:  # once for all languages and seeds
                planned.add(sort)
                _plan(job, trained, model(job.teacher), model(job.student), cell.label)


def _find_rows(data: TaskSource) -> None:
    if not on_hub(data.data):
        task = task_named(data.task)
        renamed = {name: name for name in task.columns} | dict(data.columns)
        find_rows(task, data.data.where, data.language, renamed)


def _read_one(texts: TextSource) -> None:
    if not on_hub(texts.source):
        read_texts(texts.source.where, texts.column, 1, texts.split)


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


def _plan(job: Transfer, trained: Train, teacher: Pretrained, student: Pretrained, label: str) -> None:
    task = task_named(trained.data.task)
    config = plain_config(fresh_config(teacher, task, trained.peft, trained.settings), teacher)
    labels = len(trained.data.labels or task.labels) or 2  # any number will do for shapes
    shapes = expected_tensors(config, teacher.skeleton(HEAD_CLASSES[task.task_type], labels))
    module = Module(config, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, label)
    # What it is fitted on is read when its cell is carried out: no plan depends on it.
    Port(module, teacher, student, job.start, texts=()).plan.check()
