"""Fine-tune a module and score it: transformers' Trainer on accelerate, so its launchers work as they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..models.pretrained import resolve
from ..modules.module import Module, check_output, load
from ..tasks.data import load_task
from ..tasks.records import task_named
from .attachment import attach, detach, keeps_head
from .devices import mixed_precision, processes
from .fresh import fresh_module
from .options import Settings
from .runs import curve_scores, last_checkpoint, learning_curve, work_directory
from .tracking import Tracking, tracked
from .trainer import _score, _trainer


def train(
    model: str | Path,
    out: Path,
    peft: str = "lora",
    init: str | Path | None = None,
    data: str | Path | None = None,
    language: str = "en",
    task: str = "ner",
    settings: Settings | None = None,
    replace_existing: bool = False,
    progress: bool = True,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    tracking: Tracking | None = None,
) -> Module:
    """Fine-tune a fresh module, or one that was ported, and write it with its learning curve.

    Checkpoints are kept in a directory beside `out` until the end: the same call after a kill goes on from the last.

    Args:
        model: the base model.
        out: where the module goes: what PEFT loads, ``regraft.json`` with all scores, ``curve.jsonl``.
        peft: ``"lora"`` (query and value) or ``"bottleneck"``, where `init` is None.
        init: a module to start from, see `Settings.head` for its task head.
        data: folder or data set of the hub, see `tasks.data.load_task`; None for the task's own on the hub.
        language: which language of the task.
        task: a key of `tasks.records.TASKS`.
        settings: how to train.
        replace_existing: replace `out` where it exists.
        progress: whether to draw progress bars.
        columns: name of a column of the task -> its name in the data, where these differ.
        labels: names of the labels, instead of the task's.
        tracking: where to show the training, by default nowhere.

    Returns:
        The best module by validation score; its ``provenance["training"]["scores"]`` has the scores before training,
        of the best checkpoint on validation, and on the test split.

    Raises:
        RegraftError: data, model, module or directories that do not serve.
    """
    settings = settings or Settings()
    mixed_precision(settings.precision)  # refuses what this machine cannot do before any work
    check_output(out, replace_existing)
    base = resolve(model)
    start = None if init is None else load(init)
    loaded = load_task(task_named(task), data, language, columns, labels)
    kept = keeps_head(start, loaded, settings.head)
    if start is not None and kept and start.labels:
        loaded = loaded.ordered(start.labels)
    described = {
        **asdict(settings),
        "head": "teacher" if kept else "fresh",
        "model": base.name,
        "model_weights": base.weights_id,
        "start": peft if start is None else start.source,
        "start_hash": None if start is None else start.hash(),
        "task": task,
        "data": loaded.source,
        "data_hash": loaded.fingerprint,
        "left_out": loaded.left_out,
        "labels": list(loaded.task.labels),
    }
    set_seed(settings.seed)
    if start is None:
        adapted = fresh_module(base, loaded.task, peft, settings.rank, settings.alpha, settings.bottleneck_size)
    else:
        adapted = attach(base, start, loaded.task, fresh_head=not kept)
    with processes().main_process_first():
        work = work_directory(out, described, replace_existing)
    resume = last_checkpoint(work)
    trainer = _trainer(base, adapted, work, settings, loaded, progress, trains=True, eval_on_start=resume is None)
    with tracked(trainer, tracking):
        trainer.train(resume_from_checkpoint=resume)
    curve = learning_curve(trainer.state.log_history, loaded.task.metrics)
    scores = curve_scores(curve, loaded.task.metrics)
    scores["test"] = _score(trainer, base, loaded, "test", settings.max_eval, settings)
    provenance: dict[str, Any] = {
        "labels": list(loaded.task.labels),
        "training": {**described, "scores": scores},
    }
    if start is not None and start.report:
        provenance["port"] = dict(start.report)
    module = detach(adapted, base, str(out), provenance)
    if trainer.is_world_process_zero():
        module.save(out, replace_existing, curve=curve)
        shutil.rmtree(work)
    trainer.accelerator.wait_for_everyone()
    return module
