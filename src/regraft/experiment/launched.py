"""One of several processes that do one job: ``python -m regraft.experiment.launched ORDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from .launch import read_order
from .store import Store
from .work import make

if __name__ == "__main__":
    order = read_order(Path(sys.argv[1]))
    make(Store(order.root), order.job, order.out, order.tracking)
