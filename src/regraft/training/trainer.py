"""transformers' Trainer, set up for a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, Trainer

from ..models.pretrained import Pretrained
from ..tasks.data import Loaded
from ..tasks.encoding import collator, encode_split, score
from .devices import training_arguments
from .options import TrainOptions


def first_rows(loaded: Loaded, split: str, limit: int | None) -> Dataset:
    """Give the first rows of a split, or all."""
    rows = loaded.splits[split]
    return rows.select(range(min(len(rows), limit or len(rows))))


def _encoded(
    loaded: Loaded, split: str, limit: int | None, tokenizer: Any, base: Pretrained, options: TrainOptions
) -> Dataset:
    rows = first_rows(loaded, split, limit)
    return encode_split(loaded.task, rows, tokenizer, min(options.max_length, base.longest))


def make_trainer(
    base: Pretrained,
    model: PeftModel,
    work: Path,
    options: TrainOptions,
    loaded: Loaded,
    progress: bool,
    trains: bool = False,
    eval_on_start: bool = False,
) -> Trainer:
    """Set up a Trainer for a task, to train a module or, by default, to score it alone."""
    task = loaded.task
    tokenizer = base.tokenizer(**(base.family.word_options if task.task_type == "TOKEN_CLS" else {}))
    arguments = training_arguments(
        work,
        options,
        progress,
        num_train_epochs=options.epochs,
        per_device_eval_batch_size=2 * options.batch_size,
        eval_strategy="epoch" if trains else "no",
        eval_on_start=eval_on_start,
        save_strategy="epoch",
        load_best_model_at_end=trains,
        metric_for_best_model=task.metrics[-1],
        logging_strategy="epoch",  # in step with the checkpoints, so that a resumed curve is the uninterrupted one
        train_sampling_strategy="group_by_length" if options.length_grouped else "random",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_encoded(loaded, "train", options.max_train, tokenizer, base, options) if trains else None,
        eval_dataset=_encoded(loaded, "validation", options.max_eval, tokenizer, base, options) if trains else None,
        data_collator=collator(task, tokenizer),
        compute_metrics=lambda output: score(task, np.asarray(output.predictions), np.asarray(output.label_ids)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def score_split(
    trainer: Trainer, base: Pretrained, loaded: Loaded, split: str, options: TrainOptions
) -> dict[str, float]:
    """Score the module of a Trainer on a split: metric -> percent."""
    rows = _encoded(loaded, split, options.max_eval, trainer.data_collator.tokenizer, base, options)
    metrics = trainer.predict(rows).metrics
    return {name: metrics[f"test_{name}"] for name in loaded.task.metrics}
