"""The demo, as a newcomer runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml
from conftest import checked_json

from regraft.experiment.grid import make_grid
from regraft.experiment.load import SHIPPED, read_experiment
from regraft.experiment.preflight import check
from regraft.experiment.store import Store
from regraft.report.collect import collect


def test_its_grid_is_the_paper_in_miniature() -> None:
    grid = make_grid(read_experiment(SHIPPED["demo"]))
    check(grid)
    assert len(grid.cells) == 164
    places = {(number.setting, number.task, number.language, number.peft) for number in grid.numbers}
    assert len(places) == 2 * 2 * 2 * 2
    assert {number.seed for number in grid.numbers if number.row == "student"} == {0, 1}


@pytest.mark.slow
def test_it_shows_that_skip_helps_where_models_match(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of its places, and of their rows those that are compared: the rest is more of the same, and minutes."""
    content = yaml.safe_load(SHIPPED["demo"].read_text())
    content["pairs"] = {"matching": {**content["pairs"]["matching"], "starts": ["student", "tm-skip"]}}
    for task in content["tasks"].values():
        task["languages"] = ["de"]
    content["seeds"] = [0]
    part = tmp_path / "demo"
    part.write_text(yaml.safe_dump(content))
    monkeypatch.setitem(SHIPPED, "demo", part)
    monkeypatch.chdir(tmp_path)  # where the demo's second process finds a file of the name before the one that ships

    code, said, error = run("demo", "--out", "results")
    assert code == 0, error
    page = tmp_path / "results" / "report" / "report.html"
    assert str(page) in said
    assert page.is_file()
    assert "16 of 16 cells are done" in said
    assert "micro models" in said
    assert "regraft experiment run minilm-wikineural" in said
    _, results = collect(tmp_path / "results")
    scores = {(result.task, result.peft, result.row): result.score for result in results}
    gains = [score - scores[task, peft, "student"] for (task, peft, row), score in scores.items() if row == "tm-skip"]
    assert len(gains) == 4
    assert mean(gains) > 2 * stdev(gains) / len(gains) ** 0.5

    # Once more: nothing is left to do, and the store is the one that two processes shared.
    code, out, again = run("demo", "--out", "results", "--json")
    assert code == 0, again
    assert "demo: 16 cells, 16 done" in again
    found = checked_json("demo", out)
    assert found["page"] == str(page)
    assert [finding["setting"] for finding in found["findings"]] == ["matching"]
    store = Store(tmp_path / "results")
    assert len({store.record(number.key)["process"] for number in make_grid(read_experiment(part)).numbers}) == 2
