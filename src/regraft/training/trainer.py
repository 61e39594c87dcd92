"""transformers' Trainer, set up for a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import PeftModel
from transformers import Trainer

from ..models.pretrained import Pretrained
from ..tasks.data import Loaded
from ..tasks.kinds import KINDS
from .devices import training_arguments
from .display import show_trainer
from .language import LanguageTrainer
from .options import TrainOptions


def first_rows(loaded: Loaded, split: str, limit: int | None) -> Dataset:
    """Give the first rows of a split, or all."""
    rows = loaded.splits[split]
    return rows.select(range(min(len(rows), limit or len(rows))))


# Task type -> its Trainer, where transformers' own does not serve.
_TRAINERS: Mapping[str, type[Trainer]] = {"CAUSAL_LM": LanguageTrainer}


def _encoded(
    loaded: Loaded, split: str, tokenizer: Any, base: Pretrained, options: TrainOptions, packed: bool = False
) -> Dataset:
    kind, limit = KINDS[loaded.task.task_type], options.max_train if packed else options.max_eval
    encode = kind.pack if packed else kind.encode
    return encode(loaded.task, first_rows(loaded, split, limit), tokenizer, min(options.max_length, base.longest))


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
    task, kind = loaded.task, KINDS[loaded.task.task_type]
    tokenizer = base.tokenizer(**(base.family.word_options if kind.words else {}))
    arguments = training_arguments(
        work,
        options,
        num_train_epochs=options.epochs,
        per_device_eval_batch_size=2 * options.batch_size,
        eval_strategy="epoch" if trains else "no",
        eval_on_start=eval_on_start,
        save_strategy="epoch",
        load_best_model_at_end=trains,
        metric_for_best_model=task.metrics[-1],
        greater_is_better=not task.metric.less_is_better,
        logging_strategy="epoch",  # in step with the checkpoints, so that a resumed curve is the uninterrupted one
        train_sampling_strategy="group_by_length" if options.length_grouped else "random",
    )
    trainer = _TRAINERS.get(task.task_type, Trainer)(
        model=model,
        args=arguments,
        train_dataset=_encoded(loaded, "train", tokenizer, base, options, packed=True) if trains else None,
        eval_dataset=_encoded(loaded, "validation", tokenizer, base, options) if trains else None,
        data_collator=kind.collator(tokenizer),
        compute_metrics=lambda output: kind.score(task, np.asarray(output.predictions), np.asarray(output.label_ids)),
    )
    show_trainer(trainer, "Training", progress)
    return trainer


def score_split(
    trainer: Trainer, base: Pretrained, loaded: Loaded, split: str, options: TrainOptions
) -> dict[str, float]:
    """Score the module of a Trainer on a split, by metric."""
    rows = _encoded(loaded, split, trainer.data_collator.tokenizer, base, options)
    metrics = trainer.predict(rows).metrics
    return {name: metrics[f"test_{name}"] for name in loaded.task.metrics}
