"""Experiments: the file, the grid, the store, the run. Killed runs and Ray are in test_experiment_runs.py."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import checked_json, make_texts
from hypothesis import given
from hypothesis import strategies as st
from micro.data import write_tasks
from safetensors.torch import load_file, save_file

from regraft.alignment.methods import METHODS
from regraft.distillation.options import DistillOptions, RefineOptions
from regraft.errors import PlanError, RegraftError, TaskError
from regraft.experiment import jobs
from regraft.experiment.executors import Local
from regraft.experiment.grid import make_grid
from regraft.experiment.jobs import (
    Distill,
    Reading,
    Refine,
    SamplePair,
    Source,
    TaskSource,
    TextSource,
    Train,
    Transfer,
    key_of,
)
from regraft.experiment.load import SHIPPED, find, read_experiment
from regraft.experiment.preflight import check
from regraft.experiment.run import Ended, run, time_left, times
from regraft.experiment.spec import Experiment
from regraft.experiment.store import Store
from regraft.experiment.work import Outcome, carry_out
from regraft.files.writing import WritingError
from regraft.modules.module import load as load_module
from regraft.port.layers import MATCHINGS
from regraft.port.options import PortOptions, parse_start
from regraft.report.collect import collect
from regraft.training.options import EvaluateOptions, TrainOptions

TEXTS = str(Path(__file__).parents[1] / "README.md")


def start_of(
    layers: Any = "skip",
    align: str = "none",
    spaces: Any = "released",
    sequential: bool = False,
    scale: Any = 1.0,
    head: Any = "fresh",
) -> PortOptions:
    return PortOptions(layers=layers, align=align, spaces=spaces, sequential=sequential, scale=scale, head=head)


LAYERS = st.sampled_from(list(MATCHINGS)) | st.lists(st.integers(0, 30), min_size=1).map(tuple)
STARTS = st.builds(
    start_of,
    LAYERS,
    st.sampled_from(list(METHODS)),
    st.sampled_from(["released", "measured"]),
    st.booleans(),
    st.just("auto") | st.floats(0, 100),
    st.sampled_from(["fresh", "teacher"]),
).filter(lambda start: start.sequential or (start.align != "auto" and start.scale != "auto"))


@given(STARTS)
def test_the_name_of_a_start_says_all_of_it(start: PortOptions) -> None:
    assert parse_start(str(start)) == start


def test_names_of_starts() -> None:
    assert parse_start("student") is None
    assert parse_start("tm-skip") == start_of()
    assert parse_start("tm-avg+head+lsa+measured") == start_of("avg", "lsa", "measured", head="teacher")
    assert str(parse_start("tm-0,2+head+random")) == "tm-0,2+random+head"
    assert parse_start("tm-skip+ridge") == start_of("skip", "ridge", "measured")
    whole = "tm-skip+ridge+sequential+scale0.5+head"
    assert parse_start(whole) == start_of("skip", "ridge", "measured", True, 0.5, "teacher")
    assert str(parse_start("tm-skip+head+scale0.50+sequential+measured+ridge")) == whole
    assert parse_start("tm-avg+auto+scaleauto") == start_of("avg", "auto", "measured", True, "auto")
    assert str(parse_start("tm-avg+sequential+scale1+auto")) == "tm-avg+auto"


def test_starts_that_need_texts() -> None:
    needs = {name: parse_start(name).sequential for name in ("tm-skip", "tm-skip+ridge", "tm-skip+lsa+scale2")}
    assert not any(needs.values())
    names = ("tm-skip+auto", "tm-skip+zero+sequential", "tm-skip+sequential")
    assert all(parse_start(name).sequential for name in names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tm-skipp", "unknown start 'tm-skipp', expected one of .*; did you mean 'tm-skip'"),
        ("skip", "unknown start 'skip', .* did you mean 'tm-skip'"),
        ("tm-skip+lsaa", "unknown part of the start tm-skip\\+lsaa: 'lsaa', .* did you mean 'lsa'"),
        ("tm-skip+lsa+copy", "names both lsa and copy"),
        ("tm-skip+head+head", "names both head and head"),
        ("tm-", "unknown start 'tm-'"),
        ("tm-0,,2", "unknown start 'tm-0,,2'"),
        ("tm-skip+auto+sequental", "'sequental', expected one of .*, scaleNUMBER, .*; did you mean 'sequential'"),
        ("tm-skip+scale", "scale: found '', expected a number or auto"),
        ("tm-skip+scalehalf", "scale: found 'half', expected a number or auto"),
        ("tm-skip+scale1+scale2", "names both scale1 and scale2"),
        ("tm-skip+ridge+scaleauto", "scale auto runs both models with the module in place"),
    ],
)
def test_bad_names_of_starts(name: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_start(name)


@pytest.fixture(scope="session")
def content(make_model: Callable[..., str], ner_folder: Path) -> dict[str, Any]:
    """Content of a file: a tiny experiment."""
    return {
        "name": "tiny",
        "pairs": {
            "matching": {
                "teacher": make_model(layers=4, initializer_range=0.05),
                "student": make_model(layers=2, initializer_range=0.05),
                "starts": ["student", "tm-skip", "tm-skip+lsa+head"],
                "sampling": {"max_texts": 50},
            }
        },
        "tasks": {"ner": {"languages": ["en"], "data": str(ner_folder)}},
        "modules": ["lora"],
        "seeds": [0, 1],
        "training": {"epochs": 1, "batch_size": 16, "rank": 4, "max_eval": 20, "teacher": {"epochs": 2}},
    }


def changed(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Copy the content of a file with a value changed, its place written with ``__`` between keys."""
    copy: dict[str, Any] = json.loads(json.dumps(content))
    for place, value in changes.items():
        *path, last = place.split("__")
        part = copy
        for key in path:
            part = part.setdefault(key, {})
        part[last] = value
    return copy


def write(content: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [1]}, "unknown key 'seed', expected one of .*; did you mean 'seeds'"),
        ({"training__learning_rat": 1}, "training: unknown key 'learning_rat', .* did you mean 'learning_rate'"),
        ({"training__teacher__epoch": 1}, "training.teacher: unknown key 'epoch', .* did you mean 'epochs'"),
        ({"training__preset": "papr"}, "training.preset: unknown preset 'papr', .* did you mean 'paper'"),
        ({"training__epochs": "many"}, "training.epochs is 'many', expected a number"),
        ({"pairs__matching__start": []}, "pairs.matching: unknown key 'start', .* did you mean 'starts'"),
        ({"pairs__matching__starts": ["tm-skip+hed"]}, "pairs.matching.starts: unknown part .* did you mean 'head'"),
        ({"pairs__matching__starts": ["tm-skip+lsa+head", "tm-skip+head+lsa"]}, "tm-skip\\+lsa\\+head is listed twice"),
        ({"pairs__matching__starts": []}, "pairs.matching.starts: .* at least 1 item"),
        ({"pairs__matching__distill": {"texts": ["a.txt"]}}, "expected one of student .* and distill"),
        ({"pairs__matching__tasks": ["pos"]}, "unknown task of a pair 'pos', expected one of ner"),
        ({"pairs__matching__sampling__pairing": "place"}, "sampling.pairing: unknown pairing 'place'"),
        ({"tasks__nerr": {"languages": ["en"]}}, "unknown task 'nerr', .* did you mean 'ner'"),
        ({"tasks__ner__languages": [False]}, "tasks.ner.languages.0 is False, expected a text"),
        ({"modules": ["lora", "bottelneck"]}, "unknown kind of module 'bottelneck', .* did you mean 'bottleneck'"),
        ({"modules": {"mine": {"peft": "lorra"}}}, "unknown kind of module 'lorra', .* did you mean 'lora'"),
        ({"modules": {"lora": {"sites": []}}}, "modules.lora.sites: .* at least 1 item"),
        ({"modules": ["lora", "lora"]}, "lora is listed twice"),
        ({"modules": [{"lora": {"rank": 4}}]}, "modules: expected a list of names, or a mapping"),
        ({"seeds": [0, 0]}, "seeds: 0 is listed twice"),
        ({"seeds": [True]}, "seeds.0 is True, expected a whole number"),
        ({"training__precision": "auto"}, "training: precision auto is another one on another machine"),
        ({"resources__teacher": {"gpus": 1.5}}, "expected a share of one GPU, or a whole number"),
        ({"resources__students": {}}, "unknown kind of cell 'students', .* did you mean 'student'"),
        ({"name": "a/b"}, "name: .*pattern"),
    ],
)
def test_a_file_is_read_strictly(content: dict[str, Any], tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read_experiment(write(changed(content, **changes), tmp_path / "x.yaml"))


def test_a_file_that_is_no_experiment(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text, message in (
        ("name: a\nname: b\n", "the key 'name' is there twice"),
        ("[1, 2]", "holds no mapping"),
        ("a: [", "cannot read .* as YAML"),
    ):
        path.write_text(text)
        with pytest.raises(TaskError, match=message):
            read_experiment(path)
    with pytest.raises(TaskError, match=r"unknown experiment 'paper-matchin', .* did you mean 'paper-matching'"):
        find("paper-matchin")
    assert find("paper-matching.yaml") == SHIPPED["paper-matching"]


def test_variables_and_packages(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NER_FOLDER", content["tasks"]["ner"]["data"])
    written = write(changed(content, tasks__ner__data="${NER_FOLDER}"), tmp_path / "x.yaml")
    assert make_grid(read_experiment(written)) == make_grid(Experiment.model_validate(content))
    monkeypatch.delenv("NER_FOLDER")
    with pytest.raises(TaskError, match="environment variable NER_FOLDER, which is not set"):
        make_grid(read_experiment(written))
    with pytest.raises(TaskError, match="package no_such_package, which is not installed"):
        make_grid(
            read_experiment(write(changed(content, tasks__ner__data="package:no_such_package/x"), tmp_path / "x.yaml"))
        )


def test_a_kind_of_module_can_have_a_name_of_its_own(content: dict[str, Any]) -> None:
    everywhere = {"lora": {}, "lora everywhere": {"peft": "lora", "sites": ["all-linear"]}}
    grid = make_grid(Experiment.model_validate(changed(content, modules=everywhere)))
    assert grid_keys(content) < set(grid.cells)
    assert {number.peft for number in grid.numbers} == {*everywhere}
    trained = {(cell.job.peft, cell.job.settings.sites) for cell in grid.cells.values() if isinstance(cell.job, Train)}
    assert trained == {("lora", None), ("lora", ("all-linear",))}


def test_the_shipped_grids_are_the_papers() -> None:
    grids = [make_grid(read_experiment(SHIPPED[name])) for name in ("paper-matching", "paper-incompatible")]
    trainings = [[cell for cell in grid.cells.values() if isinstance(cell.job, Train)] for grid in grids]
    assert [len(cells) for cells in trainings] == [248, 96]  # the 344 trainings of the paper's tables
    for grid, languages in zip(grids, ({"ner": 9, "pi": 7, "nli": 15}, {"ner": 9, "pi": 7}), strict=True):
        found = {(number.task, number.language) for number in grid.numbers}
        assert Counter(task for task, _ in found) == languages
    ner, pi = (
        next(cell.job for cell in trainings[0] if isinstance(cell.job, Train) and cell.job.data.task == task)
        for task in ("ner", "pi")
    )
    assert (ner.settings.epochs, pi.settings.epochs) == (10, 30)
    assert (ner.settings.batch_size, ner.settings.learning_rate, ner.settings.head) == (64, 1e-5, "fresh")


def grid_keys(content: dict[str, Any]) -> set[str]:
    return set(make_grid(Experiment.model_validate(content)).cells)


def test_what_goes_into_a_key(content: dict[str, Any], tmp_path: Path) -> None:
    grid = make_grid(Experiment.model_validate(content))
    assert Counter(cell.kind for cell in grid.cells.values()) == {
        "teacher": 1, "sample": 1, "transfer": 2, "student": 6,
    }  # fmt: skip
    order = list(grid.cells)
    assert all(order.index(need) < order.index(key) for key, cell in grid.cells.items() for need in cell.needs)
    keys = set(order)

    assert grid_keys(changed(content, name="other", resources__student__cpus=2)) == keys  # changes nothing of results
    more = grid_keys(changed(content, seeds=[0, 1, 2]))
    assert keys < more
    assert len(more - keys) == 3
    above = grid_keys(changed(content, training__teacher__epochs=3))
    assert {grid.cells[key].label for key in keys & above} == {
        "matching ner/en sample",
        "matching ner/en lora student seed 0",
        "matching ner/en lora student seed 1",
    }  # fmt: skip  (all that needs no teacher)
    assert {grid.cells[key].kind for key in keys & grid_keys(changed(content, training__epochs=3))} == {
        "teacher", "sample", "transfer",
    }  # fmt: skip
    assert {grid.cells[key].kind for key in keys - grid_keys(changed(content, pairs__matching__sampling={}))} == {
        "sample", "transfer", "student",
    }  # fmt: skip

    moved = tmp_path / "moved"
    shutil.copytree(content["tasks"]["ner"]["data"], moved)
    shutil.copytree(content["pairs"]["matching"]["teacher"], tmp_path / "teacher")
    there = changed(content, tasks__ner__data=str(moved), pairs__matching__teacher=str(tmp_path / "teacher"))
    assert grid_keys(there) == keys  # content counts, places do not
    (moved / "en" / "test.conllu").write_text("0\tCity\tB-LOC\n")
    assert not keys & grid_keys(there)


def test_a_key_is_what_it_was_before_options_were_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is declared how: what was stored under a recipe is taken up until the next one."""

    def source(name: str) -> Source:
        return Source(name, f"id:{name}")

    ner = TaskSource("ner", "en", source("data"), (("tokens", "words"),), ("O", "B-X"))
    pi = TaskSource("pi", "de", source(""), (), None)
    whole = TextSource(source("t"), "text", "train", None)
    part = TextSource(source("u"), "col", "test", 50)
    training = TrainOptions(
        epochs=2, batch_size=8, precision="float32", seed=3, max_train=100, head="teacher", length_grouped=False
    )
    distilling = DistillOptions(layers=(0, 2), max_steps=7, precision="float32", weight_kl=0.5)
    for job, key in (
        (Train(source("m"), "lora", None, pi, TrainOptions(), 1), "a7c3f8dd476a8925"),
        (Train(source("m"), "bottleneck", Source("k", "k", True), ner, training, 2), "10b7a62d52ccff74"),
        (Distill(source("m"), (whole,), DistillOptions(), 1), "97b807950b37631a"),
        (Distill(source("m"), (whole, part), distilling, 2), "f6d698469b94ff26"),
        (SamplePair(source("a"), source("b"), "skip", Reading(whole, 1000, "offsets")), "233350abe807dfe9"),
        (SamplePair(source("a"), source("b"), (0, 2), Reading(ner, 50, "position")), "984dfe91602478d9"),
    ):
        assert key_of(job) != key
        with monkeypatch.context() as before:
            before.setattr(jobs, "RECIPE", 1)
            assert key_of(job) == key
    assert jobs.RECIPE == 6
    monkeypatch.setattr(jobs, "RECIPE", 4)
    begins, scoring = (source("p"), "lora", None, source("s"), source("k"), source("t")), EvaluateOptions()
    for options, key in (
        (RefineOptions(steps=200, precision="float32"), "b89a8523b4e9be93"),
        (RefineOptions(steps="auto", grow=("all-linear",), rank=16, temperature=2, seed=1), "40b087a2207be556"),
    ):
        assert key_of(Refine(*begins, ner, 60, options, scoring)) == key
        for other in ({"hard": True}, {"hidden": 0.1}):
            assert key_of(Refine(*begins, ner, 60, options.model_copy(update=other), scoring)) != key
    assert key_of(Train(source("m"), "lora", None, pi, TrainOptions(), 1)) == "85a32ae8780cc3db"


def test_ports_read_texts_or_take_moments(content: dict[str, Any]) -> None:
    starts = [
        "tm-skip",
        "tm-skip+ridge+head",
        "tm-skip+lsa",
        "tm-skip+auto",
        "tm-skip+random+sequential",
    ]
    grid = make_grid(Experiment.model_validate(changed(content, pairs__matching__starts=starts)))
    jobs = {str(cell.job.start): cell.job for cell in grid.cells.values() if isinstance(cell.job, Transfer)}
    assert list(jobs) == starts
    (sample,) = (cell for cell in grid.cells.values() if isinstance(cell.job, SamplePair))
    assert [job.reading is not None for job in jobs.values()] == [False, False, False, True, True]
    assert [job.moments is not None for job in jobs.values()] == [False, True, True, False, False]
    assert {job.moments.where for job in jobs.values() if job.moments} == {sample.key}
    assert {job.reading for job in jobs.values() if job.reading} == {sample.job.reading}
    for start, job in jobs.items():
        needs = next(cell.needs for cell in grid.cells.values() if cell.job == job)
        assert (sample.key in needs) == (job.moments is not None), start
    less = changed(content, pairs__matching__starts=starts, pairs__matching__sampling__max_texts=40)
    same = grid.cells.keys() & grid_keys(less)
    assert {grid.cells[key].label for key in same if grid.cells[key].kind == "transfer"} == {
        "matching ner/en lora port tm-skip"
    }


def run_it(content: dict[str, Any], root: Path) -> tuple[Ended, list[str]]:
    """Run an experiment; return how it ended and the labels of what was carried out."""
    experiment = Experiment.model_validate(content)
    ended: list[str] = []
    result = run(
        experiment, make_grid(experiment), Store(root), Local(), ended=lambda cell, _: ended.append(cell.label)
    )
    return result, ended


@pytest.fixture(scope="session")
def ran(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of the tiny experiment, run to its end."""
    root = tmp_path_factory.mktemp("store")
    result, ended = run_it(content, root)
    assert result == Ended(10, {}, ())
    assert len(ended) == len(set(ended)) == 10
    return root


@pytest.mark.slow
def test_a_second_run_does_nothing_and_a_new_seed_only_what_is_new(
    content: dict[str, Any], ran: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(ran, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (root / "cells").rglob("*")}
    assert run_it(content, root) == (Ended(10, {}, ()), [])
    result, ended = run_it(changed(content, seeds=[0, 1, 7]), root)
    assert result.done == 13
    assert ended == [f"matching ner/en lora {row} seed 7" for row in ("student", "tm-skip", "tm-skip+lsa+head")]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != root / "cells")
    assert not any((root / "work").iterdir())


def test_starts_are_what_their_names_say(content: dict[str, Any], ran: Path) -> None:
    grid = make_grid(Experiment.model_validate(content))
    store = Store(ran)
    modules = {cell.label: load_module(store.output(key)) for key, cell in grid.cells.items() if cell.kind != "sample"}
    teacher = modules["matching ner/en lora teacher"]
    skip = modules["matching ner/en lora port tm-skip"]
    key = "base_model.model.bert.encoder.layer.{}.attention.self.query.lora_A.weight"
    for layer in (0, 1):
        assert skip.tensors[key.format(layer)].equal(teacher.tensors[key.format(2 * layer)])
    aligned = modules["matching ner/en lora port tm-skip+lsa+head"]
    assert aligned.report["align"] == "lsa"
    assert (skip.report["head"], aligned.report["head"]) == ("fresh", "teacher")
    made = {label: module.provenance.get("training") for label, module in modules.items()}
    assert made["matching ner/en lora tm-skip seed 0"]["start_hash"] == skip.hash()
    assert made["matching ner/en lora tm-skip seed 0"]["head"] == "fresh"
    assert made["matching ner/en lora tm-skip+lsa+head seed 1"]["start_hash"] == aligned.hash()
    assert made["matching ner/en lora tm-skip+lsa+head seed 1"]["head"] == "teacher"
    assert made["matching ner/en lora student seed 1"]["start_hash"] is None
    assert made["matching ner/en lora teacher"]["epochs"] == 2
    assert {made[f"matching ner/en lora {row} seed 1"]["seed"] for row in ("student", "tm-skip")} == {1}


@pytest.mark.slow
def test_a_start_fitted_in_sequence_is_ported_by_the_texts_of_its_task(
    content: dict[str, Any], ran: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(ran, tmp_path / "store")
    start = "tm-skip+auto+scaleauto+head"
    result, ended = run_it(changed(content, seeds=[0], pairs__matching__starts=[start]), root)
    assert result == Ended(3, {}, ())
    assert ended == [f"matching ner/en lora port {start}", f"matching ner/en lora {start} seed 0"]
    (trained,) = (result for result in collect(root)[1] if result.row == start)
    assert trained.expected is not None
    assert trained.alignment
    grid = make_grid(Experiment.model_validate(changed(content, seeds=[0], pairs__matching__starts=[start])))
    key = next(cell.key for cell in grid.cells.values() if cell.kind == "transfer")
    report = load_module(Store(root).output(key)).report
    assert (report["align"], report["sequential"], report["head"]) == ("auto", True, "teacher")
    assert report["scale"] in {float(tried) for tried in report["scales"]}


def test_results_for_the_report(content: dict[str, Any], ran: Path) -> None:
    name, results = collect(ran)
    assert name == "tiny"
    assert Counter(result.row for result in results) == {
        "teacher": 1, "student": 2, "tm-skip": 2, "tm-skip+lsa+head": 2,
    }  # fmt: skip
    grid = make_grid(Experiment.model_validate(content))
    for result, number in zip(results, grid.numbers, strict=True):
        scores = load_module(Store(ran).output(number.key)).provenance["training"]["scores"]
        assert (result.score, result.before) == (scores["test"]["f1"], scores["before training"]["f1"])
        assert result.curve[0].score == result.before
        # A start with the teacher's head competes with the checkpoints, one with a head of its own does not.
        competing = result.curve if "head" in result.row else result.curve[1:]
        assert max(point.score for point in competing) == scores["validation"]["f1"]
        assert bool(result.alignment) == ("lsa" in result.row)
        assert (result.expected is not None) == ("lsa" in result.row)
    with pytest.raises(TaskError, match=r"unknown experiment 'tinny', .* did you mean 'tiny'"):
        collect(ran, "tinny")
    with pytest.raises(TaskError, match="holds no experiment"):
        collect(ran.parent / "nowhere")


def test_an_estimate_of_what_is_left(content: dict[str, Any], ran: Path) -> None:
    grid = make_grid(Experiment.model_validate(changed(content, seeds=[0, 1, 2, 3], modules=["lora", "bottleneck"])))
    took = times(grid, Store(ran))
    assert sorted({grid.cells[key].kind for key in took}) == ["sample", "student", "teacher", "transfer"]
    took = {key: {"student": 5.0, "teacher": 7.0}.get(grid.cells[key].kind, 0.0) for key in took}
    # Two seeds of three starts, four of the other kind of module, its teacher.
    assert time_left(grid, took) == (6 * 5.0 + 12 * 5.0 + 7.0, 0)
    teachers = {key: seconds for key, seconds in took.items() if grid.cells[key].kind == "teacher"}
    others = [cell for cell in grid.cells.values() if cell.kind != "teacher"]
    assert time_left(grid, teachers) == (7.0, len(others))


@pytest.mark.slow
def test_a_failing_cell_is_written_down_and_does_not_stop_the_others(
    content: dict[str, Any], make_model: Callable[..., str], tmp_path: Path
) -> None:
    broken = tmp_path / "student"
    shutil.copytree(make_model("distilbert", layers=2), broken)
    (broken / "model.safetensors").rename(tmp_path / "weights")
    both = changed(content, seeds=[0], pairs__matching__starts=["student", "tm-skip"])
    both["pairs"]["broken"] = {**both["pairs"]["matching"], "student": str(broken)}
    result, ended = run_it(both, tmp_path / "store")
    store, grid = Store(tmp_path / "store"), make_grid(Experiment.model_validate(both))
    wrong = {key for key, cell in grid.cells.items() if cell.label.startswith("broken") and cell.kind == "student"}
    assert set(result.failed) == wrong
    assert result.done == len(grid.cells) - len(wrong) == 5  # a teacher, two ports, two students
    assert len(ended) == 7
    failure = store.failure(next(iter(wrong)))
    assert failure is not None
    assert "cannot load the weights" in failure["error"]

    (tmp_path / "weights").rename(broken / "model.safetensors")
    grid = make_grid(Experiment.model_validate(both))  # its content is another now, and so are its keys
    result, ended = run_it(both, tmp_path / "store")
    assert result == Ended(len(grid.cells), {}, ())


def test_what_needs_a_failed_cell_is_not_tried(content: dict[str, Any], ran: Path, tmp_path: Path) -> None:
    root = shutil.copytree(ran, tmp_path / "store")
    impossible = changed(content, pairs__matching__starts=["student", "tm-0,9"], seeds=[0])
    result, _ = run_it(impossible, root)
    grid = make_grid(Experiment.model_validate(impossible))
    (failed,) = result.failed
    assert grid.cells[failed].label == "matching ner/en lora port tm-0,9"
    assert "the layer list names layer 9, expected 0 to 3" in result.failed[failed]
    assert [grid.cells[key].label for key in result.blocked] == ["matching ner/en lora tm-0,9 seed 0"]
    assert Store(root).failure(failed) is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "no/such-model"}, "cannot read the configuration of model 'no/such-model'"),
        ({"starts": ["tm-0,9"]}, "the layer list names layer 9, expected 0 to 3"),
        ({"student": "wide", "starts": ["tm-skip"]}, "32 wide .* and 48 in"),
        ({"student": "wide", "starts": ["tm-skip+lsa"]}, None),
        (
            {"student": "wide", "starts": ["tm-skip+auto+scaleauto+head", "tm-avg+zero+sequential"]},
            None,
        ),
        ({"starts": ["tm-skip+auto"], "sampling": {"texts": "no-such.txt"}}, "cannot read texts from no-such.txt"),
        ({"student": None, "distill": {"texts": [TEXTS]}}, None),
        ({"student": None, "distill": {"texts": ["no-such.txt"]}}, r"cannot read texts from no-such.txt"),
        ({"starts": ["student"], "student": "no/such-student"}, "configuration of model 'no/such-student'"),
        (
            {"student": None, "distill": {"texts": [TEXTS], "layers": [0, 1, 2]}, "starts": ["tm-0,1"]},
            "names 2 .* expected 3",
        ),
    ],
)
def test_ports_are_checked_before_anything_is_trained(
    content: dict[str, Any], make_model: Callable[..., str], changes: dict[str, Any], message: str | None
) -> None:
    if changes.get("student") == "wide":
        changes = {**changes, "student": make_model(width=48, layers=2)}
    pair = {**content["pairs"]["matching"], **changes}
    grid = make_grid(Experiment.model_validate(changed(content, pairs__matching=pair, modules=["lora", "bottleneck"])))
    if message is None:
        check(grid)
    else:
        with pytest.raises(RegraftError, match=message):
            check(grid)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__rank": 0}, "rank is 0, expected 1 or more"),
        ({"training__max_train": 0}, "max_train is 0, expected 1 or more"),
        ({"training__epochs": float("nan")}, "epochs is nan, expected a finite number"),
        ({"training__learning_rate": -1}, "learning_rate is -1, expected 0 or more"),
        ({"tasks__ner__data": "package:no.such/x"}, "package no.such, which is not installed"),
        ({"tasks__ner__data": "nowhere"}, "nowhere has no test file"),
    ],
)
def test_values_that_cannot_work_are_refused_before_anything_is_trained(
    content: dict[str, Any], changes: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=message):
        check(make_grid(read_experiment(write(changed(content, **changes), tmp_path / "x.yaml"))))


def test_a_yaml_merge_is_no_key_that_is_there_twice(content: dict[str, Any], tmp_path: Path) -> None:
    path = write(changed(content, training={"epochs": 1}), tmp_path / "x.yaml")
    merged = path.read_text().replace("training:\n  epochs: 1", "training: {<<: {epochs: 3, rank: 2}, epochs: 1}")
    path.write_text(merged)
    assert read_experiment(path).training.given() == {"epochs": 1.0, "rank": 2}


def test_every_weight_counts_in_a_key(content: dict[str, Any], tmp_path: Path) -> None:
    teacher = shutil.copytree(content["pairs"]["matching"]["teacher"], tmp_path / "teacher")
    there = changed(content, pairs__matching__teacher=str(teacher))
    keys = grid_keys(there)
    weights = load_file(teacher / "model.safetensors")
    for name in list(weights)[::5]:
        before = weights[name].clone()
        weights[name] += 1
        save_file(weights, teacher / "model.safetensors", {"format": "pt"})
        assert grid_keys(there) != keys, name
        weights[name] = before
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})
    assert grid_keys(there) == keys


def test_a_cell_that_was_interrupted_goes_on_elsewhere(content: dict[str, Any], tmp_path: Path) -> None:
    grid = make_grid(Experiment.model_validate(content))
    cell = next(cell for cell in grid.cells.values() if cell.kind == "teacher")
    store = Store(tmp_path / "store")
    training = store.work(cell.key).with_name("output.training")
    training.mkdir(parents=True)
    (training / "regraft-training.json").write_text('{"model": "moved since"}')
    assert carry_out(store, cell) == Outcome(cell.key, "done")
    assert store.record(cell.key)["resumed"]


@pytest.mark.slow
def test_a_disk_that_is_full_fails_a_cell_not_the_run(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise WritingError(tmp_path, OSError(28, "No space left on device"))

    monkeypatch.setattr(Store, "finish", full)
    monkeypatch.setattr(Store, "fail", full)
    result, ended = run_it(changed(content, seeds=[0], pairs__matching__starts=["student"]), tmp_path / "store")
    assert len(ended) == len(result.failed) == 2
    assert "No space left on device" in next(iter(result.failed.values()))


@pytest.mark.slow
def test_a_cell_that_another_run_is_at_is_waited_for(content: dict[str, Any], ran: Path, tmp_path: Path) -> None:
    root = shutil.copytree(ran, tmp_path / "store")
    more = changed(content, seeds=[0, 1, 7], pairs__matching__starts=["student"])
    experiment = Experiment.model_validate(more)
    (key,) = (key for key in make_grid(experiment).cells if not Store(root).done(key))
    asked: list[bool] = []
    held = Store(root).claim(key)
    assert held.__enter__()

    class Impatient(Local):
        def next(self, patience: float | None) -> Outcome:
            outcome = super().next(patience)
            asked.append(outcome.status == "busy")
            if len(asked) == 2:
                held.__exit__(None, None, None)
            return outcome

    result = run(experiment, make_grid(experiment), Store(root), Impatient())
    assert asked == [True, True, False]
    assert result.failed == {}


def test_a_claim_is_one_process_s(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("a") as first, store.claim("b") as other:
        assert first
        assert other
        with store.claim("a") as second:
            assert not second
    with store.claim("a") as again:
        assert again
    here, there = Pipe()

    def hold() -> None:
        with Store(tmp_path).claim("a") as claimed:
            there.send(claimed)
            time.sleep(60)

    other = get_context("fork").Process(target=hold)
    other.start()
    assert here.recv()
    with store.claim("a") as taken:
        assert not taken
    other.kill()
    other.join()
    with store.claim("a") as free:
        assert free


def test_a_launcher_is_refused(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    code, _, error = run("experiment", "run", "demo")
    assert code == 2
    assert "several processes of a launcher" in error


def test_the_commands(content: dict[str, Any], ran: Path, run: Callable[..., Any], tmp_path: Path) -> None:
    path = write(content, tmp_path / "tiny.yaml")
    code, out, _ = run("experiment", "plan", path, "--store", tmp_path / "new")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("all ")] == ["10"]
    assert not (tmp_path / "new").exists()
    more = write(changed(content, seeds=[0, 1, 2]), tmp_path / "more.yaml")
    code, out, _ = run("experiment", "plan", more, "--store", ran, "--verbose")
    assert code == 0
    assert "left: about" in out
    assert "matching ner/en lora tm-skip+lsa+head seed 2" in out
    code, out, _ = run("experiment", "run", path, "--store", ran)
    assert code == 0
    assert "10 of 10 cells are done" in out
    code, out, _ = run("report", ran, "--out", tmp_path / "report")
    assert code == 0
    assert "matching: no start is surely ahead" in out  # of one language and one seed
    assert (tmp_path / "report" / "report.html").is_file()
    broken = shutil.copytree(content["pairs"]["matching"]["student"], tmp_path / "student")
    (broken / "model.safetensors").unlink()
    wrong = changed(content, pairs__matching__student=str(broken), pairs__matching__starts=["tm-skip+lsa"], seeds=[0])
    code, out, _ = run("experiment", "run", write(wrong, path), "--store", shutil.copytree(ran, tmp_path / "store"))
    assert code == 1
    assert "failed: matching ner/en sample: cannot load the weights" in out
    assert "not tried, since they need one that failed: 2 cells" in out
    code, out, error = run("experiment", "run", path, "--store", tmp_path / "store", "--json")
    found = checked_json("experiment run", out)
    assert (code, len(found["failed"]), len(found["not_tried"])) == (1, 1, 2)
    assert "failed: matching ner/en sample: cannot load the weights" in error
    code, out, _ = run("experiment", "run", write(changed(content, seeds=[0]), path), "--store", ran)
    assert code == 0
    assert "3 trainings in the store were those of an earlier tiny: the report leaves them out" in out
    run("experiment", "run", write(content, tmp_path / "whole.yaml"), "--store", ran)
    path = write(changed(content, pairs__matching__starts=["tm-0,9"]), path)
    for arguments, message in (
        (("plan", "no-such.yaml"), "unknown experiment 'no-such.yaml'"),
        (("run", path), "the layer list names layer 9, expected 0 to 3"),
        (("run", tmp_path / "whole.yaml", "--store", path), "is no directory; choose another --store"),
        (("run", path, "--executor", "rey"), "unknown executor 'rey', expected one of local, ray"),
        (("run", path, "--address", "auto"), "choose --executor ray beside it"),
        (("run", path, "--track", "tensorbord"), "unknown tracker 'tensorbord', .* did you mean 'tensorboard'"),
    ):
        code, _, error = run("experiment", *arguments)
        assert code == 2
        assert pytest.raises(AssertionError, match=message).matches(AssertionError(error))


@pytest.mark.real
def test_the_files_on_real_data_can_be_planned_and_their_ports_made(
    minilm: str, data: Path, make_model: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del minilm, data
    monkeypatch.setenv("SMOLLM2", make_model("llama", layers=30))  # as deep as the real one
    monkeypatch.setenv("NARROW", make_model("roberta", width=48))
    monkeypatch.setenv("MICRO_DATA", str(tmp_path))
    monkeypatch.setenv("DECODERS", str(tmp_path / "decoders"))
    for name, model_type in (("gemma", "gemma3_text"), ("smollm2", "llama"), ("half", "llama")):
        shutil.copytree(make_model(model_type, width=48 if name == "gemma" else 32), tmp_path / "decoders" / name)
    (tmp_path / "decoders" / "texts").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "decoders" / "texts" / f"{split}.txt").write_text("\n".join(make_texts(40)))
    write_tasks(tmp_path, seed=5, tasks=("ner", "nli"), languages=("en", "de"))
    benchmarks = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.yaml"))
    assert benchmarks
    for path in (SHIPPED["minilm-wikineural"], *benchmarks):
        check(make_grid(read_experiment(path)))
