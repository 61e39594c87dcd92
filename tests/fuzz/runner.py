"""Runs commands in a process forked from this one, within limits, and says what is wrong with how each ended.

The fork has all imports done, so a case costs what the command itself does. Cases of one fork follow each other in it,
so that most of its cost is paid once.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets

from regraft.cli.main import main
from regraft.models.families import FAMILIES

MEMORY = 2500 << 20
SECONDS = 60
CANARY = "CANARY"
"""Name of the file that foreign code would write into the working directory."""


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        kind: what is bad: a module, a model, texts.
        label: what exactly.
        prepare: writes it into a directory, and gives the words of the command line; ``out`` there may be written.
        refused: whether it must be refused.
    """

    kind: str
    label: str
    prepare: Callable[[Path], list[str]]
    refused: bool = False


@dataclass(frozen=True)
class Found:
    """How a case ended.

    Attributes:
        kind: as of the case.
        label: likewise.
        code: exit code.
        wrong: what is wrong with that, in a sentence; empty where nothing is.
        said: what was written to stderr.
        seconds: of CPU time.
    """

    kind: str
    label: str
    code: int
    wrong: str
    said: str
    seconds: float


Try = Callable[[Case], None]


def try_all(root: Path, cases: Callable[[Try], None]) -> list[Found]:
    """Run cases in a process of its own.

    Args:
        root: an empty directory to work in.
        cases: is called in that process, with what runs a case.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(root, cases, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        lines = [json.loads(line) for line in told]
    _, status = os.waitpid(child, 0)
    found = [Found(**line) for line in lines if "code" in line]
    code = os.waitstatus_to_exitcode(status)
    if code:
        begun = lines[-1] if lines and "code" not in lines[-1] else {"kind": "", "label": "none"}
        wrong = f"hung for {SECONDS} s" if code == -signal.SIGALRM else f"brought the process down ({code})"
        found.append(Found(begun["kind"], begun["label"], code, wrong, "", 0.0))
    return found


def _work(root: Path, cases: Callable[[Try], None], writing: int) -> None:
    """Become the process that tries; never returns."""
    code = 1
    try:
        known = dict(FAMILIES)
        datasets.disable_progress_bars()  # the command line does so before it is imported
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with os.fdopen(writing, "w", encoding="utf-8") as told:

            def tell(line: dict[str, object]) -> None:
                told.write(json.dumps(line) + "\n")
                told.flush()

            def attempt(case: Case) -> None:
                tell({"kind": case.kind, "label": case.label})
                tell(asdict(_attempt(root, case)))
                FAMILIES.clear()
                FAMILIES.update(known)

            cases(attempt)
        code = 0
    except BaseException:  # whatever it is: the suite itself is broken
        traceback.print_exc()
    finally:
        os._exit(code)


def _attempt(root: Path, case: Case) -> Found:
    place = Path(tempfile.mkdtemp(dir=root))
    try:
        (place / "tmp").mkdir()
        arguments = case.prepare(place)
        before, start = _listed(place), time.process_time()
        signal.alarm(SECONDS)
        code, shown, said = _command(arguments, place)
        signal.alarm(0)
        seconds, left = time.process_time() - start, _listed(place) - before
        wrong = _wrong(code, said, shown, left)
        if case.refused and code == 0:
            wrong = wrong or "was accepted"
        return Found(case.kind, f"{case.label}: {' '.join(arguments)[:300]}", code, wrong, _end(said), seconds)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _end(said: str) -> str:
    return "\n".join(line[:500] for line in said.splitlines()[-9:])


def _listed(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} | {f"tmp/{path.name}" for path in (place / "tmp").iterdir()}


def _wrong(code: int, said: str, shown: str, left: set[str]) -> str:
    lines, memory = (
        said.removesuffix("\n").split("\n") if said else [],
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )
    if code not in (0, 2):
        return f"ended with {code}: {lines[-1] if lines else 'nothing said'}"
    if "Traceback (most recent call last)" in said + shown:
        return "showed a traceback"
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        return f"said {len(lines)} lines, expected one that begins with error:"
    if code == 2 and len(lines[0]) > 3000:
        return f"said a line of {len(lines[0])} characters"
    if memory > MEMORY:
        return f"took {memory >> 20} MB"
    if CANARY in left:
        return "ran foreign code"
    if others := left - ({"out"} if code == 0 else set()):
        return f"left {', '.join(sorted(others))} behind"
    return ""


def _command(arguments: list[str], place: Path) -> tuple[int, str, str]:
    """Run a command, as the installed script does; return its exit code, output and error output."""
    with _caught(place / "tmp") as texts:
        os.chdir(place)
        sys.argv = ["regraft", *arguments]
        tempfile.tempdir = str(place / "tmp")
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1 if stopped.code else 0
        except BaseException:  # whatever it is: that it came here is what is wrong
            print(traceback.format_exc().encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
            code = 1
    os.chdir(place.parent)
    return (code, *texts)


@contextmanager
def _caught(place: Path) -> Iterator[list[str]]:
    """Catch what is written to stdout and stderr, also by what is not Python; the texts are there at the end."""
    texts: list[str] = []
    kept = [os.dup(1), os.dup(2)]
    files = [place / "stdout", place / "stderr"]
    streams = sys.stdout, sys.stderr
    for number, file in enumerate(files, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    try:
        yield texts
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        for number, (file, descriptor) in enumerate(zip(files, kept, strict=True), start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
            texts.append(file.read_text("utf-8", "backslashreplace"))
            file.unlink()
