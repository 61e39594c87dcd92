"""Reports have known answers: the paper's tables, and numbers worked out by hand."""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
from conftest import checked_json
from fake_results import make_results
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy import stats

from regraft import report
from regraft.errors import ReportError
from regraft.experiment.store import Store
from regraft.report import Alignment, Expected, Models, Point, Result
from regraft.report.collect import collect
from regraft.report.comparison import compare, interval, progress, sign_flip
from regraft.report.contents import contents
from regraft.report.findings import findings, missing
from regraft.report.groups import Group, groups
from regraft.report.page import to_html
from regraft.report.render import minus, to_csv, to_latex, to_markdown
from regraft.report.results import read_results, write_results
from regraft.report.table import NONE, Cell, Column, Table, texts
from regraft.report.tables.forecasts import foretold
from regraft.report.tables.gains import gains, training, wins
from regraft.report.tables.reference import beside, load_reference
from regraft.report.tables.scores import alignments, averages, per_language
from regraft.report.writing import FILES

PAPER = load_reference("paper")
MATCHING = [result for result in make_results() if result.setting == "matching"]


def make_result(row: str, score: float, language: str = "de", **others: object) -> Result:
    given_fields = {"setting": "matching", "task": "ner", "metric": "f1", "peft": "lora", **others}
    return Result(row=row, score=score, language=language, **given_fields)  # type: ignore[arg-type]


def cells(table: Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in row] for row in table.rows]


def of_setting(results: Sequence[Result], setting: str) -> list[Group]:
    return [group for group in groups(results) if group.setting == setting]


# The paper's tables


def test_tables_2_and_3_of_the_paper() -> None:
    printed = list(csv.DictReader((Path(report.__file__).parent / "paper" / "tables_2_and_3.csv").open()))
    assert len(printed) == 36
    differ = []
    for setting in ("matching", "incompatible"):
        table = averages(of_setting(PAPER.results, setting))
        heads = [(column.group, column.head) for column in table.columns]
        ours = {(row[0].text.lower(), row[1].text): row for row in table.rows}
        lines = [line for line in printed if line["setting"] == setting]
        assert {(line["peft"], line["row"]) for line in lines} == set(ours)
        for line in lines:
            row = ours[line["peft"], line["row"]]
            at = next(i for i, (task, _) in enumerate(heads) if task == line["task"].upper())
            if abs(float(row[at].text) - float(line["average"])) > 0.0101:
                differ.append((line["task"], line["peft"], line["row"], row[at].text))
            elif line["relative_to_teacher"]:
                assert float(row[at + 1].text) == pytest.approx(float(line["relative_to_teacher"]), abs=0.0151)
    assert differ == [
        ("ner", "lora", "teacher", "92.74"),
        ("ner", "lora", "student", "89.96"),
        ("ner", "lora", "tm-skip", "89.99"),
    ]


def test_the_one_discrepancy_of_the_paper_is_said_wherever_its_numbers_are() -> None:
    assert PAPER.discrepancies("matching") == []
    (note,) = PAPER.discrepancies()
    numbers = ("incompatible NER LoRA", "93.64", "92.74", "90.83", "89.96", "90.84", "89.99", "Table 3")
    assert all(number in note for number in numbers)
    assert note in contents(PAPER.results, "").settings[1].sections[0].tables[0].notes
    assert note not in contents(PAPER.results, "").settings[0].sections[0].tables[0].notes
    assert note in beside(groups(make_results()), PAPER).notes
    assert not any(note in table.notes for table in contents(make_results(), "").tables)


def test_wins_of_the_paper() -> None:
    table = wins(groups(PAPER.results))
    assert [row[:5] for row in cells(table)] == [
        ["matching", "tm-avg", "40", "12", "62"],
        ["matching", "tm-skip", "54", "1", "62"],
        ["incompatible", "tm-skip", "16", "2", "32"],
    ]


def test_share_of_the_gap_closed_in_the_paper() -> None:
    closed = {
        (setting, row[0], row[1]): row[-1]
        for setting in ("matching", "incompatible")
        for row in cells(gains(of_setting(PAPER.results, setting)))
        if row[2] == "tm-skip"
    }
    assert closed == {
        ("matching", "NER", "adapter"): "21%",
        ("matching", "NER", "LoRA"): "22%",
        ("matching", "PI", "adapter"): "34%",
        ("matching", "PI", "LoRA"): "55%",
        ("matching", "NLI", "adapter"): "15%",
        ("matching", "NLI", "LoRA"): "-2%",
        ("incompatible", "NER", "adapter"): "2%",
        ("incompatible", "NER", "LoRA"): "1%",
        ("incompatible", "PI", "adapter"): "3%",
        ("incompatible", "PI", "LoRA"): "-1%",
    }


@pytest.mark.parametrize(("teacher", "closed"), [(90.0, 0.2), (80.5, None), (79.0, None)])
def test_no_share_of_a_gap_that_is_noise(teacher: float, closed: float | None) -> None:
    (group,) = groups([make_result("teacher", teacher), make_result("student", 80.0), make_result("tm-skip", 82.0)])
    (comparison,) = compare(group)
    assert comparison.closed == (None if closed is None else pytest.approx(closed))


def test_what_is_said_of_the_paper() -> None:
    matching, incompatible = findings(groups(PAPER.results))
    assert matching.verdict.startswith("tm-skip helps, +")
    assert "54 of 62 cells" in matching.sentences[0]
    assert "best of 2" in matching.sentences[1]
    assert incompatible.verdict.startswith("no start is surely ahead; the best, tm-skip, ")
    assert "16 of 32 cells" in incompatible.sentences[0]
    assert missing(groups(PAPER.results)) == []


def test_table_4_has_every_score() -> None:
    table = per_language([group for group in groups(PAPER.results) if group.task == "ner"])
    assert [column.head for column in table.columns[3:]] == [
        "de",
        "en",
        "es",
        "fr",
        "it",
        "nl",
        "pl",
        "pt",
        "ru",
        "average",
    ]
    scores = sorted(float(text) for row in cells(table) for text in row[3:-1])
    assert scores == sorted(result.score for result in PAPER.results if result.task == "ner")


def test_a_run_beside_the_paper_under_its_own_names() -> None:
    names = {"adapter": "bottleneck"}
    run = [
        replace(
            result,
            peft=names.get(result.peft, result.peft),
            row="tm-skip+lsa" if (result.setting, result.row) == ("incompatible", "tm-skip") else result.row,
        )
        for result in PAPER.results
        if result.language in ("de", "en")
    ]
    rows = cells(beside(groups(run), PAPER))
    assert len(rows) == 36
    for row in rows:  # over the same languages the two are the same
        assert row[4] == "2"
        assert (row[5], row[7], row[9]) == (row[6], row[8], row[10])
    other = [replace(result, setting="mine") for result in run if result.setting == "matching"]
    table = beside(groups(other), PAPER)
    assert not table.rows
    assert "Nothing to compare" in table.notes[0]


# Numbers by hand


def test_spread_is_over_seeds_of_the_average_over_languages() -> None:
    scores = {("de", 0): 60.0, ("en", 0): 70.0, ("de", 1): 62.0, ("en", 1): 74.0}
    results = [make_result("student", score, language, seed=seed) for (language, seed), score in scores.items()]
    (row,) = cells(averages(groups(results)))
    assert row[2] == f"66.50 ± {stdev([65, 68]):.2f}" == "66.50 ± 2.12"
    one_more = [*results, make_result("student", 66.0, "de", seed=2)]  # a seed with one language has no average
    assert cells(averages(groups(one_more)))[0][2] == "67.33 ± 2.12"  # (62.67 + 72) / 2


@pytest.mark.parametrize("count", [2, 6, 9, 16])
def test_sign_flip_is_exact_for_few_pairs(count: int) -> None:
    assert sign_flip(tuple(1.0 + i / 7 for i in range(count))) == 2 / 2**count
    assert sign_flip((0.0,) * count) == 1.0


def test_sign_flip_by_hand_and_by_chance() -> None:
    # Sums of +-1 +-2 +-3 that are at least 4 from zero: +-6 and +-4, so 4 of 8.
    assert sign_flip((-1, 2, 3)) == 0.5
    assert sign_flip((1.0,) * 40) == 1 / (2**16 + 1)
    assert sign_flip((1.0, -1.0) * 15) == 1.0


def test_the_interval_is_students() -> None:
    values = (0.5, 1.0, 1.5, 2.0, 2.5, 4.0)
    half = stats.t.ppf(0.975, 5) * stdev(values) / 6**0.5
    assert interval(values) == pytest.approx((fmean(values) - half, fmean(values) + half))
    # Of three the mean is 4.3 standard errors wide: tabulated t of 2 degrees of freedom.
    assert interval((1.0, 2.0, 3.0)) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)
    assert interval((1.0,) * 3) == (1.0, 1.0)
    assert interval((1.0, 2.0)) is None


def test_wins_with_ties_and_seeds_averaged() -> None:
    # Averaged over seeds: a win, a tie up to rounding, a loss.
    gained = {"de": (0.0, 2.0), "en": (0.3, -0.3), "fr": (-2.0, 0.0)}
    results = [
        make_result(row, 70 + (gain if row == "tm-skip" else 0), language, seed=seed)
        for language, by_seed in gained.items()
        for seed, gain in enumerate(by_seed)
        for row in ("student", "tm-skip")
    ]
    (row,) = cells(wins(groups(results)))
    assert row == ["matching", "tm-skip", "1", "1", "3", "33%", "0.00", "-2.48 to +2.48"]  # 4.303 / sqrt(3)
    (gain,) = cells(gains(groups(results)))
    assert gain[3:5] == ["6", "0.00"]
    assert gain[7] == "1 of 3, 1 tied"


def test_few_pairs_say_nothing() -> None:
    results = [make_result(row, score, seed=0) for row, score in (("student", 60.0), ("tm-skip", 65.0))]
    table = gains(groups(results))
    assert cells(table)[0][3:7] == ["1", "+5.00", NONE, NONE]
    assert any("No p for 1 pair:" in note and "p = 1.000 at best" in note for note in table.notes)
    (finding,) = findings(groups(results))
    assert (
        finding.verdict
        == "no start is surely ahead; the best, tm-skip, +5.00 points, of too few trainings for an interval"
    )


@pytest.mark.parametrize(
    ("gained", "verdict"),
    [
        (
            (10.0, -9.0, 0.5),
            "no start is surely ahead; the best, tm-skip, +0.50 points (95% interval -23.10 to +24.10)",
        ),
        ((5.0, 6.0, 7.0), "tm-skip helps, +6.00 points (95% interval +3.52 to +8.48)"),
        ((-5.0, -6.0, -7.0), "tm-skip hurts, -6.00 points (95% interval -8.48 to -3.52)"),
        ((1.0, 2.0, 3.0), "no start is surely ahead; the best, tm-skip, +2.00 points (95% interval -0.48 to +4.48)"),
    ],
)
def test_a_single_cell_is_a_finding_only_beyond_its_seeds(gained: Sequence[float], verdict: str) -> None:
    results = [make_result("student", 60.0, seed=seed) for seed in range(3)]
    results += [make_result("tm-skip", 60 + gain, seed=seed) for seed, gain in enumerate(gained)]
    assert findings(groups(results))[0].verdict == verdict


def test_two_cells_are_judged_by_their_seeds() -> None:
    gained = {"de": (5.0, 6.0, 7.0), "en": (8.0, 9.0, 10.0)}
    results = [
        make_result(row, 60 + (gain if row == "tm-skip" else 0), language, seed=seed)
        for language, gains in gained.items()
        for seed, gain in enumerate(gains)
        for row in ("student", "tm-skip")
    ]
    low, high = stats.ttest_1samp([*gained["de"], *gained["en"]], 0).confidence_interval()
    (finding,) = findings(groups(results))
    assert finding.verdict == f"tm-skip helps, +7.50 points (95% interval {low:+.2f} to {high:+.2f})"


def test_seeds_of_several_cells_are_no_cells() -> None:
    """Three languages of ten seeds each are three values, not thirty."""
    results = [
        make_result(row, 60 + (gain if row == "tm-skip" else 0) + seed % 2, language, seed=seed)
        for language, gain in (("de", 0.0), ("en", 1.0), ("fr", 5.0))
        for seed in range(10)
        for row in ("student", "tm-skip")
    ]
    (finding,) = findings(groups(results))
    low, high = stats.ttest_1samp((0.0, 1.0, 5.0), 0).confidence_interval()
    assert (
        finding.verdict
        == f"no start is surely ahead; the best, tm-skip, +2.00 points (95% interval {low:+.2f} to {high:+.2f})"
    )


def test_picking_the_best_of_several_starts_widens_its_interval() -> None:
    gained = (1.0, 1.4, 2.0)
    results = [make_result(row, 60.0, seed=seed) for row in ("student", "tm-avg", "tm-last") for seed in range(3)]
    results += [make_result("tm-skip", 60 + gain, seed=seed) for seed, gain in enumerate(gained)]
    (finding,) = findings(groups(results))
    low, high = stats.ttest_1samp(gained, 0).confidence_interval(1 - 0.05 / 3)
    assert finding.verdict.endswith(f"tm-skip, +1.47 points (95% interval {low:+.2f} to {high:+.2f})")
    assert low < 0 < stats.ttest_1samp(gained, 0).confidence_interval().low
    assert "best of 3 transferred starts" in finding.sentences[1]


def test_steps_to_the_best_of_the_baseline() -> None:
    def curve(*scores: float) -> tuple[Point, ...]:
        return tuple(Point(100 * (i + 1), score) for i, score in enumerate(scores))

    results = [
        make_result("student", 0, "de", seed=0, before=1.0, curve=curve(10, 40, 50, 45)),  # best at 300
        make_result("tm-skip", 0, "de", seed=0, before=5.0, curve=curve(50, 60, 60, 60)),  # there at 100
        make_result("student", 0, "en", seed=0, before=1.0, curve=curve(10, 20, 30, 40)),  # best at 400
        make_result("tm-skip", 0, "en", seed=0, before=45.0, curve=curve(50, 60, 60, 60)),  # there at 0
        make_result("student", 0, "fr", seed=0, before=1.0, curve=curve(10, 20, 30, 40)),
        make_result("tm-skip", 0, "fr", seed=0, before=5.0, curve=curve(10, 20, 30, 39)),  # never
        make_result("student", 0, "it", seed=0, curve=curve(10)),
        make_result("tm-skip", 0, "it", seed=1, curve=curve(10)),  # not the same seed
    ]
    (group,) = groups(results)
    found = progress(group, "tm-skip")
    assert (found.pairs, found.reached, found.steps, found.baseline_steps) == (3, 2, 50, 350)
    row = next(row for row in cells(training([group])) if row[2] == "tm-skip")
    assert row[3:7] == ["18.33", "50", "350", "2 of 3"]
    assert "2 of 3 trainings; there it needs 14% of the baseline's steps" in findings([group])[0].sentences[-1]


# Incomplete grids


def test_rows_compare_on_what_they_share() -> None:
    results = [
        make_result("teacher", 90, "de"),
        make_result("teacher", 80, "en"),
        make_result("student", 70, "de"),
        make_result("student", 60, "en"),
        make_result("tm-skip", 75, "de"),
    ]
    table = averages(groups(results))
    assert cells(table) == [
        ["LoRA", "teacher", "90.00", NONE],
        ["LoRA", "student", "70.00", "-20.00"],
        ["LoRA", "tm-skip", "75.00", "-15.00"],
    ]
    assert "NER LoRA: averages over de, which all rows have." in table.notes
    assert cells(gains(groups(results)))[0][-1] == "25%"
    assert missing(groups(results)) == ["matching, NER, LoRA: tm-skip lacks en"]
    scores = per_language(groups(results))
    assert cells(scores)[2][3:] == ["75.00", NONE, "75.00"]


def test_rows_compare_on_the_seeds_that_they_share() -> None:
    results = [
        make_result("teacher", 90, seed=0),
        *(make_result("student", score, seed=seed) for seed, score in enumerate((70, 84, 84))),
        make_result("tm-skip", 75, seed=0),
    ]
    table = averages(groups(results))
    assert cells(table) == [
        ["LoRA", "teacher", "90.00", NONE],
        ["LoRA", "student", "70.00", "-20.00"],
        ["LoRA", "tm-skip", "75.00", "-15.00"],
    ]
    assert "NER LoRA: averages over de (seed 0), which all rows have." in table.notes
    assert not any("±" in note for note in table.notes)
    (gain,) = cells(gains(groups(results)))
    assert (gain[4], gain[7], gain[8]) == ("+5.00", "1 of 1", "25%")
    assert [row[3:] for row in cells(per_language(groups(results)))] == [
        [score] * 2 for score in ("90.00", "70.00", "75.00")
    ]
    assert missing(groups(results)) == ["matching, NER, LoRA: tm-skip lacks seeds in de (1 of 3)"]


def test_uneven_seeds_by_hand() -> None:
    scores = {("de", 0): (70, 75), ("de", 1): (72, 74), ("en", 0): (60, 66)}
    results = [
        make_result("teacher", 90, "de", seed=7, before=1.0),
        make_result("teacher", 80, "en", seed=7, before=3.0),
        make_result("teacher", 10, "fr", seed=7, before=50.0),
        make_result("student", 10, "en", seed=1, before=50.0),
        *(
            make_result(row, score, language, seed=seed, before=score - 60.0)
            for (language, seed), pair in scores.items()
            for row, score in zip(("student", "tm-skip"), pair, strict=True)
        ),
    ]
    table = averages(groups(results))
    assert [row[2:] for row in cells(table)] == [["85.00", NONE], ["65.50", "-19.50"], ["70.25", "-14.75"]]
    assert "NER LoRA: averages over de (seeds 0 and 1) and en (seed 0), which all rows have." in table.notes
    assert cells(gains(groups(results)))[0][-1] == "22%"  # (5 + 2 + 6) / (20 + 18 + 20)
    assert [row[3] for row in cells(training(groups(results)))] == ["2.00", "7.33", "11.67"]


def test_a_row_that_shares_nothing_is_left_out_and_named() -> None:
    results = [
        make_result("teacher", 90, "de", seed=0),
        make_result("student", 70, "de", seed=0),
        make_result("tm-avg", 71, "de", seed=0),
        make_result("tm-skip", 75, "de", seed=1),
        make_result("tm-copy", 60, "fr", seed=0),
    ]
    table = averages(groups(results))
    assert [row[2] for row in cells(table)] == ["90.00", "70.00", "71.00", NONE, NONE]
    assert "NER LoRA: averages over de (seed 0), which all rows but tm-copy and tm-skip have." in table.notes
    left_out = (
        "matching, NER, LoRA: averages leave out tm-copy and tm-skip, which have no training in common with the rest"
    )
    assert left_out in missing(groups(results))
    shown = {row[2]: row[3:] for row in cells(per_language(groups(results)))}
    assert shown["tm-skip"] == [NONE, NONE, NONE]
    assert shown["tm-copy"] == [NONE, "60.00", NONE]


def test_the_best_start_is_picked_on_the_seeds_that_starts_share() -> None:
    scores = {"student": (70, 70), "tm-avg": (75,), "tm-skip": (74, 90)}
    results = [make_result(row, score, seed=seed) for row, own in scores.items() for seed, score in enumerate(own)]
    assert findings(groups(results))[0].verdict.startswith("no start is surely ahead; the best, tm-avg, +5.00")


def test_what_is_missing_is_said() -> None:
    results = [
        *(make_result("tm-skip", 75, "de", seed=seed) for seed in (0, 1)),
        make_result("tm-skip", 75, "en", seed=0),
        make_result("student", 75, "de", task="pi", metric="accuracy"),
        make_result("teacher", 75, "de", task="pi", metric="accuracy"),
    ]
    assert missing(groups(results)) == [
        "matching, NER, LoRA: no teacher (row teacher)",
        "matching, NER, LoRA: no baseline (row student)",
        "matching, NER, LoRA: tm-skip lacks seeds in en (1 of 2)",
        "matching, PI, LoRA: no tm-skip",
    ]
    assert findings(groups(results))[0].verdict == "nothing to compare yet"


@pytest.mark.parametrize(
    "keep",
    [
        lambda result: result.row != "teacher",
        lambda result: result.row != "student",
        lambda result: result.row == "teacher",
        lambda result: result.row in ("teacher", "student"),
        lambda result: result.seed == 0,
        lambda result: (result.row, result.language) != ("tm-skip", "fr"),
        lambda result: (result.row == "student") == (result.language == "de"),  # no language in common
        lambda result: (result.row == "student") == (result.seed == 0),  # no seed in common
        lambda result: result.task == "ner" or result.setting == "matching",
    ],
)
def test_any_part_of_a_grid_makes_a_report(keep: Callable[[Result], bool], tmp_path: Path) -> None:
    results = [result for result in make_results() if keep(result)]
    bare = [replace(result, curve=(), before=None, seconds=None, alignment=()) for result in results]
    uneven = [replace(result, curve=result.curve[: 2 + i % 5]) for i, result in enumerate(results)]
    apart = [
        replace(result, before=None, curve=result.curve[:2] if result.row == "student" else result.curve[3:])
        for result in results
    ]
    for number, some in enumerate((results, bare, uneven, apart)):
        page = report.write(some, tmp_path / str(number), reference="paper").read_text()
        assert ("Learning curves" in page) <= (some is not bare)


AHEAD = "score before training, over the random start's"


def told(shares: Sequence[float], **others: object) -> list[Result]:
    """Return a start per share, with gains that rank as the shares do and scores before that rank the other way."""
    found = []
    for seed, share in enumerate(shares):
        expected = Expected(module=0.5, head=share)
        ported = make_result("ridge", 70 + 10 * share**3, seed=seed, before=-share, expected=expected, **others)
        # Against its own baseline a start ranks as the shares do, although the scores themselves rank the other way.
        found += [ported, make_result("student", 70, seed=seed, before=-3 * share, expected=None, **others)]
    return found


def test_what_was_expected_is_ranked_beside_the_gains() -> None:
    shares = [-2.5, 0.9, 0.1, 0.3, -0.2, 0.7, 0.5, 0.6]
    assert foretold(groups(told(shares[1:]))) == []
    ranked, starts = foretold(groups(told(shares)))
    assert cells(ranked) == [["expectation", "8", "1.00"], [AHEAD, "8", "1.00"]]
    (row,) = cells(starts)
    assert row[:5] == ["matching", "NER", "LoRA", "ridge", "8"]
    assert float(row[5]) == pytest.approx(sum(shares) / 8, abs=0.01)
    headless = [replace(r, expected=r.expected and Expected(r.expected.head), before=None) for r in told(shares)]
    assert cells(foretold(groups(headless))[0]) == [["expectation", "8", "1.00"], [AHEAD, "0", NONE]]
    same = [replace(r, expected=r.expected and Expected(0.5)) for r in told(shares)]
    assert cells(foretold(groups(same))[0])[0] == ["expectation", "8", NONE]
    alone = [r for r in told(shares) if r.row == "ridge"]  # no baseline, no gain
    assert foretold(groups(alone)) == []


def test_the_page_says_whether_gains_could_be_told(tmp_path: Path) -> None:
    few, many = told([0.1 * i for i in range(7)]), told([0.1 * i for i in range(9)])
    assert "Could it be told" not in to_html(contents(few, ""))
    page = report.write(many, tmp_path / "report")
    assert "Could it be told before training?" in page.read_text()
    assert "What foretells the gain" in (tmp_path / "report" / "tables.md").read_text()
    assert read_results(tmp_path / "report" / "results.csv") == many


def test_alignments_by_linear_maps_show_what_they_predict() -> None:
    linear = tuple(Alignment(0, 2 * i, "query.in", None, None, r2=0.5 + 0.1 * i) for i in range(2))
    (table,) = alignments(groups([make_result("ridge", 70, alignment=linear)]))
    assert cells(table) == [["0", "0", "0.50"], ["0", "2", "0.60"]]
    assert [column.head for column in table.columns][2:] == ["R2"]
    assert "predicts" in table.notes[0]


def test_an_alignment_that_is_linear_in_places_shows_what_all_maps_predict() -> None:
    chosen = (Alignment(0, 0, "query.in", 0.9, 0.8, r2=0.7), Alignment(1, 2, "query.in", None, None, r2=0.5))
    ridge = (Alignment(0, 0, "query.in", None, None, r2=0.3), Alignment(1, 2, "query.in", None, None, r2=0.4))
    results = [make_result("auto", 70, alignment=a, seed=seed) for seed, a in enumerate((chosen, ridge))]
    (table,) = alignments(groups(results))
    assert cells(table) == [["0", "0", "0.50"], ["1", "2", "0.45"]]
    assert [column.head for column in table.columns][2:] == ["R2"]
    assert "predicts" in table.notes[0]
    assert "mean over 2 ports" in table.notes[0]


def test_a_teacher_is_no_seed() -> None:
    seeds = [make_result("teacher", 90, seed=0), *(make_result("student", 70, seed=seed) for seed in (1, 2, 3))]
    assert contents(seeds, "").facts == ["4 trained modules", "1 setting", "1 task", "1 language", "3 seeds"]
    assert contents(seeds[:1], "").facts == ["1 trained module", "1 setting", "1 task", "1 language"]


def test_tables_have_names_of_their_own() -> None:
    settings = ("a b", "a-b", "A b", "a b 2")
    results = [replace(result, setting=name) for name in settings for result in MATCHING]
    tables = contents(results, "").tables
    names = [table.name for table in tables]
    assert len(set(names)) == len(names)
    assert {name for name in names if name.startswith("averages")} == {
        "averages-a-b",
        "averages-a-b-2",
        "averages-a-b-3",
        "averages-a-b-2-2",
    }
    page = to_html(contents(results, ""))
    ids = re.findall(r'id="([^"]*)"', page)
    assert len(set(ids)) == len(ids)


def test_a_gain_by_rounding_is_no_lead() -> None:
    results = [make_result("student", 0.3, seed=0), make_result("tm-skip", 0.1 + 0.2, seed=0)]
    assert findings(groups(results))[0].verdict.startswith("no start is surely ahead; the best, tm-skip, 0.00")


def test_results_that_contradict_each_other_are_refused() -> None:
    twice = [make_result("student", 70.0), make_result("student", 71.0)]
    with pytest.raises(ReportError, match="found two results for matching, ner, lora, student, de, seed None"):
        groups(twice)
    with pytest.raises(ReportError, match="task ner has results in f1 and in accuracy"):
        groups([make_result("student", 70.0), make_result("teacher", 71.0, metric="accuracy")])
    for score in (float("nan"), float("inf"), 1e308, 200.1, -101.0):
        with pytest.raises(ReportError, match=re.escape(f"is {score:g}, expected a number in percent")):
            groups([make_result("student", score)])
    with pytest.raises(ReportError, match="found no results"):
        groups([])
    with pytest.raises(ReportError, match="unknown reference 'papr', expected one of paper; did you mean 'paper'"):
        load_reference("papr")


# Properties

SCORES = st.integers(0, 10000).map(lambda number: number / 100)
GRID = [
    (task, language, row, seed)
    for task in ("ner", "pi")
    for language in ("de", "en")
    for row in ("teacher", "student", "tm-avg", "tm-skip")
    for seed in (0, 1)
]


@st.composite
def some_results(draw: st.DrawFn) -> list[Result]:
    places = draw(st.lists(st.sampled_from(GRID), unique=True, min_size=1))
    return [
        make_result(row, draw(SCORES), language, task=task, seed=seed, before=draw(st.none() | SCORES))
        for task, language, row, seed in places
    ]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(some_results(), st.randoms())
def test_order_does_not_matter(results: list[Result], dice: object) -> None:
    shuffled = list(results)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert contents(shuffled, "").tables == contents(results, "").tables
    assert to_html(contents(shuffled, "")) == to_html(contents(results, ""))


@settings(max_examples=40, deadline=None)
@given(some_results(), SCORES)
def test_gains_do_not_depend_on_the_level(results: list[Result], shift: float) -> None:
    moved = [replace(result, score=result.score + shift) for result in results]
    for group, other in zip(groups(results), groups(moved), strict=True):
        for one, two in zip(compare(group), compare(other), strict=True):
            assert one.gain == pytest.approx(two.gain, abs=1e-9)
            assert (one.wins, one.ties, one.pairs, one.p) == (two.wins, two.ties, two.pairs, two.p)
            assert one.closed == pytest.approx(two.closed, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(some_results())
def test_averages_are_those_of_the_trainings_that_all_rows_have(results: list[Result]) -> None:
    for group in groups(results):
        kept = [
            result
            for result in results
            if result.task == group.task and result.row not in group.left_out()
            if (result.language, result.seed) in group.shared()
            or (result.row == "teacher" and result.language in {language for language, _ in group.shared()})
        ]
        (rest,) = groups(kept)
        assert rest.whole()
        assert not rest.left_out()
        shown = [row for row in cells(averages([group])) if row[1] not in group.left_out()]
        assert shown == cells(averages([rest]))
        if not group.whole():
            assert missing([group])


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)
PERCENT = st.floats(-100, 200)
SHARES = st.floats(-1e9, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Result,
        **dict.fromkeys(("setting", "task", "metric", "language", "peft", "row"), NAMES),
        score=PERCENT,
        seed=st.none() | st.integers(),
        before=st.none() | PERCENT,
        seconds=st.none() | st.floats(0, 1e9),
        curve=st.lists(st.builds(Point, st.integers(0, 10**9), PERCENT), max_size=3).map(tuple),
        alignment=st.just(()),
        expected=st.none() | st.builds(Expected, SHARES, st.none() | SHARES),
        models=st.none() | st.builds(Models, NAMES, NAMES),
    )
)
def test_csv_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, result: Result) -> None:
    path = tmp_path_factory.mktemp("csv") / "results.csv"
    write_results([result], path)
    assert read_results(path) == [result]


def test_a_report_of_its_own_csv_is_the_same(tmp_path: Path) -> None:
    report.write(make_results(), tmp_path / "one")
    again = read_results(tmp_path / "one" / "results.csv")
    assert again == [replace(result, alignment=()) for result in make_results()]
    known = [table for table in contents(make_results(), "").tables if not table.name.startswith("alignment")]
    assert contents(again, "").tables == known


# Bad files

HEAD = "setting,task,metric,peft,row,language,seed,score,before,seconds,curve"
LINE = "matching,ner,f1,lora,student,de,0,70.5,,,"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column setting, expected setting, task"),
        (HEAD.replace("score", "scor"), "unknown column 'scor', expected one of .*; did you mean 'score'"),
        (HEAD.replace(",score", ""), "lacks the column score"),
        (f"{HEAD},score\n", "has a column twice"),
        (f"{HEAD}\n{LINE},", "line 2 has more or fewer values"),
        (f"{HEAD}\n{LINE[:-1]}", "line 2 has more or fewer values"),
        (f"{HEAD}\n{LINE.replace('70.5', 'high')}", "line 2 has 'high' under score, expected a number"),
        (f"{HEAD}\n{LINE.replace('70.5', 'nan')}", "line 2 has 'nan' under score, expected a number in percent"),
        (f"{HEAD}\n{LINE.replace('70.5', '1e308')}", "line 2 has '1e308' under score, expected a number in percent"),
        (f"{HEAD}\n{LINE.replace('70.5', '-101')}", "line 2 has '-101' under score, expected a number in percent"),
        (f"{HEAD}\n{LINE[:-2]}1e308,,", "line 2 has '1e308' under before, expected a number in percent"),
        (f"{HEAD}\n{LINE[:-1]}1e308,", "line 2 has '1e308' under seconds, expected a number of seconds"),
        (f"{HEAD}\n{LINE}1:inf", "line 2 has 'inf' under curve, expected a number in percent"),
        (f"{HEAD}\n{LINE}1{'0' * 400}:70", "line 2 has '10+' under curve, expected a number of steps"),
        (f"{HEAD}\n{LINE.replace('70.5', '')}", "line 2 has no score, expected a value"),
        (f"{HEAD}\n{LINE.replace(',0,', ',a,')}", "line 2 has 'a' under seed, expected a whole number"),
        (f"{HEAD},models_teacher\n{LINE},mBERT", "line 2 has no models_student, expected a value"),
        (f"{HEAD}\n{LINE}100", "line 2 has '' under curve"),
        (f"{HEAD}\n{LINE}1.5:70", "line 2 has '1.5' under curve, expected step:score"),
        (f'{HEAD}\n"{LINE}', "cannot read .* as CSV"),
        ("\udcff", "cannot read .* as CSV"),
        (None, "cannot read .* as CSV"),
    ],
)
def test_a_bad_csv_is_one_sentence(text: str | None, message: str, run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ReportError, match=message):
        read_results(path)
    code, _, error = run("report", path)
    assert code == 2
    assert error.count("\n") == 1
    assert {entry.name for entry in tmp_path.iterdir()} <= {"bad.csv"}


# Text


def test_names_are_escaped() -> None:
    odd = r"a|b*_<i>&$%#{}~^\c"
    table = Table("odd", odd, [Column("row"), Column("x")], 1, [[Cell(odd), Cell("-1.50 ± 0.20", bold=True)]], [odd])
    markdown = to_markdown(table).splitlines()
    assert r"| a\|b\*\_\<i\>&$%\#\{\}\~^\\c | **-1.50 ± 0.20** |" in markdown
    read = html.unescape(MarkdownIt("commonmark").enable("table").render(to_markdown(table)))
    assert [f"<td>{odd}</td>" in read, f"<strong>{odd}</strong>" in read] == [True, True]
    latex = to_latex(table)
    name = r"a|b*\_\textless{}i\textgreater{}\&\$\%\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}c"
    assert rf"{name} & \textbf{{$-$1.50 $\pm$ 0.20}} \\" in latex
    (line,) = csv.DictReader(to_csv([table]).splitlines())
    assert line == {"table": "odd", "row": odd, "column": "x", "value": "-1.50 ± 0.20"}
    page = to_html(contents([make_result("student", 70.0), make_result(odd, 71.0)], "<b>title</b>"))
    assert "<i>" not in page
    assert "<b>" not in page


def test_latex_is_booktabs_with_groups() -> None:
    latex = to_latex(averages(of_setting(PAPER.results, "incompatible")))
    assert r"\begin{tabular}{llrrrr}" in latex
    assert r" &  & \multicolumn{2}{c}{NER} & \multicolumn{2}{c}{PI} \\" in latex
    assert r"\cmidrule(lr){3-4}\cmidrule(lr){5-6}" in latex
    assert latex.count(r"\addlinespace") == 1
    assert [latex.count(rf"\{rule}rule") for rule in ("top", "bottom")] == [1, 1]
    assert r"adapter & tm-skip & \textbf{93.33} & $-$2.00" in latex
    assert latex.count("{") == latex.count("}")


def test_minus_signs_only_where_numbers_are() -> None:
    assert minus("tm-skip -1.5 to -0.2 (-3) 2403-18804 a-1") == "tm-skip ~1.5 to ~0.2 (~3) 2403-18804 a-1".replace(
        "~", "\N{MINUS SIGN}"
    )


def test_spans_of_labels() -> None:
    rows = [texts("a", "x", "1"), texts("a", "x", "2"), texts("b", "x", "3")]
    table = Table("t", "t", [Column("")] * 3, 3, rows)
    assert [table.spans(row) for row in range(3)] == [[2, 2, 1], [0, 0, 1], [1, 1, 1]]
    assert table.nested


# The command


def test_the_command_writes_all_and_replaces_only_when_told(run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    write_results(PAPER.results, path)
    code, out, _ = run("report", path, "--reference", "paper")
    assert code == 0
    assert re.search(r"matching .* tm-skip .* 54 .* 62", out)
    assert "93.45" in out
    directory = tmp_path / "mine-report"
    assert f"Wrote {directory / 'report.html'}" in out.replace("\n", "")
    assert "in the grid" not in out
    assert {entry.name for entry in directory.iterdir()} == set(FILES)
    tables = (directory / "tables.md").read_text()
    assert "Beside the paper" in tables
    code, _, error = run("report", path)
    assert code == 2
    assert "--replace" in error
    assert "Beside the paper" in (directory / "tables.md").read_text()
    code, out, _ = run("report", path, "--replace", "--json")
    assert code == 0
    assert checked_json("report", out)["page"] == str(directory / "report.html")
    assert "Beside the paper" not in (directory / "tables.md").read_text()
    assert read_results(directory / "results.csv") == list(PAPER.results)
    code, _, error = run("report", path, "--experiment", "x", "--out", tmp_path / "other")
    assert code == 2
    assert "no directory" in error
    (directory / "notes.txt").write_text("mine")
    assert "regraft did not write" in run("report", path, "--replace")[2]
    assert "unknown reference" in run("report", path, "--reference", "x", "--out", tmp_path / "other")[2]
    assert not (tmp_path / "other").exists()


NUMBER = {**dict.fromkeys(("setting", "task", "language", "peft", "row"), "x"), "metric": "f1", "seed": 0}
RECORD = {"scores": {"test": {"f1": 70.0}, "before training": {"f1": 1.0}}, "curve": [], "seconds": 60.0}


def make_store(root: Path, numbers: Sequence[dict[str, object]], **record: object) -> None:
    store = Store(root)
    store.write_index("tiny", {"experiment": {"name": "tiny"}, "numbers": numbers})
    store.work("k").mkdir(parents=True)
    store.finish("k", {**RECORD, **record})


@pytest.mark.parametrize(("record", "seconds"), [({}, 60.0), ({"resumed": False}, 60.0), ({"resumed": True}, None)])
def test_the_time_of_an_interrupted_training_is_not_known(
    record: dict[str, object], seconds: float | None, tmp_path: Path
) -> None:
    make_store(tmp_path, [{**NUMBER, "key": "k"}], **record)
    name, (result,) = collect(tmp_path)
    assert (name, result.score, result.seconds) == ("tiny", 70.0, seconds)


@pytest.mark.parametrize(
    ("pair", "models"),
    [
        ({"teacher": "org/mBERT", "student": "/models/small/"}, Models("mBERT", "small")),
        ({"teacher": "package:minilm/model", "distill": {}}, Models("minilm", "a student distilled from it")),
        ({"teacher": "${BIG}", "student": "${ALL}/small"}, Models("BIG", "small")),
        (None, None),
    ],
)
def test_results_say_between_which_models(pair: dict[str, object] | None, models: Models, tmp_path: Path) -> None:
    make_store(tmp_path, [{**NUMBER, "key": "k"}])
    pairs = {"y": {"teacher": "other"}} | ({} if pair is None else {"x": pair})
    index = {"experiment": {"name": "tiny", "pairs": pairs}, "numbers": [{**NUMBER, "key": "k"}]}
    Store(tmp_path).write_index("tiny", index)
    _, (result,) = collect(tmp_path)
    assert result.models == models


@pytest.mark.parametrize("number", [{**NUMBER, "key": "k", "colour": "red"}, NUMBER, "k"])
def test_an_experiment_of_another_version_is_refused(number: dict[str, object], run: Callable, tmp_path: Path) -> None:
    make_store(tmp_path, [number])
    with pytest.raises(ReportError, match="was written by another version of regraft; run the experiment again"):
        collect(tmp_path)
    code, _, error = run("report", tmp_path)
    assert (code, error.count("\n")) == (2, 1)


def test_the_command_counts_gaps(run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [make_result("teacher", 90), make_result("student", 70), make_result("tm-skip", 75)]
    write_results([*rows, make_result("teacher", 80, "en"), make_result("student", 60, "en")], path)
    assert "1 gap in the grid" in run("report", path)[1]
    write_results([*rows[1:], make_result("student", 60, "en")], path)
    assert "2 gaps in the grid" in run("report", path, "--replace")[1]


def test_the_report_of_an_experiment_is_in_its_directory(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def collect(directory: Path, experiment: str | None) -> tuple[str, list[Result]]:
        asked.append((directory, experiment))
        return "tiny <1>", make_results()

    monkeypatch.setattr("regraft.report.collect.collect", collect)
    assert run("report", tmp_path)[0] == 0
    assert run("report", tmp_path, "--experiment", "tiny")[0] == 0
    assert asked == [(tmp_path, None), (tmp_path, "tiny")]
    assert {entry.name for entry in tmp_path.iterdir()} == {"report", "report-tiny"}
    assert "<h1>tiny &lt;1&gt;: 4 starts against a random start: " in (tmp_path / "report" / "report.html").read_text()


def test_of_bits_per_byte_fewer_are_better() -> None:
    """Gains, shares, the best start and the steps to a goal all turn round; scores stay what they are."""
    place = {"task": "lm", "metric": "bits_per_byte", "seed": 0}

    def curve(*scores: float) -> tuple[Point, ...]:
        return tuple(Point(10 * i, score) for i, score in enumerate(scores, start=1))

    rows = {
        "teacher": (0.9, ()),
        "student": (1.3, curve(1.5, 1.4, 1.3)),
        "tm-skip": (1.1, curve(1.4, 1.3, 1.1)),
        "tm-avg": (1.4, curve(1.6, 1.5, 1.4)),
    }
    made = [
        make_result(row, score, language, curve=points, before=1.7, **place)
        for row, (score, points) in rows.items()
        for language in ("de", "en")
    ]
    (group,) = groups(made)
    assert [pair.gain for pair in group.pairs("tm-skip")] == pytest.approx([0.2, 0.2])
    closed = {comparison.row: comparison.closed for comparison in compare(group)}
    assert closed == pytest.approx({"tm-skip": 0.5, "tm-avg": -0.25})
    soon = progress(group, "tm-skip")
    assert (soon.reached, soon.steps, soon.baseline_steps) == (2, 20, 30)
    assert progress(group, "tm-avg").reached == 0
    table = averages([group])
    assert {row[1].text: [cell.text for cell in row[2:]] for row in table.rows} == {
        "teacher": ["0.9000", "\N{EN DASH}"],
        "student": ["1.3000", "-0.4000"],
        "tm-avg": ["1.4000", "-0.5000"],
        "tm-skip": ["1.1000", "-0.2000"],
    }
    assert [row[1].text for row in table.rows if row[2].bold] == ["tm-skip"]
    assert "percent" not in " ".join(table.notes)
    assert cells(gains([group]))[1][4:] == ["+0.2000", "\N{EN DASH}", "\N{EN DASH}", "2 of 2", "50%"]
    (finding,) = findings([group])
    assert "(tm-skip), the student beats its random start in 2 of 2" in finding.sentences[0]
    assert finding.sentences[0].endswith("the mean gain is +0.2000 bits per byte.")


def test_gains_in_several_units_are_not_averaged() -> None:
    scores = {"teacher": 90.0, "student": 70.0, "tm-skip": 80.0}
    made = [make_result(row, score, seed=0) for row, score in scores.items()]
    made += [
        make_result(row, 2 - score / 100, task="lm", metric="bits_per_byte", seed=0) for row, score in scores.items()
    ]
    first, second = (finding.sentences[0] for finding in findings(groups(made)))
    assert first.endswith("the mean gain is +10.00 points.")
    assert second.endswith("the mean gain is +0.1000 bits per byte.")
    assert [row[-2] for row in cells(wins(groups(made)))] == ["+10.00", "+0.1000 bits per byte"]
    report = contents(made, "both")
    assert any("bits_per_byte: the less the better" in note for table in report.tables for note in table.notes)
    assert any("points (NER) and bits per byte (LM)" in note for table in report.tables for note in table.notes)
