"""A store that can be trusted: what changes in it is noticed, made again, and never served."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import checked_json

from regraft.cli.experiments import run_shown
from regraft.errors import ModuleFileError
from regraft.experiment.executors import Local
from regraft.experiment.grid import Cell, Grid, Number
from regraft.experiment.jobs import Job, Source, TaskSource, Train, Transfer, key_of, needs_of
from regraft.experiment.run import Ended, run
from regraft.experiment.spec import Experiment
from regraft.experiment.store import Store
from regraft.experiment.verify import verify
from regraft.experiment.work import Outcome, carry_out
from regraft.modules.module import Module, load
from regraft.port.options import PortOptions
from regraft.report.collect import collect
from regraft.training.options import TrainOptions

MODEL = Source("model", "id:model")
DATA = TaskSource("ner", "en", Source("data", "id:data"), (), None)
EXPERIMENT = Experiment.model_validate(
    {
        "name": "tiny",
        "pairs": {"matching": {"teacher": "model", "student": "model", "starts": ["student"]}},
        "tasks": {"ner": {"languages": ["en"]}},
        "modules": ["lora"],
        "seeds": [0],
    }
)


def cell_of(kind: str, job: Job) -> tuple[Cell, Source]:
    key = key_of(job)
    return Cell(key, kind, f"the {kind}", (kind,), needs_of(job), job), Source(key, key, made=True)


TEACHER, _teacher = cell_of("teacher", Train(MODEL, "lora", None, DATA, TrainOptions(), 1))
PORT, _port = cell_of("transfer", Transfer(_teacher, MODEL, MODEL, PortOptions(), None, None, 0))
STUDENT, _student = cell_of("student", Train(MODEL, "lora", _port, DATA, TrainOptions(), 1))
CELLS = (TEACHER, PORT, STUDENT)
_place = ("matching", "ner", "f1", "en", "lora")
GRID = Grid(
    {cell.key: cell for cell in CELLS},
    (Number(*_place, "teacher", 0, TEACHER.key), Number(*_place, "tm-skip", 0, STUDENT.key, PORT.key)),
)


class Maker:
    """In place of trainings: makes a module that depends on those it is built on."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.taste = 0.0

    def __call__(self, store: Store, job: Job, out: Path, _: object) -> None:
        cell = next(cell for cell in CELLS if cell.job == job)
        self.made.append(cell.kind)
        tensor = torch.full((4, 4), self.taste if cell == TEACHER else 1.0)
        for need in cell.needs:
            tensor = tensor + load(store.output(need)).tensors["base_model.model.a.lora_A.weight"]
        scores = {split: {"f1": 50.0} for split in ("before training", "validation", "test")}
        training = {
            "task": "ner",
            "data": "data",
            "seed": 0,
            "scores": {**scores, "test": {"f1": float(tensor.mean())}},
        }
        provenance = {"distillation": {"losses": {}}} if cell == PORT else {"training": training}
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["a"]}
        module = Module(config, {"base_model.model.a.lora_A.weight": tensor}, provenance=provenance)
        module.save(out, curve=[{"step": 0, "split": "validation", "f1": 50.0}])


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    maker = Maker()
    monkeypatch.setattr("regraft.experiment.work.make", maker)
    return maker


def run_it(root: Path, executor: Local | None = None) -> tuple[Ended, dict[str, str]]:
    """Run the experiment; return how it ended, and what was made again: kind -> why."""
    again: dict[str, str] = {}

    def note(cell: Cell, why: str) -> None:
        again[cell.kind] = why

    return run(EXPERIMENT, GRID, Store(root), executor or Local(), again=note), again


@pytest.fixture
def store(maker: Maker, tmp_path: Path) -> Store:
    """A finished store."""
    root = tmp_path / "store"
    assert run_it(root) == (Ended(3, {}, ()), {})
    assert maker.made == ["teacher", "transfer", "student"]
    maker.made.clear()
    return Store(root)


def contents(store: Store) -> dict[str, bytes]:
    """Return the bytes of all outputs."""
    return {
        str(path.relative_to(store.root)): path.read_bytes() for path in sorted(store.root.glob("cells/*/output/*"))
    }


def flip(path: Path, bit: int) -> None:
    """Flip a bit of a file, which nobody may write, as a disk does."""
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    write(path, bytes(content))


def write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    before = path.read_bytes()
    flip(path, bit)
    yield
    write(path, before)


def files_with_content(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]


def scores(store: Store) -> list[tuple[str, float]]:
    return [(result.row, result.score) for result in collect(store.root)[1]]


def served(store: Store) -> Any:
    """Return what a report reads, without what is left out with a warning; None where it is refused."""
    try:
        return collect(store.root)[1]
    except ModuleFileError:
        return None


@pytest.mark.filterwarnings("ignore:.*is left out, since")
def test_no_flipped_bit_of_any_file_is_served(store: Store) -> None:
    files, dice = files_with_content(store.root), random.Random(0)
    assert {path.name for path in files} >= {"cell.json", "tiny.json", "regraft.json", "adapter_model.safetensors"}
    before, noticed = served(store), 0
    for path in files:
        for bit in [dice.randrange(8 * path.stat().st_size) for _ in range(8)]:
            with flipped(path, bit):
                found, again = verify(store), served(store)
                noticed += bool(found.unsound or found.lists)
                if not (found.unsound or found.lists):  # a blank, or a digit behind all that count
                    assert path.suffix == ".json", (path, bit)
                    assert again == before, (path, bit)
                elif again is not None:
                    assert all(result in before for result in again), (path, bit)
    assert noticed > 7 * len(files)
    assert not verify(store).unsound


@pytest.mark.filterwarnings("ignore:.*is left out, since")
def test_what_is_damaged_is_made_again_and_said(store: Store, maker: Maker) -> None:
    before, results = contents(store), scores(store)
    for path in files_with_content(store.root / "cells"):
        maker.made.clear()
        key = path.relative_to(store.root / "cells").parts[0]
        flip(path, 77)
        damaged = path.read_bytes()
        kind, why = GRID.cells[key].kind, f"{path.name} is not what was written"
        ended, again = run_it(store.root)
        assert ended == Ended(3, {}, ())
        assert list(again) == [kind]
        assert why in again[kind]
        assert maker.made == [kind]  # what is built on it came out as it was, so it stands
        kept = store.root / "damaged" / path.relative_to(store.root / "cells")
        assert kept.read_bytes() == damaged
        assert contents(store) == before
        assert scores(store) == results


def test_what_was_built_on_another_output_is_made_again(store: Store, maker: Maker) -> None:
    maker.taste = 5.0  # as with other versions of libraries
    flip(store.output(TEACHER.key) / "adapter_model.safetensors", 900)
    ended, again = run_it(store.root)
    assert ended == Ended(3, {}, ())
    assert maker.made == ["teacher", "transfer", "student"]
    assert "built on another output of the cell" in again["transfer"]
    assert "built on another output of the cell" in again["student"]
    assert store.record(STUDENT.key)["scores"]["test"]["f1"] == 7.0
    maker.made.clear()
    assert run_it(store.root) == (Ended(3, {}, ()), {})
    assert maker.made == []


def test_what_was_begun_on_another_output_begins_anew(store: Store) -> None:
    left = store.work(PORT.key).with_name("half")
    store.set_aside(PORT.key)
    for built_on, stays in ({TEACHER.key: store.output_hash(TEACHER.key)}, True), ({TEACHER.key: "other"}, False):
        store.begin(PORT.key, {TEACHER.key: store.output_hash(TEACHER.key)})
        left.touch()
        store.begin(PORT.key, built_on)
        assert left.exists() is stays
    assert carry_out(store, PORT).status == "done"
    assert {path.name for path in store.output(PORT.key).parent.iterdir()} == {"cell.json", "output"}


def test_a_need_that_is_damaged_amid_a_run_is_made_again_before_it_is_read(store: Store, maker: Maker) -> None:
    for cell in (PORT, STUDENT):
        shutil.rmtree(store.root / "cells" / cell.key)

    class Unlucky(Local):
        """Damages what was made as soon as it is."""

        def next(self, patience: float | None) -> Outcome:
            outcome = super().next(patience)
            if maker.made == ["transfer"]:
                flip(store.output(PORT.key) / "README.md", 5)
            return outcome

    ended, again = run_it(store.root, Unlucky())
    assert ended == Ended(3, {}, ())
    assert list(again) == ["transfer"]
    assert maker.made == ["transfer", "transfer", "student"]


def test_a_disk_that_damages_whatever_is_written_ends_a_run(store: Store, maker: Maker) -> None:
    shutil.rmtree(store.root / "cells" / STUDENT.key)
    flip(store.output(PORT.key) / "README.md", 5)

    class Worse(Local):
        def next(self, patience: float | None) -> Outcome:
            outcome = super().next(patience)
            flip(store.output(PORT.key) / "README.md", 5)
            return outcome

    ended, _ = run_it(store.root, Worse())
    assert ended.blocked == (STUDENT.key,)
    assert "found it damaged in the same way after it was made again" in ended.failed[PORT.key]
    assert maker.made == ["transfer"]


def test_a_worker_reads_nothing_that_is_damaged(store: Store, maker: Maker) -> None:
    """As on another machine, whose run has looked at it before."""
    store.set_aside(STUDENT.key)
    flip(store.output(PORT.key) / "adapter_config.json", 100)
    outcome = carry_out(store, STUDENT)
    assert outcome.status == "failed"
    assert outcome.error.startswith(f"found the cell {PORT.key} damaged, which this one reads (adapter_config.json is")
    assert maker.made == []
    assert run_it(store.root)[0] == Ended(3, {}, ())


def test_a_report_leaves_out_what_is_damaged_and_says_so(store: Store) -> None:
    flip(store.output(PORT.key).with_name("cell.json"), 300)
    with pytest.warns(UserWarning, match=f"matching ner/en lora tm-skip is left out, since the cell {PORT.key} is dam"):
        _, results = collect(store.root)
    assert [result.row for result in results] == ["teacher"]
    assert store.done(PORT.key)  # it touches nothing
    flip(store.root / "experiments" / "tiny.json", 300)
    with pytest.raises(ModuleFileError, match=r"tiny.json is damaged, expected the list of cells"):
        collect(store.root)


def test_files_that_are_gone_cut_or_grown_are_seen_without_reading(store: Store) -> None:
    card = store.output(TEACHER.key) / "README.md"
    content = card.read_bytes()
    for other, why in (
        (content[:-1], f"README.md has {len(content) - 1} bytes, expected {len(content)}"),
        (content + b"x", f"README.md has {len(content) + 1} bytes"),
    ):
        write(card, other)
        assert store.flaw(TEACHER.key, hashed=False).startswith(why)
    card.unlink()
    assert store.flaw(TEACHER.key, hashed=False) == "README.md is not there"
    write(card, content)
    assert store.flaw(TEACHER.key) == ""


def test_outputs_are_read_only_and_hashed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {path.stat().st_mode & 0o777 for path in store.root.glob("cells/**/*") if path.is_file()}
    assert modes == {0o444}
    store.flaw(TEACHER.key)
    hashed: list[Path] = []
    monkeypatch.setattr("regraft.experiment.manifest.hash_file", hashed.append)
    assert store.flaw(TEACHER.key) == ""
    assert hashed == []
    store.output(TEACHER.key).joinpath("README.md").touch()  # something wrote it
    assert store.flaw(TEACHER.key)
    assert [path.name for path in hashed] == ["README.md"]


# Stores that an older regraft wrote.


@pytest.fixture
def older(store: Store) -> Store:
    for key in store.finished():
        record = {name: value for name, value in store.record(key).items() if name not in ("files", "built_on")}
        write(store.output(key).with_name("cell.json"), json.dumps(record).encode())
    index = store.read_index()
    (store.root / "experiments" / "tiny.json").write_text(json.dumps(index))
    return store


def test_an_older_store_is_taken_up(older: Store, maker: Maker) -> None:
    assert run_it(older.root) == (Ended(3, {}, ()), {})
    found = verify(older)
    assert (found.cells, found.older, found.unsound, found.lists) == (3, 3, (), ())
    assert len(collect(older.root)[1]) == 2
    shutil.rmtree(older.root / "cells" / STUDENT.key)
    assert run_it(older.root) == (Ended(3, {}, ()), {})  # what is new stands on what is old
    assert verify(older).older == 2
    assert maker.made == ["student"]


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        ("adapter_model.safetensors", lambda was: was[:-1], "adapter_model.safetensors cannot be read"),
        ("adapter_model.safetensors", lambda was: was[:-1] + b"\x07", "output has tensors of the hash"),
        ("regraft.json", lambda was: was[:-4], "regraft.json cannot be read"),
        ("curve.jsonl", lambda was: was.replace(b"0", b"x"), "curve.jsonl cannot be read"),
        ("README.md", lambda was: was[:-4], ""),
    ],
)
def test_an_older_store_is_verified_as_far_as_it_can_be(
    older: Store, maker: Maker, name: str, damage: Callable[[bytes], bytes], why: str
) -> None:
    path = older.output(TEACHER.key) / name
    write(path, damage(path.read_bytes()))
    assert [(cell.key, why in cell.why) for cell in verify(older).unsound] == ([(TEACHER.key, True)] if why else [])
    run_it(older.root)
    # What nobody can say of what it was built on is made again with it.
    assert maker.made == (["teacher", "transfer", "student"] if why else [])
    assert verify(older).unsound == ()


@pytest.mark.parametrize("key", ["files", "seal", "built_on"])
def test_a_new_record_never_passes_for_an_older_one(store: Store, key: str) -> None:
    record = store.output(TEACHER.key).with_name("cell.json")
    write(record, record.read_bytes().replace(f'"{key}"'.encode(), f'"{key[:-1]}~"'.encode()))
    assert store.flaw(TEACHER.key) == "cell.json is not what was written"


# The command.


def test_verify(run: Callable[..., tuple[int, str, str]], store: Store, maker: Maker, tmp_path: Path) -> None:
    command = ("experiment", "verify", "demo", "--store", store.root)
    assert run(*command)[:2] == (0, f"results: {store.root}\n3 cells, 3 of them sound\n")
    path = store.output(PORT.key) / "README.md"
    flip(path, 5)
    code, out, _ = run(*command)
    assert code == 1
    assert f"damaged: the transfer ({PORT.key}): README.md is not what was written (another SHA-256)\n" in out
    assert "3 cells, 2 of them sound" in out
    assert path.exists()
    code, out, error = run(*command, "--repair", "--json")
    assert code == 1
    assert f"moved to damaged/{PORT.key}" in error
    found = checked_json("experiment verify", out)
    assert (found["cells"], found["sound"], found["unsound"][0]["set_aside"]) == (3, False, True)
    assert (store.root / "damaged" / PORT.key / "output" / "README.md").is_file()
    assert run(*command)[0] == 0
    assert run_it(store.root)[0] == Ended(3, {}, ())
    assert maker.made == ["transfer"]
    flip(store.root / "experiments" / "tiny.json", 300)
    code, out, _ = run(*command)
    assert code == 1
    assert "tiny.json is damaged, expected the list of cells that was written; run the experiment again" in out
    code, _, error = run(*command[:-1], tmp_path / "nowhere")
    assert code == 2
    assert "nowhere does not exist, expected what 'regraft experiment run' wrote" in error


def test_a_run_says_what_it_makes_again(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    flip(store.output(PORT.key) / "README.md", 5)
    flip(store.root / "experiments" / "tiny.json", 300)
    assert run_shown(EXPERIMENT, GRID, store, Local())
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [
        "the list of cells in the store is damaged, and written anew",
        f"tiny: 3 cells, 2 done; results in {store.root}",
    ]
    why = "README.md is not what was written (another SHA-256)"
    assert out[2] == f"again  the transfer: {why}; it is moved to {store.root}/damaged/{PORT.key}"
    assert out[3].startswith("3/3  the transfer")
    assert out[4].startswith("3 of 3 cells are done")


def test_verify_leaves_what_another_process_works_on(store: Store) -> None:
    flip(store.output(PORT.key) / "README.md", 5)
    with store.claim(PORT.key):
        assert [cell.set_aside for cell in verify(store, repair=True).unsound] == [False]
    assert [cell.set_aside for cell in verify(store, repair=True).unsound] == [True]


# File systems without locks.


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_store_without_locks_is_refused_in_a_sentence(
    number: int, maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockless(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", lockless)
    with pytest.raises(ModuleFileError, match="expected a file system with working flock; use another store"):
        run_it(tmp_path / "store")
    assert maker.made == []
