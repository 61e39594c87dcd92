"""Models run layer by layer: a port to the same model is itself, and nothing else depends on how it is run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import load_base, make_texts
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from test_family_matrix import TEXT, configuration, deltas, trained
from transformers.models.bert.modeling_bert import BertLayer

import regraft
from regraft.activations import shelf
from regraft.activations.shelf import holding
from regraft.activations.walk import Walk
from regraft.errors import SamplingError
from regraft.models.families import FAMILIES
from regraft.port.in_place import InPlace

TEXTS = make_texts(40)


def port(module: regraft.Module, student: Any, teacher: Any = None, **options: Any) -> regraft.Module:
    return regraft.transfer(module, student, teacher, texts=TEXTS, progress=False, **options)


def equal(one: regraft.Module, other: regraft.Module) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(one.tensors[key], tensor) for key, tensor in other.tensors.items()
    )


@pytest.mark.filterwarnings("ignore:.*cannot be run one layer at a time")
@pytest.mark.parametrize("kind", ["of texts", "bottleneck"])
@pytest.mark.parametrize("model_type", sorted(TEXT))
def test_a_module_on_every_site_ported_to_its_own_model_is_itself(
    model_type: str, kind: str, make_model: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(model_type, layers=2)
    config = configuration(kind, base, model_type)
    if config is None:
        return
    module, _ = trained(base, config, tmp_path / "module")
    ported = port(module, base, align="auto")
    assert {score["method"] for score in ported.report["scores"]} == {"none"}
    assert min(score["r2_read"] for score in ported.report["scores"]) > 1 - 1e-5
    assert equal(ported, module)


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_by_ridge_outputs_wider_than_their_input_get_all_that_is_written(
    model_type: str, make_model: Callable[..., str], tmp_path: Path
) -> None:
    base, family = make_model(model_type, layers=1), FAMILIES[model_type]
    wide = [site for site in family.sites if site in ("ff_gate", "ff_up")]
    config = LoraConfig(target_modules="|".join(map(family.pattern, wide)), init_lora_weights=False)
    module, adapted = trained(base, config, tmp_path / "module")
    for sequential in (False, True):
        options = {"align": "ridge", "sequential": sequential, "texts": make_texts(200), "progress": False}
        regraft.transfer(module, base, **options).save(tmp_path / "ported", replace=True)
        loaded = PeftModel.from_pretrained(load_base(base), tmp_path / "ported")
        before, after = deltas(adapted, family), deltas(loaded, family)
        for place, delta in before.items():
            assert (after[place] - delta).norm() < 1e-3 * delta.norm()


@pytest.fixture
def pair(make_model: Callable[..., str], make_module: Callable[..., str]) -> tuple[str, str, regraft.Module]:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=3)
    return teacher, student, regraft.load(make_module(teacher, "lora", 3, target_modules="all-linear"))


@pytest.mark.parametrize("layers", ["skip", "avg", [3, 0, 0]], ids=str)
def test_what_layers_run_whole_or_one_at_a_time_give_is_the_same_bit_for_bit(
    pair: tuple[str, str, regraft.Module], layers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student, module = pair
    expected = port(module, student, teacher, layers=layers)
    assert expected.hash() == port(module, student, teacher, layers=layers, hold_memory=0).hash()
    monkeypatch.setattr(Walk, "_can_skip", lambda _: False)
    with pytest.warns(UserWarning, match="distilbert.* cannot be run one layer at a time, so the whole model is run"):
        whole = port(module, student, teacher, layers=layers)
    assert expected.hash() == whole.hash()
    assert expected.report["scores"] == whole.report["scores"]
    assert expected.report["expected"] == whole.report["expected"]


@pytest.mark.parametrize("scale", [1, "auto"])
def test_each_layer_runs_once_in_the_teacher_and_once_per_stage_in_the_student(
    make_model: Callable[..., str], make_module: Callable[..., str], scale: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_model(layers=4)
    module = regraft.load(make_module(base))
    loaded = [transformers.AutoModel.from_pretrained(base) for _ in range(2)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    monkeypatch.setattr(Walk, "_can_skip", lambda _: True)
    calls: list[tuple[int, int, str]] = []
    for who, model in enumerate(loaded):
        for number, layer in enumerate(model.encoder.layer):
            for name, part in (("query", layer.attention.self.query), ("end", layer.output.dense)):
                part.register_forward_hook(lambda *_, at=(who, number, name): calls.append(at))
    port(module, (loaded[1], tokenizer), (loaded[0], tokenizer), align="auto", scale=scale)
    batches = 4
    # A silent body takes a run of the student, three more scales one each; final states are seen with what is in place.
    more = (4 if scale == "auto" else 1) * batches
    final = batches
    for number in range(4):
        assert calls.count((0, number, "query")) == batches + (final if number == 3 else 0)
        # One run of a batch tells what comes before what. Then there is a look at what queries and values read, and a
        # run to go on, which the last layer does not need.
        on = batches if number < 3 else final
        assert calls.count((1, number, "query")) == 1 + batches + on + more
        assert calls.count((1, number, "end")) == 1 + on + more


def test_moments_that_follow_from_those_of_an_input_are_those_that_are_observed(
    pair: tuple[str, str, regraft.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student, module = pair
    options = {"align": "ridge", "sequential": True}  # whose body is what is fitted
    derived = port(module, student, teacher, **options)
    monkeypatch.setattr(InPlace, "_source", lambda *_: None)
    observed = port(module, student, teacher, **options)
    assert derived.report["scores"] != observed.report["scores"]
    first = {key: tensor for key, tensor in observed.tensors.items() if ".layer.0." in key}
    assert len(first) == 12
    for key, tensor in first.items():  # further up, what rounding changes below is read
        assert (derived.tensors[key] - tensor).norm() < 1e-4 * tensor.norm()


NOTED: dict[str, Any] = {}


class First(BertLayer):
    def forward(self, hidden: torch.Tensor, *rest: Any, **more: Any) -> Any:
        NOTED["seen"] = hidden
        return super().forward(hidden, *rest, **more)


class Last(BertLayer):
    def forward(self, hidden: torch.Tensor, *rest: Any, **more: Any) -> Any:
        return super().forward(hidden + NOTED["seen"], *rest, **more)


def test_layers_that_share_more_than_hidden_states_are_not_skipped(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=3)
    module = regraft.load(make_module(base))
    model, tokenizer = (auto.from_pretrained(base) for auto in (transformers.AutoModel, transformers.AutoTokenizer))
    model.encoder.layer[0].__class__, model.encoder.layer[2].__class__ = First, Last
    with pytest.warns(UserWarning, match="cannot be run one layer at a time"):
        ported = port(module, (model, tokenizer), (model, tokenizer), align="auto")
    assert equal(ported, module)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_that_was_held_is_left_behind(
    pair: tuple[str, str, regraft.Module], error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student, module = pair
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written: list[Path] = []
    save = shelf.save_file

    def saving(tensors: Any, path: Path) -> None:
        save(tensors, path)
        written.append(path)
        if len(written) == 30:
            raise error

    monkeypatch.setattr(shelf, "save_file", saving)
    with pytest.raises((error, SamplingError)):
        port(module, student, teacher, hold_memory=0)
    assert len(written) == 30
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(shelf, "save_file", full)
    with holding(8) as held:
        held["a", 0] = torch.ones(2)
        with pytest.raises(SamplingError, match=r"cannot hold activations in .* \(No space left.*--hold-memory\)"):
            held["b", 0] = torch.ones(2)


def test_a_shelf_keeps_to_its_memory_and_gives_back_what_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with holding(16) as held:
        held["first", 0] = torch.arange(4.0)
        held["second", 0] = torch.arange(4).bfloat16()
        assert len(list(tmp_path.rglob("*.safetensors"))) == 1
        assert torch.equal(held["second", 0], torch.arange(4).bfloat16())
        held["first", 0] = torch.zeros(2)
        held["third", 0] = torch.ones(2)
        assert len(list(tmp_path.rglob("*.safetensors"))) == 1
        held.drop_where(lambda key: key[0] == "second")
        assert list(tmp_path.rglob("*.safetensors")) == []
        assert ("second", 0) not in held
        assert torch.equal(held["third", 0], torch.ones(2))
    assert list(tmp_path.iterdir()) == []
