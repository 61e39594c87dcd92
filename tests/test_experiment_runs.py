"""Experiments that are killed, share a store, or run on several processes and machines: the real things."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import yaml
from kill_runs import run_and_kill

from regraft.errors import TaskError
from regraft.experiment.executors import Local
from regraft.experiment.grid import Cell, Grid, make_grid
from regraft.experiment.jobs import Train
from regraft.experiment.run import Ended, run
from regraft.experiment.spec import Experiment, Resources
from regraft.experiment.store import Store
from regraft.experiment.work import Outcome, carry_out
from regraft.modules.module import load as load_module
from regraft.report.collect import collect


@pytest.fixture(scope="session")
def content(make_model: Callable[..., str], ner_folder: Path) -> dict[str, Any]:
    texts = ner_folder / "texts.txt"
    texts.write_text("the old doctor walks near the river city\n" * 40)
    return {
        "name": "runs",
        "pairs": {
            "matching": {
                "teacher": make_model(layers=4, initializer_range=0.05),
                "distill": {"texts": [str(texts)], "epochs": 2, "batch_size": 8, "save_every": 2, "max_length": 32},
                "starts": ["student", "tm-skip", "tm-skip+lsa+head"],
                "sampling": {"max_texts": 50},
            }
        },
        "tasks": {"ner": {"languages": ["en"], "data": str(ner_folder)}},
        "modules": ["lora", "bottleneck"],
        "training": {"epochs": 3, "batch_size": 16, "rank": 4, "bottleneck_size": 6, "learning_rate": 1e-2},
    }


def grid_of(content: dict[str, Any]) -> tuple[Experiment, Grid]:
    experiment = Experiment.model_validate(content)
    return experiment, make_grid(experiment)


def write(content: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def whole(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    experiment, grid = grid_of(content)
    assert run(experiment, grid, Store(root), Local()) == Ended(len(grid.cells), {}, ())
    return root


def table(root: Path) -> list[tuple[object, ...]]:
    """Return all that a report reads but the times."""
    return [
        (result.peft, result.row, result.seed, result.score, result.before, result.curve, result.alignment)
        for result in collect(root)[1]
    ]


def assert_same_modules(grid: Grid, root: Path, other: Path) -> None:
    for key, cell in grid.cells.items():
        if cell.kind in ("teacher", "transfer", "student"):
            hashes = {load_module(Store(store).output(key)).hash() for store in (root, other)}
            assert len(hashes) == 1, cell.label


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_it_ends_as_if_nothing_had_happened(
    content: dict[str, Any], whole: Path, tmp_path: Path, seed: int
) -> None:
    root = tmp_path / "store"
    experiment, grid = grid_of(content)
    kills = run_and_kill(experiment, grid, root, seed)
    print(kills)
    assert kills.exit_code == 0
    assert kills.count >= 10
    assert kills.amid_training >= 1
    assert not kills.failed
    assert not kills.done_again
    assert set(kills.ended.values()) == {1}  # none doubled; one killed before it could say so is not there
    assert {path.name for path in (root / "cells").iterdir()} == set(grid.cells)  # none lost, none beside them
    assert not any((root / "work").iterdir())
    assert {path.name for cell in (root / "cells").iterdir() for path in cell.iterdir()} == {"cell.json", "output"}
    assert table(root) == table(whole)
    assert_same_modules(grid, root, whole)


@pytest.mark.slow
def test_two_runs_on_one_store_share_the_work(content: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    path, root = write(content, tmp_path / "runs.yaml"), tmp_path / "store"
    command = [sys.executable, "-m", "regraft", "experiment", "run", str(path), "--store", str(root)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    _, grid = grid_of(content)
    assert all(f"{len(grid.cells)} of {len(grid.cells)} cells are done" in out for out in said)
    assert table(root) == table(whole)
    assert len({Store(root).record(key)["process"] for key in grid.cells}) == 2
    # What one of them was at the other could not begin: no cell was interrupted, or found begun.
    assert not any(Store(root).record(key)["resumed"] for key in grid.cells)


@pytest.mark.slow
def test_a_training_in_two_processes(content: dict[str, Any], tmp_path: Path) -> None:
    _, grid = grid_of({**content, "resources": {"teacher": {"gpus": 2}}})
    cell = next(cell for cell in grid.cells.values() if cell.kind == "teacher")
    assert isinstance(cell.job, Train)
    assert cell.job.processes == 2
    assert cell.key not in grid_of(content)[1].cells  # a batch is so many rows per process
    store = Store(tmp_path)
    outcome = carry_out(store, cell)
    assert outcome.status == "done", outcome.error
    curve = store.record(cell.key)["curve"]
    assert curve[-1]["step"] == 9  # 72 rows, twice 16 at a time, three epochs
    assert load_module(store.output(cell.key)).tensors


@pytest.mark.slow
def test_what_several_processes_say_of_an_error(content: dict[str, Any], tmp_path: Path) -> None:
    nowhere = {"ner": {**content["tasks"]["ner"], "data": str(tmp_path)}}
    _, grid = grid_of({**content, "tasks": nowhere, "resources": {"teacher": {"gpus": 2}}})
    cell = next(cell for cell in grid.cells.values() if cell.kind == "teacher")
    outcome = carry_out(Store(tmp_path / "store"), cell)
    assert outcome.error.startswith(f"one of 2 processes failed: {tmp_path} has no test file")


@pytest.mark.slow
def test_several_processes_die_with_the_one_that_started_them(content: dict[str, Any], tmp_path: Path) -> None:
    longer = {**content["training"], "epochs": 2000}
    experiment, grid = grid_of({**content, "training": longer, "resources": {"teacher": {"gpus": 2}}})
    root = tmp_path / "store"
    started = get_context("fork").Process(target=run, args=(experiment, grid, Store(root), Local()))
    started.start()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        orders = list(root.glob("work/*/order.json"))
        if orders and list(orders[0].parent.glob("*.training/checkpoint-*")):
            break
        time.sleep(0.1)
    started.kill()
    started.join()
    assert orders
    time.sleep(1)
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in said.splitlines() if str(orders[0]) in line]


@pytest.mark.slow
def test_more_than_a_machine_has_is_refused() -> None:
    """Without an address: on a cluster of this machine alone, or on the one that this process is in."""
    ray = pytest.importorskip("ray", reason="pip install 'regraft[ray]'")
    from regraft.experiment.on_ray import OnRay

    was_in_one = ray.is_initialized()
    with pytest.raises(TaskError, match="a teacher cell asks for 1 CPUs and 9 GPUs, expected no more than one machine"):
        OnRay({"teacher": Resources(gpus=9)})
    if not was_in_one:
        ray.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a head that works on nothing and two machines, as Ray sees it, of one core each."""
    ray = pytest.importorskip("ray", reason="pip install 'regraft[ray]'")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.workers = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_ray_cluster_loses_a_machine_half_way(
    content: dict[str, Any], whole: Path, tmp_path: Path, cluster: Any
) -> None:
    from regraft.experiment.on_ray import OnRay

    experiment, grid = grid_of(content)
    store = Store(tmp_path / "store")
    half = threading.Event()
    ended: list[str] = []

    def lose_a_machine() -> None:
        half.wait(120)
        time.sleep(0.5)  # amid the next cells
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    def count(cell: Cell, _: Outcome) -> None:
        ended.append(cell.key)
        if len(ended) >= len(grid.cells) // 2:
            half.set()

    loser = threading.Thread(target=lose_a_machine)
    loser.start()
    result = run(experiment, grid, store, OnRay({}, cluster.address), ended=count)
    loser.join()
    assert result == Ended(len(grid.cells), {}, ())
    assert sorted(ended) == sorted(grid.cells)
    assert len({record["process"] for record in map(store.record, grid.cells)}) >= 2
    assert table(store.root) == table(whole)
    assert_same_modules(grid, store.root, whole)


@pytest.mark.slow
def test_on_ray_a_failing_cell_is_written_down_too(content: dict[str, Any], tmp_path: Path, cluster: Any) -> None:
    from regraft.experiment.on_ray import OnRay

    broken = {**content["pairs"]["matching"], "distill": None, "student": str(tmp_path), "starts": ["student"]}
    experiment, grid = grid_of({**content, "pairs": {"broken": broken}, "modules": ["lora"]})
    result = run(experiment, grid, Store(tmp_path / "store"), OnRay({}, cluster.address))
    assert [grid.cells[key].label for key in result.failed] == ["broken ner/en lora student seed 0"]
    assert "is a directory without config.json" in next(iter(result.failed.values()))
    assert result.done == 1  # the teacher


@pytest.mark.slow
def test_tensorboard(content: dict[str, Any], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, grid = grid_of({**content, "modules": ["lora"]})
    cell = next(cell for cell in grid.cells.values() if cell.kind == "teacher")
    carry_out(Store(tmp_path / "quiet"), cell)
    assert not (tmp_path / "quiet" / "tensorboard").exists()
    store = Store(tmp_path / "shown")
    assert carry_out(store, cell, ["tensorboard"]).status == "done"
    events = accumulator.EventAccumulator(str(store.root / "tensorboard" / cell.label))
    events.Reload()
    shown = [event.value for event in events.Scalars("eval/f1")]
    assert shown == pytest.approx([row["f1"] for row in store.record(cell.key)["curve"]])


@pytest.mark.slow
def test_weights_and_biases(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="pip install 'regraft[tracking]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    _, grid = grid_of({**content, "modules": ["lora", "bottleneck"]})
    for cell in [cell for cell in grid.cells.values() if cell.kind == "teacher"]:
        outcome = carry_out(Store(tmp_path / "store"), cell, ["wandb"])
        assert outcome.status == "done", outcome.error
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2  # each training is a run of its own


@pytest.mark.slow
def test_trackio(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage", reason="pip install 'regraft[tracking]'").SQLiteStorage
    _, grid = grid_of({**content, "modules": ["lora", "bottleneck"]})
    store = Store(tmp_path / "store")
    cells = {cell.label: cell for cell in grid.cells.values() if cell.kind == "teacher"}
    for cell in cells.values():
        outcome = carry_out(store, cell, ["trackio"])
        assert outcome.status == "done", outcome.error
    assert "Trackio" not in capsys.readouterr().out  # where results go
    assert sorted(storage.get_runs("huggingface")) == sorted(cells)  # each training is a run of its own
    for label, cell in cells.items():
        shown = [row["eval/f1"] for row in storage.get_logs("huggingface", label) if "eval/f1" in row]
        assert shown == pytest.approx([row["f1"] for row in store.record(cell.key)["curve"]])
