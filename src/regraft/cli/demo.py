"""The whole idea in two minutes, on models that ship with regraft."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .app import OUTPUT, Quiet, console

if TYPE_CHECKING:
    from ..experiment.store import Store

_WHAT = (
    "The paper in miniature. A module is trained on a teacher, ported to a student, and the student trains on from "
    "there; the baseline starts from random numbers. Matching: the student was distilled from the teacher. "
    "Incompatible: the two were pretrained apart, and dimensions are matched by correlation and linear assignment "
    "(lsa); the row with refine100 never sees a label, only what the teacher's module answers.\n\n"
    "The models are micro models that ship with regraft: two to four layers, pretrained for minutes on sentences made "
    "up by a grammar. They show how the method works. How well it works on real models is another question: see the "
    "end.\n"
)

_REAL = """\
The real thing:
  regraft experiment run minilm-wikineural
      a real encoder on real text, an hour or two on a CPU; needs REGRAFT_DATA
  regraft experiment plan paper-matching
      the paper's own grid, for a machine with GPUs or a cluster
  regraft transfer MODULE --student MODEL --out DIR
      a module of yours
"""


def demo(*, out: Annotated[Path, Parameter(group=OUTPUT)] = Path("results/demo"), quiet: Quiet = False) -> None:
    """See the whole paper in miniature, in about two minutes.

    Runs 'regraft experiment run demo' and reports, on 2 cores and without a
    network. A second run shows what is there already.

    Example: regraft demo

    Args:
        out: Directory for modules, tables and the page.
    """
    import torch

    from ..experiment.executors import Local
    from ..experiment.grid import make_grid
    from ..experiment.load import SHIPPED, read_experiment
    from ..experiment.run import times
    from ..experiment.store import Store
    from ..report.collect import collect
    from ..report.contents import contents
    from ..report.writing import save
    from .experiments import run_shown
    from .reporting import show

    begun = time.monotonic()
    console.print(_WHAT)
    store = Store(out.absolute())
    store.check()
    experiment = read_experiment(SHIPPED["demo"])
    grid = make_grid(experiment)
    torch.set_num_threads(1)  # more would only wait for each other, with models of this size
    with _another_run(store) if len(times(grid, store)) < len(grid.cells) else nullcontext():
        done = run_shown(experiment, grid, store, Local(), quiet, each_cell=not console.is_terminal)
    if not done:
        sys.exit(1)
    title, results = collect(store.root, experiment.name)
    summary = contents(results, title)
    show(summary)
    page = save(summary, results, store.root / "report", replace=True)
    console.print(f"\nThe page to look at: {page}  ({time.monotonic() - begun:.0f} s in all)\n", soft_wrap=True)
    console.print(_REAL, highlight=False)


@contextmanager
def _another_run(store: Store) -> Iterator[None]:
    """Use a second core: another run on the same store takes cells that this one is not at."""
    command = [sys.executable, "-m", "regraft", "experiment", "run", "demo", "--store", str(store.root), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # What it has to say this run says too.
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        yield
    finally:
        other.terminate()  # what it was at, if anything, another run will finish
        other.wait()
