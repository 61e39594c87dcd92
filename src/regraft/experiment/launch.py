"""Several processes for one training, a device each: torchrun starts them, accelerate does the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter

from ..errors import TaskError
from ..files.writing import told, write_bytes
from ..training.tracking import Tracking
from .jobs import Distill, Train


@dataclass(frozen=True)
class Order:
    """What the processes are to do.

    Attributes:
        root: of the store.
        job: what to do.
        out: where the result goes.
        tracking: where to show the training.
    """

    root: Path
    job: Train | Distill
    out: Path
    tracking: Tracking


ORDER = TypeAdapter(Order)


def is_launched() -> bool:
    """Whether this process is one of several that do one job."""
    return "LOCAL_RANK" in os.environ


def launch(order: Order) -> None:
    """Start the processes of a job and wait for them.

    Raises:
        TaskError: they failed; the message has the first error that they named.
    """
    file = order.out.with_name("order.json")
    with told(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        error_of(file).unlink(missing_ok=True)
        write_bytes(file, ORDER.dump_json(order))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(order.job.processes)]
    command = [sys.executable, *torchrun, "-m", f"{__package__}.launched", str(file)]
    devices = {} if torch.cuda.is_available() else {"ACCELERATE_USE_CPU": "true"}  # it would see one process otherwise
    # They die when they read the end of their input, which this process holds open while it lives and the block lasts.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **devices},
    ) as processes:
        assert processes.stderr is not None
        output = processes.stderr.read()
        processes.wait()
    if processes.returncode:
        note = error_of(file)
        reason = note.read_text(encoding="utf-8") if note.is_file() else f"exit code {processes.returncode}"
        raise TaskError(f"one of {order.job.processes} processes failed: {reason}") from RuntimeError(output)


def error_of(file: Path) -> Path:
    """Where the processes of an order write why they failed."""
    return file.with_name("error.txt")
