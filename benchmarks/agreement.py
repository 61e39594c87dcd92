"""What foretells the worth of a port: agreement with its teacher on texts without labels, or how much it should keep?

    regraft experiment run benchmarks/micro.yaml
    python benchmarks/agreement.py results/micro

Each port with its teacher's head is asked, and so is the teacher, on 300 training inputs that no map was fitted on.
Spearman's rank correlation of each figure with the validation score before training and with the gain in test score
over the random start of the same cell: over all ports, and within a cell (task, language, kind of module), averaged.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from _common import markdown
from scipy.stats import spearmanr

import regraft
from regraft.experiment.store import Store
from regraft.tasks.options import DataOptions

# Maps were fitted on the first texts, see `micro.yaml`.
FITTED, ASKED = 300, 300
# With fewer ports a cell has no ranks to speak of.
FEWEST = 4
# The divergence with its sign turned, so that more of each is better.
FIGURES = ("agreement", "KL", "expectation")


def texts_of(data: Mapping[str, Any]) -> list[Any]:
    loaded = DataOptions(task=data["task"], data=data["data"]["where"], lang=data["language"]).load()
    rows = islice(loaded.splits["train"], FITTED, FITTED + ASKED)
    texts = [[row[name] for name in loaded.task.inputs] for row in rows]
    return [tuple(text) if len(text) == 2 else " ".join(text[0]) for text in texts]


def look(store: Store) -> list[dict[str, Any]]:
    numbers = [number for number in store.read_index()["numbers"] if store.done(number["key"])]
    scores = {number["key"]: store.record(number["key"])["scores"] for number in numbers}
    place = ("setting", "task", "language", "peft", "seed")
    random = {
        tuple(number[name] for name in place): scores[number["key"]]["test"][number["metric"]]
        for number in numbers
        if number["row"] == "student"
    }
    found, asked = [], dict[str, Any]()
    for number in numbers:
        start, metric = number["start_key"], number["metric"]
        at = tuple(number[name] for name in place)
        if start is None or not number["row"].endswith("+head") or at not in random:
            continue
        port = store.record(start)
        if start not in asked:
            data = store.record(number["key"])["job"]["data"]
            modules = [regraft.load(store.output(key)) for key in (port["job"]["module"]["where"], start)]
            asked[start] = regraft.compare(*modules, texts_of(data), progress=False)
        score, expected = scores[number["key"]], port["expected"]
        found.append(
            {
                "task": number["task"],
                "cell": at[:-1],
                "agreement": asked[start].agreement.percent,
                "KL": -asked[start].agreement.divergence,
                "expectation": expected and expected["head"],
                "before": score["before training"][metric],
                "gain": score["test"][metric] - random[at],
            }
        )
        print(number["setting"], *at[1:], number["row"], found[-1], file=sys.stderr)
    return found


def ranks(rows: list[dict[str, Any]], figure: str, outcome: str) -> float | None:
    pairs = [(row[figure], row[outcome]) for row in rows]
    differ = len(pairs) >= FEWEST and all(np.ptp(values) > 0 for values in zip(*pairs, strict=True))
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if differ else None


def within(rows: list[dict[str, Any]], figure: str, outcome: str) -> float | None:
    cells = defaultdict(list)
    for row in rows:
        cells[row["cell"]].append(row)
    known = [r for cell in cells.values() if (r := ranks(cell, figure, outcome)) is not None]
    return fmean(known) if known else None


def main(folder: Path) -> None:
    every = look(Store(folder))
    ways: list[Callable[..., float | None]] = [ranks, within]
    table = []
    for task in dict.fromkeys(row["task"] for row in every):
        own = [row for row in every if row["task"] == task]
        known = [row for row in own if row["expectation"] is not None]
        for ports, here, figures in (("all", own, FIGURES[:2]), ("with an expectation", known, FIGURES)):
            for figure in figures:
                values = [way(here, figure, outcome) for outcome in ("before", "gain") for way in ways]
                shown = ["" if value is None else f"{value:.2f}" for value in values]
                table.append([task, ports, str(len(here)), figure, *shown])
    header = ["task", "ports", "trainings", "figure"]
    print(markdown([*header, "score before", "within cells", "gain", "within cells"], table))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
