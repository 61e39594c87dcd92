"""Run a command again and again, each time with a fault at another operation, and look at what is left.

Run as a process of its own, with the library made of faults.c loaded before all others, and `Sweep`s in JSON as its
argument; the commands run in forks of it, so that what they import is imported once. Prints a `Swept` for each in JSON.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

KINDS = {"count": 0, "kill": 1, "stop": 2, "full": 3, "fail": 4}
FAULTS = ("kill", "stop", "full", "fail")
# What the record of a cell says of when and where it was made.
OF_RUN = ("seconds", "resumed", "ended", "host", "process", "seal")


@dataclass
class Sweep:
    """What to run, and which operations to disturb.

    Attributes:
        command: words of the command line; what it writes lies below the working directory.
        place: a directory that is not there yet.
        kept: names of what the command may leave behind when it ends before its time, to go on from.
        before: a command that makes what stands there before; none where nothing does.
        every: a fault at each so many operations, another kind each time; 0 for every kind at every operation.
    """

    command: list[str]
    place: str
    kept: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    every: int = 0


@dataclass
class Swept:
    """What came of it: the number of operations, of runs with a fault, and what was wrong after which of them."""

    operations: int
    runs: int
    wrong: list[str]


def sweep(library: str, asked: Sweep) -> Swept:
    """Run a command with faults, and afterwards without; both times look at what is there."""
    faults = ctypes.CDLL(library)
    place = Path(asked.place)
    start, case = place / "start", place / "case"  # always the same one, as paths may be part of what is written
    start.mkdir(parents=True)
    if asked.before:
        assert _run(faults, start, asked.before).code == 0
    shutil.copytree(start, case)
    undisturbed = _run(faults, case, asked.command)
    assert undisturbed.code == 0, undisturbed.said
    old, new = contents(start), contents(case)
    shutil.rmtree(case)
    chosen = [
        (at, kind)
        for at in range(1, undisturbed.operations + 1)
        for number, kind in enumerate(FAULTS)
        if not asked.every or (at % asked.every == 0 and at // asked.every % len(FAULTS) == number)
    ]
    wrong = []
    for at, kind in chosen:
        shutil.copytree(start, case)
        hit = _run(faults, case, asked.command, kind, at)
        problems = _look_at(hit, kind, case, asked, old, new)
        again = _run(faults, case, asked.command)
        if contents(case) != new:
            problems.append(f"then the same command made something else: exit code {again.code}, {again.said}")
        elif again.code and "exists; choose another name" not in again.said:
            problems.append(f"then the same command ended with {again.code}: {again.said}")
        wrong += [f"{kind} at {at}: {problem}" for problem in problems]
        shutil.rmtree(case)
    return Swept(undisturbed.operations, len(chosen), wrong)


@dataclass
class Ended:
    """How a command ended: its exit code, what it said on stderr, and how many operations there were."""

    code: int
    said: str
    operations: int


def _run(faults: ctypes.CDLL, place: Path, command: list[str], kind: str = "count", at: int = 0) -> Ended:
    said = place.with_name("said.txt")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(place)
            files = [os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in (os.devnull, said)]
            os.dup2(files[0], 1)
            os.dup2(files[1], 2)
            sys.argv = ["regraft", *command]
            from regraft.__main__ import main

            faults.faults_arm(os.fsencode(place), KINDS[kind], at, errno.ENOSPC)
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                code = 1
            count = faults.faults_count()
            faults.faults_arm(b"/nowhere", 0, 0, 0)
            os.write(writing, str(count).encode())
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        operations = int(pipe.read() or 0)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), said.read_text(), operations)


def _look_at(hit: Ended, kind: str, case: Path, asked: Sweep, old: dict[str, str], new: dict[str, str]) -> list[str]:
    found = contents(case)
    problems = []
    if kind == "kill":
        if hit.code != 137:
            problems.append(f"it was not killed: exit code {hit.code}")
        return problems
    if hit.code == 0:  # the fault came when all was done
        return [] if found == new else ["it ended well, and what it wrote is something else"]
    codes, begins = ((143,), "stopped: ") if kind == "stop" else ((1, 2), "error: cannot write ")
    lines = hit.said.splitlines()
    if hit.code not in codes:
        problems.append(f"exit code {hit.code}, expected {codes}")
    if hit.code != 1 and (len(lines) != 1 or not lines[0].startswith(begins)):
        problems.append(f"it said {hit.said!r}, expected one line with {begins!r}")
    if "Traceback" in hit.said:
        problems.append(hit.said)
    names = {path.name for path in case.iterdir()} - {path.name for path in (case.parent / "start").iterdir()}
    if found != new and names - set(asked.kept):
        problems.append(f"it left {sorted(names)}")
    if found not in (old, new) and not any(asked.kept):
        problems.append("what stood there before is not what it was")
    return problems


def contents(place: Path) -> dict[str, str]:
    """Give what lies in a directory: path -> hash. Of a store only what is finished."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        if not path.is_file() or {"work", "locks", "failed"} & {*name.parts} or "out.training" in name.parts:
            continue
        if any(part.startswith(".") for part in name.parts):
            continue
        content = path.read_bytes()
        if path.name == "cell.json":
            record = {key: value for key, value in json.loads(content).items() if key not in OF_RUN}
            content = json.dumps(record).encode()
        found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def run_sweeps(library: Path, asked: Sequence[Sweep]) -> list[Swept]:
    """Sweep in a process of its own."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, __file__, str(library), json.dumps([asdict(one) for one in asked])],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return [Swept(**swept) for swept in json.loads(ended.stdout.splitlines()[-1])]


def _import() -> None:
    """Import what the commands import, once for all of them."""
    import datasets
    import torch
    from transformers.utils import logging

    from regraft import activations, distillation, experiment, training  # noqa: F401
    from regraft.cli import experiments, main, porting  # noqa: F401
    from regraft.cli import training as _  # noqa: F401
    from regraft.experiment import work  # noqa: F401
    from regraft.port import pipeline  # noqa: F401

    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    torch.ones(2, 2) @ torch.ones(2, 2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _import()
    print(json.dumps([asdict(sweep(sys.argv[1], Sweep(**asked))) for asked in json.loads(sys.argv[2])]))
