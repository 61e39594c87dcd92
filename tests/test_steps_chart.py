"""The picture of score by steps, of modules that were refined beside those trained with labels: known points."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import pytest
from fake_results import make_results

from regraft.report import Point, Result
from regraft.report.charts.steps import StepsLine, StepsPanel, steps_panels
from regraft.report.contents import contents
from regraft.report.groups import groups
from regraft.report.page import to_html
from regraft.report.results import Refined


def result(row: str, before: float, curve: dict[int, float], **others: Any) -> Result:
    """A result; of a row that is refined, on 90 texts."""
    place = {"setting": "apart", "task": "ner", "metric": "f1", "language": "de", "peft": "lora", "seed": 0, **others}
    refined = Refined(max(curve), 90, 10.0, 20.0) if "refine" in row else None
    points = tuple(Point(step, score) for step, score in curve.items())
    return Result(row=row, score=50.0, before=before, curve=points, **{"refined": refined, **place})


PORT = [
    result("teacher", 0, {100: 70, 200: 100}),
    result("student", 0, {200: 40, 400: 60}),
    result("tm-skip", 10, {400: 70}),  # no row of its own is refined, so that it is not in the picture
    result("tm-skip+head", 20, {400: 80}),
    result("tm-skip+head+refine100", 20, {100: 60}),
    result("tm-skip+head+refine400", 20, {400: 90}),
    result("zero+head+refine100", 10, {100: 50}),
]


def panel_of(results: list[Result]) -> StepsPanel:
    (panel,) = steps_panels(groups(results))
    return panel


def lines_of(panel: StepsPanel) -> dict[tuple[str, bool], StepsLine]:
    return {(line.row, line.labelled): line for line in panel.lines}


def values(panel: StepsPanel, places: Any) -> list[tuple[float, float]]:
    """Read points off the axes, by the ticks at their ends."""

    def read(at: float, ticks: Any) -> float:
        (low, first), (high, last) = ((tick.at, float(tick.text)) for tick in (ticks[0], ticks[-1]))
        return round(first + (at - low) / (high - low) * (last - first), 0)

    return [(read(x, panel.x), read(y, panel.y)) for x, y in places]


def test_rows_that_are_refined_for_longer_are_points_of_one_line() -> None:
    panel = panel_of(PORT)
    lines = lines_of(panel)
    assert {key: values(panel, line.points) for key, line in lines.items()} == {
        ("student", True): [(0, 0), (200, 40), (400, 60)],
        ("tm-skip+head", True): [(0, 20), (400, 80)],
        ("tm-skip+head", False): [(0, 20), (100, 60), (400, 90)],
        ("zero+head", False): [(0, 10), (100, 50)],
    }
    assert values(panel, [(panel.frame.left, panel.goal)]) == [(0, 100)]
    assert (panel.x_name, panel.y_name) == ("training steps; without labels on 90 texts", "validation F1, percent")
    assert "tm-skip+head without labels 20.00 at 0, 60.00 at 100, 90.00 at 400" in panel.description
    assert "student with labels 0.00 at 0, 60.00 at 400" in panel.description
    assert "The teacher: 100.00. Trainings per row: 1." in panel.description


def test_points_are_means_of_what_all_rows_have_and_bands_their_deviation() -> None:
    several = [
        *(result("student", 0, {100: 40 + 10 * seed}, seed=seed) for seed in (0, 2)),
        result("student+refine100", 0, {100: 90}, seed=1),  # a seed that the baseline lacks
        result("student+refine100", 2, {100: 50}, seed=0),
        result("student+refine100", 4, {100: 70}, seed=2),
        # How long auto takes differs from training to training.
        result("student+refineauto", 2, {150: 60}, seed=0),
        result("student+refineauto", 4, {250: 80}, seed=2),
    ]
    panel = panel_of(several)
    lines = lines_of(panel)
    assert values(panel, lines["student", False].points) == [(0, 3), (100, 60), (200, 70)]
    high, low = (lines["student", False].band[at] for at in (1, -2))
    assert values(panel, [high, low]) == [(100, 74), (100, 46)]  # 10 * sqrt(2) apart from 60
    assert panel.goal is None
    assert "Trainings per row: 2" in panel.description


def test_what_grows_is_a_line_of_its_own_beside_its_start() -> None:
    grown = [*PORT[:4], result("tm-skip+head+refine100+growall", 20, {100: 60})]
    assert {*lines_of(panel_of(grown))} == {("student", True), ("tm-skip+head", True), ("tm-skip+head+growall", False)}


@pytest.mark.parametrize(
    "rows",
    [
        PORT[:4],
        [*PORT[:4], replace(PORT[4], before=None)],
        [*PORT[:4], replace(PORT[4], curve=())],
        [*PORT[:4], replace(PORT[4], seed=1)],
    ],
)
def test_without_points_there_is_no_picture(rows: list[Result]) -> None:
    assert steps_panels(groups(rows)) == []
    assert "Score by steps" not in to_html(contents(rows, "x"))


def test_the_page_has_the_picture_and_says_what_its_lines_are() -> None:
    page = to_html(contents([*PORT, *make_results()], "x"))
    assert page.count(">Score by steps<") == 1
    legends = [part for part in re.findall(r'<ul class="legend">.*?</ul>', page, re.S) if "without labels" in part]
    (legend,) = legends
    said = [html.unescape(text).strip() for text in re.findall(r"</svg>(.*?)</li>", legend)]
    starts = ["student", "tm-skip+head", "zero+head"]
    assert said == [*starts, "without labels", "with labels", "the teacher's best"]
    (drawing,) = re.findall(r'<svg[^>]*labelledby="steps-.*?</svg>', page, re.S)
    assert drawing.count("line c") == 3
    assert len({*re.findall(r"line (c\d|base)", drawing)}) == 3  # a colour for each start
