"""What `regraft info` tells: every fact against what was written, by PEFT or by another command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_texts
from safetensors.torch import load_file, save_file

import regraft
from regraft.models.families import FAMILIES


def told(run: Callable[..., Any], source: object) -> dict[str, Any]:
    code, output, error = run("info", source, "--json")
    assert code == 0, error
    found: dict[str, Any] = json.loads(output)
    return found


def test_of_a_module(make_model: Callable[..., str], make_module: Callable[..., str], run: Callable[..., Any]) -> None:
    base = make_model("bert", layers=4)
    facts = told(run, make_module(base, target_modules=["query", "value"], layers_to_transform=[0, 1, 3], r=4))
    assert facts["kind"] == "module"
    assert facts["base model"] == base
    assert facts["method"].startswith("LORA (r 4")
    assert facts["sites"] == ["query of layers 0-1, 3", "value of layers 0-1, 3"]
    assert facts["made"] is None  # by regraft


def test_a_changed_tensor_is_seen(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, run: Callable[..., Any]
) -> None:
    base = make_model("bert", layers=4)
    ported = regraft.transfer(regraft.load(make_module(base)), base)
    path = ported.save(tmp_path / "ported")
    facts = told(run, path)
    assert facts["hash"] == f"{ported.hash()}, as it was written"
    assert facts["made"] == [f"ported from {ported.report['teacher']} by none"]
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, file)
    code, output, error = run("info", path)
    assert (code, output) == (2, "")
    assert f"but its regraft.json says {ported.hash()}: they were changed since" in error


def test_of_a_model(make_model: Callable[..., str], run: Callable[..., Any]) -> None:
    facts = told(run, make_model("bert", layers=4))
    assert (facts["kind"], facts["model type"], facts["width"]) == ("base model", "bert", 32)
    assert facts["sites"][0] == "query of layers 0-3"


def test_of_a_sample_and_a_store(make_model: Callable[..., str], tmp_path: Path, run: Callable[..., Any]) -> None:
    base = make_model("bert", layers=2)
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(20)))
    code, _, error = run(
        "sample", "--teacher", base, "--student", base, "--texts", tmp_path / "texts.txt", "--out", tmp_path / "s"
    )
    assert code == 0, error
    facts = told(run, tmp_path / "s")
    assert (facts["kind"], facts["teacher"], facts["student"]) == ("sample", base, base)
    (tmp_path / "store" / "experiments").mkdir(parents=True)
    index = {"experiment": {}, "numbers": [{"key": "a"}, {"key": "b"}]}
    (tmp_path / "store" / "experiments" / "mine.json").write_text(json.dumps(index))
    assert told(run, tmp_path / "store")["experiments"] == ["mine: 0 of 2 trainings done"]


@pytest.mark.parametrize("source", ["nowhere/at/all", "."])
def test_of_nothing(source: str, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, error = run("info", source)
    assert code == 2
    assert not output
    assert "a module (with adapter_config.json)" in error
    assert len(error.strip().splitlines()) == 1


def test_families_are_all_named(run: Callable[..., Any]) -> None:
    code, output, _ = run("families")
    assert code == 0
    assert {line.split()[0] for line in output.splitlines()} == {*FAMILIES}
