"""One of several processes that do one job: ``python -m regraft.experiment.launched ORDER``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from ..files.writing import write_text
from .launch import ORDER, error_of
from .store import Store
from .work import make, sentence


def _die_with_parent() -> None:
    """End at once when the process that gave the order is gone, which frees the cell for others."""
    os.read(sys.stdin.fileno(), 1)  # not of the buffer, whose lock the interpreter wants when it ends
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_die_with_parent, daemon=True).start()
    path = Path(sys.argv[1])
    order = ORDER.validate_json(path.read_bytes())
    try:
        make(Store(order.root), order.job, order.out, order.tracking)
    except Exception as error:  # of whatever kind: told to who gave the order, and raised
        write_text(error_of(path), sentence(error))
        raise
