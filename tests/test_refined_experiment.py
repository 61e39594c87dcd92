"""Starts of an experiment that are refined without labels: their names, cells, results, and what is said of them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_results import make_results
from hypothesis import given
from hypothesis import strategies as st
from test_experiment import STARTS, changed, run_it
from test_store import files_with_content, flip, flipped, served

from regraft.distillation.answers import Answers
from regraft.distillation.kept_answers import _read
from regraft.errors import PlanError, TaskError
from regraft.experiment.grid import Grid, make_grid
from regraft.experiment.jobs import Refine, Transfer
from regraft.experiment.run import Ended
from regraft.experiment.spec import Experiment
from regraft.experiment.starts import Start, parse, without_refining
from regraft.experiment.store import Store
from regraft.experiment.verify import verify
from regraft.experiment.work import carry_out
from regraft.modules.module import load
from regraft.report.collect import collect
from regraft.report.contents import contents
from regraft.report.page import to_html
from regraft.report.results import Point, Refined, read_results, write_results
from regraft.tasks.options import DataOptions
from regraft.training.evaluation import evaluate

REFINED = ["student", "tm-skip+lsa+head", "tm-skip+lsa+head+refine4", "tm-skip+refine4", "student+refine4+growall"]


@given(st.none() | STARTS, st.none() | st.just("auto") | st.integers(1, 10**6), st.booleans())
def test_the_name_of_a_start_says_how_it_is_refined(port: Any, steps: Any, grows: bool) -> None:
    start = Start(port, steps, grows and steps is not None)
    assert parse(str(start)) == start


@pytest.mark.parametrize(
    ("name", "shared", "with_labels"),
    [
        ("tm-skip+lsa+head+refine200", "tm-skip+lsa+head", "tm-skip+lsa+head"),
        ("student+refineauto", "student", "student"),
        ("tm-skip+refine50+growall", "tm-skip+growall", "tm-skip"),
        ("my own+refined", "my own+refined", "my own+refined"),
    ],
)
def test_what_rows_share_that_are_refined(name: str, shared: str, with_labels: str) -> None:
    assert without_refining(name) == (shared, with_labels)


def test_names_of_starts_that_are_refined() -> None:
    assert parse("student") == Start(None)
    assert parse("student+refine200") == Start(None, 200)
    assert str(parse("tm-skip+growall+refine50+head+lsa")) == "tm-skip+lsa+head+refine50+growall"
    assert parse("tm-skip+head+refineauto").steps == "auto"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tm-skip+refine", "steps: found '', expected a number of steps, 1 or more, or auto"),
        ("tm-skip+refine0", "steps: found '0', expected a number of steps"),
        ("tm-skip+refine1+refine2", "names both refine1 and refine2"),
        ("tm-skip+growall", r"tm-skip\+growall grows and is not refined, expected \+refineSTEPS"),
        ("tm-skip+refin200", "unknown part .* 'refin200', expected one of .*refineSTEPS"),
        ("studnt+refine2", "unknown start 'studnt', .* did you mean 'student'"),
    ],
)
def test_bad_names_of_starts_that_are_refined(name: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse(name)


@pytest.fixture(scope="session")
def content(make_model: Callable[..., str], ner_folder: Path) -> dict[str, Any]:
    """Content of a file: a tiny experiment with labels and without."""
    return {
        "name": "refined",
        "pairs": {
            "matching": {
                "teacher": make_model(layers=4, initializer_range=0.05),
                "student": make_model(layers=2, initializer_range=0.05),
                "starts": REFINED,
                "sampling": {"max_texts": 50},
            }
        },
        "tasks": {"ner": {"languages": ["en"], "data": str(ner_folder)}},
        "modules": ["lora"],
        "seeds": [0],
        "training": {"epochs": 1, "batch_size": 16, "rank": 4, "max_eval": 20, "teacher": {"epochs": 3}},
        "refining": {"batch_size": 8, "rank": 6, "learning_rate": 0.01, "max_texts": 60},
    }


def grid_of(content: dict[str, Any], **changes: Any) -> Grid:
    return make_grid(Experiment.model_validate(changed(content, **changes)))


def test_what_goes_into_the_key_of_a_refinement(content: dict[str, Any]) -> None:
    grid = grid_of(content)
    assert Counter(cell.kind for cell in grid.cells.values()) == {
        "teacher": 1, "sample": 1, "transfer": 2, "refine": 3, "student": 2,
    }  # fmt: skip
    refined = {cell.label.split()[-3]: cell for cell in grid.cells.values() if isinstance(cell.job, Refine)}
    jobs = {name: cell.job for name, cell in refined.items() if isinstance(cell.job, Refine)}
    assert [job.settings.rank for job in jobs.values()] == [None, None, 6]  # only what grows has another rank
    assert [job.settings.grow for job in jobs.values()] == [None, None, ("all-linear",)]
    assert [job.fresh is None for job in jobs.values()] == [True, True, False]
    assert {job.limit for job in jobs.values()} == {60}
    assert {job.settings.precision for job in jobs.values()} == {"float32"}
    teacher = next(key for key, cell in grid.cells.items() if cell.kind == "teacher")
    assert all(teacher in cell.needs for cell in refined.values())

    keys = set(grid.cells)
    labels_alone = grid_of(content, pairs__matching__starts=REFINED[:2])
    assert set(labels_alone.cells) < keys
    slower = grid_of(content, refining__learning_rate=0.02)
    assert {grid.cells[key].kind for key in keys - set(slower.cells)} == {"refine"}
    trained = grid_of(content, training__learning_rate=0.02, training__teacher__learning_rate=1e-3)
    same = {cell.label for cell in trained.cells.values() if cell.key in keys}
    assert same == {cell.label for cell in grid.cells.values() if cell.kind != "student"}  # how labels are learnt
    larger = grid_of(content, training__rank=5, training__teacher__rank=4)
    assert {refined[name].key in larger.cells for name in list(refined)[:2]} == {True}
    assert refined["student+refine4+growall"].key not in larger.cells  # what is drawn has that rank


def test_a_head_that_is_refined_is_drawn_by_the_seed(content: dict[str, Any]) -> None:
    """One that is trained is drawn anew by the training, so its port serves all seeds."""
    starts = ["tm-skip", "tm-skip+head+refine4", "tm-skip+refine4"]
    grid = grid_of(content, pairs__matching__starts=starts, seeds=[0, 1, 2])
    ports = Counter(str(cell.job.start) for cell in grid.cells.values() if isinstance(cell.job, Transfer))
    assert ports == {"tm-skip": 3, "tm-skip+head": 1}  # one of the three is that of the training, seed 0


def test_what_a_file_may_not_say_of_refining(content: dict[str, Any]) -> None:
    for changes, message in (
        ({"refining__steps": 5}, "unknown key 'steps'"),
        ({"refining__precision": "auto"}, "precision auto is another one on another machine"),
        ({"refining__max_textss": 5}, "did you mean 'max_texts'"),
    ):
        with pytest.raises((TaskError, ValueError), match=message):
            grid_of(content, **changes)


@pytest.fixture(scope="session")
def ran(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    assert run_it(content, root)[0] == Ended(9, {}, ())
    return root


def test_modules_are_refined_on_the_teacher_s_answers(content: dict[str, Any], ran: Path, ner_folder: Path) -> None:
    grid, store = grid_of(content), Store(ran)
    teacher = load(store.output(next(key for key, cell in grid.cells.items() if cell.kind == "teacher")))
    data, ranks = DataOptions(data=str(ner_folder), lang="en"), []
    for key, cell in grid.cells.items():
        if not isinstance(cell.job, Refine):
            continue
        module, record = load(store.output(key)), store.record(key)
        refinement = module.provenance["refinement"]
        assert refinement["teacher_hash"] == teacher.hash()
        assert "training" not in module.provenance
        assert record["refined"] == {name: refinement[name] for name in record["refined"]}
        assert (record["refined"]["steps_taken"], record["refined"]["texts"]["learnt"]) == (4, 40)
        if cell.job.start is not None:
            assert refinement["start_hash"] == load(store.output(cell.job.start.where)).hash()
        found = evaluate(store.output(key), data=data, options=cell.job.scoring, progress=False)
        assert record["scores"]["test"] == found
        ranks.append((module.config["r"], len(module.config["target_modules"]) > 2))
    assert ranks == [(4, False), (4, False), (6, True)]


def test_a_second_run_does_nothing(content: dict[str, Any], ran: Path) -> None:
    assert run_it(content, ran) == (Ended(9, {}, ()), [])


def test_an_interrupted_cell_takes_up_what_was_refined(content: dict[str, Any], ran: Path, tmp_path: Path) -> None:
    root = shutil.copytree(ran, tmp_path / "store")
    cell = next(cell for cell in grid_of(content).cells.values() if isinstance(cell.job, Refine))
    store, whole = Store(root), load(Store(ran).output(cell.key))
    shutil.rmtree(root / "cells" / cell.key)
    marked = {**whole.provenance, "refinement": {**whole.provenance["refinement"], "marked": True}}
    replace(whole, provenance=marked).save(store.work(cell.key).with_name("refined"), curve=[])
    assert carry_out(store, cell).status == "done"
    again = load(store.output(cell.key))
    assert again.hash() == whole.hash()
    assert again.provenance["refinement"]["marked"]
    assert again.provenance["scores"] == whole.provenance["scores"]


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*is left out, since", "ignore:the answers in .* are damaged")
def test_no_flipped_bit_of_a_real_store_is_served(ran: Path, tmp_path: Path, bits: int) -> None:
    root = shutil.copytree(ran, tmp_path / "store")
    files = files_with_content(root)
    assert {path.relative_to(root).parts[0] for path in files} == {"answers", "cells", "experiments"}
    dice, noticed = random.Random(bits), 0
    before = served(Store(root))
    for path in files:
        kept = _read(path.parent) if path.is_relative_to(root / "answers") else None
        for bit in [dice.randrange(8 * path.stat().st_size) for _ in range(bits)]:
            with flipped(path, bit):
                if kept is not None:
                    found = _read(path.parent)
                    noticed += found is None
                    assert found is None or as_numbers(found[0]) == as_numbers(kept[0]), (path, bit)
                    continue
                unsound, again = verify(Store(root)), served(Store(root))
                noticed += bool(unsound.unsound or unsound.lists)
                if not (unsound.unsound or unsound.lists):
                    assert again == before, (path, bit)
                elif again is not None:
                    assert all(result in before for result in again), (path, bit)
    assert noticed > 0.9 * bits * len(files)


def as_numbers(answers: Answers) -> list[Any]:
    return [answers.logits.tolist(), answers.text.tolist(), answers.word.tolist(), answers.labels, answers.task_type]


@pytest.mark.slow
def test_a_damaged_cell_comes_out_as_it_was_and_leaves_what_is_built_on_it(
    content: dict[str, Any], tmp_path: Path
) -> None:
    root = tmp_path / "store"  # not a copy: provenance names the places of what was read
    run_it(content, root)
    store = Store(root)
    for kind in ("teacher", "sample", "transfer", "refine", "student"):
        key, cell = next((key, cell) for key, cell in grid_of(content).cells.items() if cell.kind == kind)
        before = {path.name: path.read_bytes() for path in store.output(key).iterdir()}
        flip(max(store.output(key).iterdir(), key=lambda path: path.stat().st_size), 10_001)
        assert run_it(content, root) == (Ended(9, {}, ()), [cell.label])
        after = {path.name: path.read_bytes() for path in store.output(key).iterdir()}
        assert [name for name in before if before[name] != after[name]] == []


def test_the_report_sets_them_beside_those_with_labels(ran: Path, tmp_path: Path) -> None:
    name, results = collect(ran)
    refined = {result.row: result for result in results if result.refined}
    assert list(refined) == REFINED[2:]
    scores = {
        number["row"]: Store(ran).record(number["key"])["scores"] for number in Store(ran).read_index()["numbers"]
    }
    for row, result in refined.items():
        assert result.before == scores[row]["before training"]["f1"]
        assert result.curve == (Point(4, scores[row]["validation"]["f1"]),)
    report = contents(results, name)
    (table,) = (table for table in report.tables if table.name.startswith("label-free"))
    assert [row[2].text for row in table.rows] == sorted(REFINED[2:], key=lambda row: (row != "student", row))
    columns = {head: number for number, head in enumerate(table.heads)}
    for row in table.rows:
        result = refined[row[2].text]
        assert row[columns["validation after"]].text == f"{result.curve[0].score:.2f}"
        assert row[columns["test after"]].text == f"{result.score:.2f}"
        assert (row[columns["texts"]].text, row[columns["steps"]].text) == ("40", "4")
        assert result.refined is not None
        assert row[columns["agreement after"]].text == f"{result.refined.after:.2f}"
    assert report.starts == ("tm-skip+lsa+head",)  # what compares, step by step, with the baseline
    assert any(sentence.startswith("Without a label, ") for sentence in report.findings[0].sentences)
    write_results(results, tmp_path / "results.csv")
    read = {result.row: (result.refined, result.curve) for result in read_results(tmp_path / "results.csv")}
    assert read == {result.row: (result.refined, result.curve) for result in results}
    (panel,) = report.settings[0].steps
    assert {(line.row, line.labelled) for line in panel.lines} == {
        ("student", True), ("tm-skip+lsa+head", True), ("tm-skip+lsa+head", False), ("tm-skip", False),
        ("student+growall", False),
    }  # fmt: skip
    assert ">Score by steps<" in to_html(report)


def test_without_such_rows_there_is_no_such_table() -> None:
    results = make_results()
    assert not [table for table in contents(results, "x").tables if table.name.startswith("label-free")]
    some = [
        replace(result, refined=Refined(4, 40, 10.0, 20.0)) if "lsa" in result.row else result for result in results
    ]
    report = contents(some, "x")
    assert [table.name for table in report.tables if table.name.startswith("label-free")] == ["label-free-incompatible"]
    assert "tm-skip+lsa" not in report.starts
