"""Run an experiment in child processes, kill -9 each after a random while, until one of them ends by itself.

    python tests/kill_runs.py EXPERIMENT.yaml STORE SEED

Prints as JSON how many were killed, and which cells were ended how often. The children are forked, so that a kill comes
after milliseconds of work and not amid imports; this process itself never computes anything.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import torch
from transformers.utils.logging import disable_progress_bar

from regraft.experiment.executors import Local
from regraft.experiment.grid import Cell, make_grid
from regraft.experiment.load import load
from regraft.experiment.run import run
from regraft.experiment.store import Store
from regraft.experiment.work import Outcome


def child(path: Path, root: Path, log: Path) -> None:
    with log.open("a") as file:

        def ended(_: Cell, outcome: Outcome) -> None:
            file.write(f"{outcome.key} {outcome.status} {outcome.error}\n")
            file.flush()

        experiment = load(path)
        result = run(experiment, make_grid(experiment), Store(root), Local(), ended=ended)
    os._exit(1 if result.failed else 0)


def main() -> None:
    path, root, dice = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(int(sys.argv[3]))
    log = root.with_name("ended.log")
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    disable_progress_bar()
    kills, first_seen, changed, during = 0, {}, set(), Counter()
    while True:
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            child(path, root, log)
        # Now and then longer than the longest cell, so that each can end once.
        deadline = time.monotonic() + dice.uniform(0.05, 1.5 + 0.1 * kills)
        status = None
        while status is None and time.monotonic() < deadline:
            ended, code = os.waitpid(pid, os.WNOHANG)
            status = code if ended else None
            time.sleep(0.005)
        if status is None:
            during[
                "a checkpoint was there" if list(root.glob("work/*/*.training/checkpoint-*")) else "no checkpoint"
            ] += 1
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills += 1
        for record in root.glob("cells/*/cell.json"):
            file = (record.stat().st_ino, record.stat().st_mtime_ns)
            if first_seen.setdefault(record.parent.name, file) != file:
                changed.add(record.parent.name)
        if status is not None:
            break
    lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
    print(
        json.dumps(
            {
                "exit code": os.waitstatus_to_exitcode(status),
                "kills": kills,
                "when": dict(during),
                "ended": Counter(line[0] for line in lines),
                "failed": [line for line in lines if line[1] != "done"],
                "done again": sorted(changed),
            }
        )
    )


if __name__ == "__main__":
    main()
