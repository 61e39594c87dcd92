"""The demo, as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import pytest

from regraft.experiment.grid import make_grid
from regraft.experiment.load import SHIPPED, load
from regraft.experiment.preflight import check
from regraft.experiment.store import Store
from regraft.report.collect import collect


def test_its_grid_is_the_paper_in_miniature() -> None:
    grid = make_grid(load(SHIPPED["demo"]))
    check(grid)
    places = {(number.setting, number.task, number.language, number.peft) for number in grid.numbers}
    assert len(places) == 2 * 2 * 2 * 2
    assert {number.seed for number in grid.numbers if number.row == "student"} == {0, 1}


@pytest.mark.slow
def test_it_shows_that_skip_helps_where_models_match(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "regraft", "demo", "--out", str(tmp_path / "demo")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
    page = tmp_path / "demo" / "report" / "report.html"
    assert str(page) in said
    assert page.is_file()
    assert "148 of 148 cells are done" in said
    assert "micro models" in said
    assert "regraft experiment run minilm-wikineural" in said
    _, results = collect(tmp_path / "demo")
    scores = {
        (result.setting, result.task, result.language, result.peft, result.row, result.seed): result.score
        for result in results
    }
    gains = defaultdict(list)
    for (setting, *cell, row, seed), score in scores.items():
        if (setting, row) == ("matching", "tm-skip"):
            gains[tuple(cell)].append(score - scores[(setting, *cell, "student", seed)])  # type: ignore[index]
    means = [mean(gain) for gain in gains.values()]
    assert len(means) == 8
    assert mean(means) > 2 * stdev(means) / len(means) ** 0.5

    # Once more: nothing is left to do, and the store is the one that two processes shared.
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "demo: 148 cells, 148 done" in again
    store = Store(tmp_path / "demo")
    assert len({store.record(number.key)["process"] for number in make_grid(load(SHIPPED["demo"])).numbers}) == 2
