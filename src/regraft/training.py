"""Fine-tune a module and score it: transformers' Trainer on accelerate, so its launchers work as they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import (
    DataCollatorForTokenClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from .checkpoint import Module, check_output, load
from .errors import TaskError, unknown_choice
from .models import BaseModel, resolve
from .runs import METRICS, curve_scores, last_checkpoint, learning_curve, work_directory
from .starts import attach, detach, fresh_module, start_from
from .tasks import ner

TASKS = ("ner",)


@dataclass(frozen=True)
class Settings:
    """How to train. Every field that changes the outcome is here, and is written beside the result.

    Attributes:
        epochs: passes over the training split.
        batch_size: sentences per step and device.
        learning_rate: peak of a linear schedule.
        warmup: share of the steps that warm up.
        seed: of the fresh weights, the order of the data and dropout.
        max_length: tokens after which a sentence is cut.
        max_train: how many training sentences to use, all by default.
        max_eval: how many validation and test sentences to use, all by default.
        rank: of a fresh LoRA.
        alpha: of a fresh LoRA.
        bottleneck_size: width of a fresh bottleneck.
    """

    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.06
    seed: int = 0
    max_length: int = 256
    max_train: int | None = None
    max_eval: int | None = None
    rank: int = 8
    alpha: int = 8
    bottleneck_size: int = 96


def train(
    model: str | Path,
    out: Path,
    peft: str = "lora",
    init: Path | None = None,
    data: Path | None = None,
    language: str = "en",
    task: str = "ner",
    settings: Settings | None = None,
    replace_existing: bool = False,
    progress: bool = True,
) -> Module:
    """Fine-tune a fresh module, or one that was ported, and write it with its learning curve.

    Checkpoints are kept in a directory beside `out` until the end: the same call after a kill goes on from the last.

    Args:
        model: the base model.
        out: where the module goes: what PEFT loads, ``regraft.json`` with all scores, ``curve.jsonl``.
        peft: ``"lora"`` (query and value) or ``"bottleneck"``, where `init` is None.
        init: a module to start from. Heads that a port initialised freshly are drawn anew from the seed, so that
            all starts share the head of their seed.
        data: folder with the task's data; None for the hub.
        language: which language of the task.
        task: one of `TASKS`.
        settings: how to train.
        replace_existing: replace `out` where it exists.
        progress: whether to draw progress bars.

    Returns:
        The best module by validation score; its ``provenance["training"]["scores"]`` has the scores before training,
        of the best checkpoint on validation, and on the test split.

    Raises:
        RegraftError: data, model, module or directories that do not serve.
    """
    settings = settings or Settings()
    _check_choice("task", task, TASKS)
    check_output(out, replace_existing)
    base = resolve(model)
    start = None if init is None else load(init)
    described = {
        **asdict(settings),
        "model": base.name,
        "start": peft if start is None else start.hash(),
        "data": str(data or ner.HUB_ID),
        "language": language,
    }
    splits = _limited(ner.load_splits(data, language), settings)
    set_seed(settings.seed)
    if start is None:
        adapted = fresh_module(base, peft, settings.rank, settings.alpha, settings.bottleneck_size)
    else:
        adapted = start_from(base, start, Path(str(init)))
    with PartialState().main_process_first():
        work = work_directory(out, described, replace_existing)
    resume = last_checkpoint(work)
    trainer = _trainer(base, adapted, work, settings, splits, progress, start_evaluated=resume is not None)
    trainer.train(resume_from_checkpoint=resume)
    curve = learning_curve(trainer.state.log_history)
    scores = {**curve_scores(curve), "test": _score(trainer, splits["test"], settings)}
    training = {"task": task, "data": f"{described['data']}, {language}", **asdict(settings), "scores": scores}
    provenance: dict[str, Any] = {"labels": list(ner.LABELS), "training": training}
    if start is not None and start.report:
        provenance["port"] = dict(start.report)
    module = detach(adapted, base, str(out), provenance)
    if trainer.is_world_process_zero():
        module.save(out, replace_existing, curve=curve)
        shutil.rmtree(work)
    trainer.accelerator.wait_for_everyone()
    return module


def evaluate(
    directory: Path,
    model: str | Path | None = None,
    data: Path | None = None,
    language: str = "en",
    task: str = "ner",
    split: str = "test",
    settings: Settings | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Score a module on a split of a task.

    Args:
        directory: the module.
        model: its base model; by default the one its configuration names.
        data: as for `train`.
        language: as for `train`.
        task: one of `TASKS`.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        settings: batch size and lengths.
        progress: whether to draw progress bars.

    Returns:
        Metric -> percent.

    Raises:
        RegraftError: data, model or module that do not serve.
    """
    settings = settings or Settings()
    _check_choice("task", task, TASKS)
    _check_choice("split", split, ner.SPLITS)
    module = load(directory)
    base = resolve(model if model is not None else module.base_model)
    splits = _limited(ner.load_splits(data, language), settings)
    set_seed(settings.seed)
    adapted = attach(base, module, directory)
    trainer = _trainer(base, adapted, Path(str(directory)), settings, None, progress, start_evaluated=True)
    return _score(trainer, splits[split], settings)


def _check_choice(kind: str, got: str, valid: tuple[str, ...]) -> None:
    if got not in valid:
        raise TaskError(unknown_choice(kind, got, valid))


def _limited(splits: Mapping[str, Dataset], settings: Settings) -> dict[str, Dataset]:
    limits = {"train": settings.max_train, "validation": settings.max_eval, "test": settings.max_eval}
    return {name: split.select(range(min(len(split), limits[name] or len(split)))) for name, split in splits.items()}


def _trainer(
    base: BaseModel,
    model: PeftModel,
    work: Path,
    settings: Settings,
    splits: Mapping[str, Dataset] | None,
    progress: bool,
    start_evaluated: bool,
) -> Trainer:
    tokenizer = base.tokenizer(**base.family.word_options)
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="linear",
        seed=settings.seed,
        eval_strategy="epoch" if splits else "no",
        eval_on_start=not start_evaluated,
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=splits is not None,
        metric_for_best_model="f1",
        logging_strategy="epoch",  # in step with the checkpoints, so that a resumed curve is the uninterrupted one
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not progress,
        report_to="none",
    )
    encoded = {
        name: ner.encode_split(split, tokenizer, settings.max_length)
        for name, split in (splits or {}).items()
        if name != "test"
    }
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("validation"),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=lambda output: ner.score(np.asarray(output.predictions), np.asarray(output.label_ids)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _score(trainer: Trainer, split: Dataset, settings: Settings) -> dict[str, float]:
    tokenizer = trainer.data_collator.tokenizer
    metrics = trainer.predict(ner.encode_split(split, tokenizer, settings.max_length)).metrics
    return {name: metrics[f"test_{name}"] for name in METRICS}
