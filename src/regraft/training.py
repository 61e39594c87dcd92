"""Fine-tune a module and score it: transformers' Trainer on accelerate, so its launchers work as they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from .errors import ModuleFileError, TaskError, unknown_choice
from .models.pretrained import BaseModel, resolve
from .modules.module import Module, check_output, load
from .precision import mixed_precision
from .processes import one_device, processes
from .runs import curve_scores, last_checkpoint, learning_curve, work_directory
from .settings import Settings
from .starts import attach, detach, fresh_module, in_order_of, keeps_head
from .tasks.data import Loaded, load_task
from .tasks.encoding import collator, encode_split, score
from .tasks.records import task_named
from .tasks.sources import SPLITS
from .tracking import Tracking, tracked


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


def evaluate(
    directory: str | Path,
    model: str | Path | None = None,
    data: str | Path | None = None,
    language: str = "en",
    task: str = "ner",
    split: str = "test",
    settings: Settings | None = None,
    progress: bool = True,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> dict[str, float]:
    """Score a module on a split of a task.

    Args:
        directory: the module. Where the names of its labels are known, they are matched with the task's by name.
        model: its base model; by default the one its configuration names.
        data: as for `train`.
        language: as for `train`.
        task: as for `train`.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        settings: batch size and lengths.
        progress: whether to draw progress bars.
        columns: as for `train`.
        labels: as for `train`.

    Returns:
        Metric -> percent.

    Raises:
        RegraftError: data, model or module that do not serve.
    """
    settings = settings or Settings()
    if split not in SPLITS:
        raise TaskError(unknown_choice("split", split, SPLITS))
    module = load(directory)
    if model is None and not module.base_model:
        raise ModuleFileError(f"{module.source} does not name its base model; name it (--model)")
    loaded = in_order_of(module, load_task(task_named(task), data, language, columns, labels))
    base = resolve(model if model is not None else module.base_model)
    set_seed(settings.seed)
    adapted = attach(base, module, loaded.task)
    with TemporaryDirectory() as work:  # the Trainer wants one, and writes nothing there
        trainer = _trainer(base, adapted, Path(work), settings, loaded, progress)
        return _score(trainer, base, loaded, split, settings.max_eval, settings)


def _encoded(
    loaded: Loaded, split: str, limit: int | None, tokenizer: Any, base: BaseModel, settings: Settings
) -> Dataset:
    rows = loaded.splits[split]
    rows = rows.select(range(min(len(rows), limit or len(rows))))
    return encode_split(loaded.task, rows, tokenizer, min(settings.max_length, base.longest))


def _trainer(
    base: BaseModel,
    model: PeftModel,
    work: Path,
    settings: Settings,
    loaded: Loaded,
    progress: bool,
    trains: bool = False,
    eval_on_start: bool = False,
) -> Trainer:
    task = loaded.task
    tokenizer = base.tokenizer(**(base.family.word_options if task.task_type == "TOKEN_CLS" else {}))
    mixed = mixed_precision(settings.precision)
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="linear",
        seed=settings.seed,
        eval_strategy="epoch" if trains else "no",
        eval_on_start=eval_on_start,
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=trains,
        metric_for_best_model=task.metrics[-1],
        logging_strategy="epoch",  # in step with the checkpoints, so that a resumed curve is the uninterrupted one
        train_sampling_strategy="group_by_length" if settings.length_grouped else "random",
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not progress,
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),  # else it refuses bfloat16 where there is nothing but a CPU
        bf16=mixed == "bfloat16",
        fp16=mixed == "float16",
    )
    trainer = Trainer(
        model=model,
        args=one_device(arguments),
        train_dataset=_encoded(loaded, "train", settings.max_train, tokenizer, base, settings) if trains else None,
        eval_dataset=_encoded(loaded, "validation", settings.max_eval, tokenizer, base, settings) if trains else None,
        data_collator=collator(task, tokenizer),
        compute_metrics=lambda output: score(task, np.asarray(output.predictions), np.asarray(output.label_ids)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _score(
    trainer: Trainer, base: BaseModel, loaded: Loaded, split: str, limit: int | None, settings: Settings
) -> dict[str, float]:
    rows = _encoded(loaded, split, limit, trainer.data_collator.tokenizer, base, settings)
    metrics = trainer.predict(rows).metrics
    return {name: metrics[f"test_{name}"] for name in loaded.task.metrics}
