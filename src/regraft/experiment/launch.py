"""Several processes for one training, a device each: torchrun starts them, accelerate does the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pydantic import TypeAdapter

from ..errors import TaskError
from .jobs import Distill, Train

_JOB: TypeAdapter[Train | Distill] = TypeAdapter(Train | Distill)


def is_launched() -> bool:
    """Whether this process is one of several that do one job."""
    return "LOCAL_RANK" in os.environ


def launch(root: Path, job: Train | Distill, out: Path) -> None:
    """Start the processes of a job and wait for them.

    Args:
        root: of the store.
        job: what to do.
        out: where the result goes.

    Raises:
        TaskError: they failed; the message ends with what the processes said last.
    """
    file = out.with_name("job.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_JOB.dump_json(job))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(job.processes)]
    command = [sys.executable, *torchrun, "-m", f"{__package__}.launched", str(root), str(file), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if "Error" in line] or [f"exit code {ended.returncode}"]
        raise TaskError(f"the {job.processes} processes of a training failed: {said[0].strip()}")


def read_job(file: Path) -> Train | Distill:
    """Read what `launch` wrote."""
    return _JOB.validate_json(file.read_bytes())
