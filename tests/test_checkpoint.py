from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import regraft
from regraft.errors import ModuleFileError


@pytest.fixture(scope="module")
def module_directory(make_model: Callable[..., str], make_module: Callable[..., str]) -> Path:
    return Path(make_module(make_model(layers=2), "lora", labels=3))


def copy_of(directory: Path, to: Path) -> Path:
    to.mkdir()
    for file in directory.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_load_gives_what_peft_saved_and_cannot_be_changed(module_directory: Path) -> None:
    module = regraft.load(module_directory)
    saved = load_file(module_directory / "adapter_model.safetensors")
    assert set(module.tensors) == set(saved)
    assert all(torch.equal(module.tensors[key], tensor) for key, tensor in saved.items())
    assert module.peft_type == "LORA"
    assert module.config["r"] == 4
    assert Path(module.base_model).is_dir()
    assert module.report == {}
    with pytest.raises(TypeError):
        module.tensors["new"] = torch.zeros(1)  # type: ignore[index]
    with pytest.raises(AttributeError):
        module.source = "elsewhere"  # type: ignore[misc]


def test_bin_files_are_read_without_running_code(module_directory: Path, tmp_path: Path) -> None:
    directory = copy_of(module_directory, tmp_path / "bin")
    tensors = load_file(directory / "adapter_model.safetensors")
    (directory / "adapter_model.safetensors").unlink()
    torch.save(tensors, directory / "adapter_model.bin")
    assert regraft.load(directory).hash() == regraft.load(module_directory).hash()

    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"key": Evil()}, directory / "adapter_model.bin")
    with pytest.raises(ModuleFileError, match="hold more than tensors"):
        regraft.load(directory)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x80\x02]q\x00.", b"PK\x03\x04garbage"])
def test_garbage_in_a_bin_file_is_refused(module_directory: Path, tmp_path: Path, garbage: bytes) -> None:
    shutil.copy(module_directory / "adapter_config.json", tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(garbage)
    with pytest.raises(ModuleFileError, match=r"adapter_model\.bin"):
        regraft.load(tmp_path)


def test_save_writes_everything_readable_and_round_trips(module_directory: Path, tmp_path: Path) -> None:
    module = regraft.load(module_directory)
    module.save(tmp_path / "again")
    again = regraft.load(tmp_path / "again")
    assert again.hash() == module.hash()
    assert dict(again.config) == dict(module.config)
    names = {"adapter_config.json", "adapter_model.safetensors", "regraft.json", "README.md"}
    assert {file.name for file in (tmp_path / "again").iterdir()} == names
    modes = {file.stat().st_mode for file in (tmp_path / "again").iterdir()}
    assert len(modes) == 1
    provenance = json.loads((tmp_path / "again" / "regraft.json").read_text())
    assert provenance["hash"] == module.hash()
    assert set(provenance["versions"]) == {"regraft", "torch", "transformers", "peft"}
    module.save(tmp_path / "third")
    for name in names:
        assert (tmp_path / "third" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_directories_appear_whole_or_not_at_all(
    module_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = regraft.load(module_directory)
    module.save(tmp_path / "out")
    before = (tmp_path / "out" / "regraft.json").read_bytes()

    def fail(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("regraft.modules.card.model_card", fail)
    with pytest.raises(KeyboardInterrupt):
        module.save(tmp_path / "out", replace=True)
    with pytest.raises(KeyboardInterrupt):
        module.save(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "regraft.json").read_bytes() == before


def test_a_failed_rename_brings_the_old_module_back(
    module_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = regraft.load(module_directory)
    module.save(tmp_path / "out")
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == ".out.regraft-new":
            raise OSError("disk on fire")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(ModuleFileError, match=r"cannot write .*/out: disk on fire \(.*B are free there\); make room"):
        module.save(tmp_path / "out", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert regraft.load(tmp_path / "out").hash() == module.hash()


def test_saving_into_the_empty_current_directory(
    module_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    regraft.load(module_directory).save(".")
    assert regraft.load(tmp_path / "here").hash() == regraft.load(module_directory).hash()


def test_only_a_module_is_replaced_and_only_when_told(module_directory: Path, tmp_path: Path) -> None:
    module = regraft.load(module_directory)
    module.save(tmp_path / "out")
    with pytest.raises(ModuleFileError, match=r"exists; choose another name, or replace it \(--replace\)"):
        module.save(tmp_path / "out")
    module.save(tmp_path / "out", replace=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(
        ModuleFileError, match=r"holds chapter\.tex, which regraft did not write, so it is not replaced"
    ):
        module.save(tmp_path / "thesis", replace=True)
    (tmp_path / "out" / "checkpoint-9").mkdir()
    with pytest.raises(ModuleFileError, match=r"holds checkpoint-9, which regraft did not write"):
        module.save(tmp_path / "out", replace=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    (tmp_path / "empty").mkdir()
    module.save(tmp_path / "empty")


def test_unreadable_modules_are_refused_in_words(module_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ModuleFileError, match=r"holds no adapter_config\.json"):
        regraft.load(tmp_path)
    cut = copy_of(module_directory, tmp_path / "cut")
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(ModuleFileError, match=r"adapter_model\.safetensors as safetensors, it may be truncated"):
        regraft.load(cut)
    weights.unlink()
    with pytest.raises(ModuleFileError, match="holds neither adapter_model"):
        regraft.load(cut)
    (cut / "regraft.json").write_text("[]")
    for file in module_directory.iterdir():
        (cut / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModuleFileError, match=r"regraft\.json holds no object"):
        regraft.load(cut)
    (cut / "adapter_config.json").write_text("{")
    with pytest.raises(ModuleFileError, match="as JSON"):
        regraft.load(cut)
    (cut / "adapter_config.json").write_text("[]")
    with pytest.raises(ModuleFileError, match="no 'peft_type'"):
        regraft.load(cut)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_a_module_is_refused_by_name(module_directory: Path, tmp_path: Path, value: float) -> None:
    directory = copy_of(module_directory, tmp_path / "nan")
    tensors = load_file(directory / "adapter_model.safetensors")
    key = sorted(tensors)[3]
    tensors[key][0, 0] = value
    save_file(tensors, directory / "adapter_model.safetensors")
    with pytest.raises(ModuleFileError, match=f"NaN or infinity in '{key}'"):
        regraft.load(directory)


def test_a_name_that_is_neither_directory_nor_reachable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModuleFileError, match="no local directory and cannot be fetched from the hub"):
        regraft.load("someone/no-such-module")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "is a PREFIX_TUNING module, expected one of ADALORA, BOFT, BOTTLENECK, "),
        ({"use_qalora": True}, "uses use_qalora, which cannot be ported"),
        ({"arrow_config": {"top_k": 2}}, "uses arrow_config, which cannot be ported"),
        ({"task_type": "SEQ_3_SEQ_LM"}, r"unknown task type 'SEQ_3_SEQ_LM', expected one of CAUSAL_LM"),
        ({"bias": "all"}, r"trains biases of the base model \(bias='all'\)"),
        ({"init_lora_weights": "pissa_niter_4"}, "initialised with 'pissa_niter_4', which changes the base weights"),
    ],
)
def test_options_that_cannot_be_ported_are_refused_by_name(
    module_directory: Path, make_model: Callable[..., str], change: dict, message: str
) -> None:
    module = regraft.load(module_directory)
    changed = regraft.Module({**module.config, **change}, module.tensors, "teacher-lora")
    with pytest.raises(ModuleFileError, match=message):
        regraft.plan(changed, make_model(layers=1))


def test_provenance_and_card_of_a_port(module_directory: Path, make_model: Callable[..., str], tmp_path: Path) -> None:
    student = make_model("distilbert", layers=1)
    module = regraft.load(module_directory)
    regraft.transfer(module, student, align="none").save(tmp_path / "port")
    report = regraft.load(tmp_path / "port").report
    assert report["module_hash"] == module.hash()
    assert report["teacher"] == module.base_model
    assert report["student"] == student
    assert (report["layers"], report["align"], report["seed"]) == ("skip", "none", 0)
    card = (tmp_path / "port" / "README.md").read_text()
    assert f"module for {student}" in card
    assert "base_model:" not in card  # a directory here; of the hub alone
    assert "6 copied" in card
