"""Which numbers a training computes in, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import TrainingArguments

from ..errors import TaskError
from .options import Precision, StepOptions


def mixed_precision(precision: Precision) -> str | None:
    """Say in which type a training computes besides float32; None for none.

    Args:
        precision: ``"auto"`` is bfloat16, or else float16, where a GPU can, and float32 elsewhere.

    Raises:
        TaskError: this machine cannot train in it.
    """
    if precision == "float16" and not torch.cuda.is_available():
        raise TaskError("got precision float16 without a GPU, expected float32 or bfloat16; 'auto' chooses what serves")
    if precision == "auto" and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return precision if precision in ("bfloat16", "float16") else None


def training_arguments(work: Path, options: StepOptions, progress: bool, **others: Any) -> TrainingArguments:
    """Tell a Trainer what every training has, and to keep to one device per process.

    Args:
        work: where checkpoints go.
        options: how to train.
        progress: whether to draw progress bars.
        others: further fields of ``TrainingArguments``, how long it goes on among them.
    """
    mixed = mixed_precision(options.precision)
    others = {"warmup_steps": options.warmup, "lr_scheduler_type": "linear", **others}
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not progress,
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),  # else it refuses bfloat16 where there is nothing but a CPU
        bf16=mixed == "bfloat16",
        fp16=mixed == "float16",
        **others,
    )
    # It would spread a batch, enlarged, over all that it sees; several devices are the launcher's business.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def processes() -> Any:
    """Give accelerate's view of the processes; on CPUs it would see one of several unless it is told."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
