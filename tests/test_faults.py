"""Disks that are full, processes that are killed or stopped, at any operation: nothing is lost or half written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from faults import Sweep, run_sweeps

# `make faults`: every kind of fault at every operation; else one of them at some operations.
ALL = os.environ.get("REGRAFT_FAULTS") == "all"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, which makes the library that faults come from")
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", tmp_path / "faults.so", source, "-ldl"], check=True)
    return tmp_path / "faults.so"


@pytest.mark.slow
def test_whatever_happens_the_same_command_ends_as_if_nothing_had(
    library: Path,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    ner_folder: Path,
    tmp_path: Path,
    subtests: pytest.Subtests,
) -> None:
    model = make_model(layers=2)
    module = make_module(model)
    texts, file = tmp_path / "texts.txt", tmp_path / "faults.yaml"
    texts.write_text("the old doctor walks near the river city\nthe young teacher reads a paper\n" * 10)
    little = {"epochs": 1, "batch_size": 32, "rank": 4, "max_train": 32, "max_eval": 16}
    content = {
        "name": "faults",
        "pairs": {"one": {"teacher": model, "student": model, "starts": ["tm-skip"]}},
        "tasks": {"ner": {"languages": ["en"], "data": str(ner_folder)}},
        "modules": ["lora"],
        "training": little,
    }
    file.write_text(yaml.safe_dump(content))
    how = [part for name, value in {**little, "epochs": 2}.items() for part in (f"--{name}".replace("_", "-"), value)]
    transfer = ("transfer", module, "--student", model, "--out")
    sample = ("sample", "--teacher", model, "--student", model, "--texts", texts, "--quiet", "--out", "out")
    train = ("train", "--model", model, "--data", ner_folder, *how, "--quiet", "--out", "out")
    experiment = ("experiment", "run", file, "--store", "store")

    def sweep(name: str, every: int, *command: object, before: tuple[object, ...] = (), kept: str = "") -> Sweep:
        words = [[str(word) for word in one] for one in (command, before)]
        return Sweep(words[0], str(tmp_path / name), [kept], words[1], 0 if ALL else every)

    sweeps = [
        sweep("transfer", 11, *transfer, "deep/out"),
        sweep("transfer-replaces", 11, *transfer, "out", "--replace", before=(*transfer, "out", "--scale", "0.5")),
        sweep("sample", 7, *sample),
        sweep("train", 45, *train, kept="out.training"),
        sweep("experiment", 120, *experiment, kept="store"),
    ]
    # How many operations there are at least: what is written is seen, whoever writes it.
    for asked, least, swept in zip(sweeps, (30, 35, 20, 150, 300), run_sweeps(library, sweeps), strict=True):
        with subtests.test(" ".join(asked.command)):
            print(f"{asked.command[0]}: {swept.operations} operations, {swept.runs} of them disturbed")
            assert swept.operations >= least
            assert not swept.wrong, "\n".join(swept.wrong)
