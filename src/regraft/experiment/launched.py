"""One of several processes that do one job: ``python -m regraft.experiment.launched STORE JOB OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

from .launch import read_job
from .store import Store
from .work import make

if __name__ == "__main__":
    root, file, out = map(Path, sys.argv[1:])
    make(Store(root), read_job(file), out)
