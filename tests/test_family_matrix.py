"""Every family with every kind of module: a port does in the student what PEFT says that it did in the teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import load_base, make_texts, tiny_config, wordpiece_tokenizer
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch import Tensor

import regraft
from regraft.errors import ModelError
from regraft.models.families import FAMILIES
from regraft.models.pretrained import HEAD_CLASSES, Pretrained, resolve
from regraft.models.sites import find_sites, site_of

TEXT = [name for name, family in FAMILIES.items() if family.inputs == "texts"]
MODULES = ("all-linear", "some", "ia3", "bottleneck")
D = 32


def configuration(kind: str, base: str, model_type: str) -> Any:
    """Give a PEFT configuration for a model; None where the kind has no place in it."""
    family = FAMILIES[model_type]
    names = {name for _, name in find_sites(resolve(base).skeleton(), family)}
    linear = [name for name in family.places if name in names and not site_of(name).is_norm]
    if kind == "of texts":
        linear = [name for name in linear if family.reads(name) == "texts"]
    if kind == "bottleneck":
        return regraft.BottleneckConfig(bottleneck_size=3) if "output_norm" in family.sites else None
    some = [name for name in linear if name.rpartition(".")[2] in ("query", "value", "qkv")]
    pattern = "|".join(family.pattern(name) for name in (some if kind == "some" else linear))
    if kind == "ia3":
        feed_forward = "|".join(family.pattern(name) for name in linear if name.rpartition(".")[2] == "ff_down")
        return IA3Config(target_modules=pattern, feedforward_modules=feed_forward or [], init_ia3_weights=False)
    return LoraConfig(r=3, lora_alpha=5, target_modules=pattern, init_lora_weights=False)


def trained(base: str, config: Any, path: Path) -> tuple[regraft.Module, PeftModel]:
    """Give a module of random numbers, and the model that it is on."""
    torch.manual_seed(1)
    model = get_peft_model(load_base(base), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2), name
    model.save_pretrained(path)
    return regraft.load(path), model


def deltas(model: PeftModel, family: Any) -> dict[tuple[int, str], Tensor]:
    """Ask PEFT what a module adds to the weight of each site; of IA3, what it multiplies it by."""
    modules = {name: module for name, module in model.base_model.model.named_modules() if family.parse(name)}
    added = {name: module.get_delta_weight("default") for name, module in modules.items() if hasattr(module, "lora_A")}
    gains = {name: module.ia3_l["default"].data for name, module in modules.items() if hasattr(module, "ia3_l")}
    return {family.parse(name): value for name, value in (added | gains).items()}


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_copy_does_what_peft_says_it_did(
    model_type: str, kind: str, make_model: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model(model_type, layers=4), make_model(model_type, layers=2)
    family = FAMILIES[model_type]
    config = configuration(kind, teacher, model_type)
    if config is None:
        return
    module, adapted = trained(teacher, config, tmp_path / "module")
    same = regraft.transfer(module, teacher)
    assert same.tensors.keys() == module.tensors.keys()
    assert all(torch.equal(same.tensors[key], tensor) for key, tensor in module.tensors.items())
    regraft.transfer(module, student).save(tmp_path / "ported")
    loaded = PeftModel.from_pretrained(load_base(student), tmp_path / "ported")
    loading = loaded.load_adapter(tmp_path / "ported", "b")
    assert not loading.unexpected_keys
    assert not [key for key in loading.missing_keys if ".b." in key]
    before, after = deltas(adapted, family), deltas(loaded, family)
    assert (kind == "bottleneck") == (not after)
    for (layer, site), delta in after.items():
        assert torch.equal(delta, before[2 * layer, site])


RESIDUAL_IN = ("attention_input", "ff_input", "ff_wi_input", "cross_input", "encoder_output")
RESIDUAL_OUT = ("attention_output", "ff_output", "cross_output")


def residual_axes(path: str, shape: torch.Size, family: Any, transposed: bool = False) -> list[int]:
    """Tell the axes of a parameter that are dimensions of the residual stream: of all but sites those as wide."""
    place, _, leaf = path.rpartition(".")
    parsed = family.parse(place)
    if parsed is None or site_of(parsed[1]).is_norm:
        # Of queries and keys; as many distances as dimensions.
        inner = ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "q_bias", "v_bias", "relative_attention_bias")
        return [] if any(name in path for name in inner) else [axis for axis, size in enumerate(shape) if size == D]
    site = site_of(parsed[1])
    reads, writes = (space.rpartition(".")[2] for space in (site.reads, site.writes))
    out, into = (1, 0) if transposed else (0, 1)
    axes = [out if leaf == "weight" else 0] if writes in RESIDUAL_OUT else []
    return axes + ([into] if leaf == "weight" and reads in RESIDUAL_IN else [])


def moved(value: Tensor, axes: list[int], order: Tensor) -> Tensor:
    for axis in axes:
        value = value.index_select(axis, order)
    return value


@pytest.mark.parametrize("align", ["lsa", "auto"])
@pytest.mark.parametrize("model_type", sorted(TEXT))
def test_a_permuted_student_is_recovered(model_type: str, align: str, tmp_path: Path) -> None:
    """Its residual stream is the teacher's in another order, which activations alone tell: bare, or in sequence."""
    family, tokenizer = FAMILIES[model_type], wordpiece_tokenizer()
    config = tiny_config(model_type, D, 2)
    torch.manual_seed(2)
    teacher = transformers.AutoModel.from_config(config).eval()
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.dim() == 1 else 0.0, std=0.3)
    student, order = copy.deepcopy(teacher), torch.randperm(D)
    conv = {name for name, module in teacher.named_modules() if type(module).__name__ == "Conv1D"}
    for name, parameter in student.named_parameters():
        axes = residual_axes(name, parameter.shape, family, name.rpartition(".")[0] in conv)
        parameter.data = moved(parameter.data, axes, order)
    for base, where in ((teacher, "teacher"), (student, "student")):
        base.save_pretrained(tmp_path / where)
        tokenizer.save_pretrained(tmp_path / where)
    places = str(tmp_path / "teacher"), str(tmp_path / "student")
    module, adapted = trained(places[0], configuration("of texts", places[0], model_type), tmp_path / "module")
    # Of one order everywhere the residual stream alone is out of order; within heads nothing moved.
    options = {"align": align, "spaces": "measured", "texts": make_texts(60), "progress": False}
    regraft.transfer(module, places[1], **options).save(tmp_path / "ported")
    before = deltas(adapted, family)
    after = deltas(PeftModel.from_pretrained(load_base(places[1]), tmp_path / "ported"), family)
    assert before.keys() == after.keys()
    for place, delta in after.items():
        path = family.path(*place)
        axes = residual_axes(f"{path}.weight", delta.shape, family, path in conv)
        assert torch.equal(delta, moved(before[place], axes, order)), place


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_derived_record_ports_as_the_shipped_one(
    model_type: str, make_model: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models of one architecture port whatever is known of it."""
    teacher, student = make_model(model_type, layers=4), make_model(model_type, layers=2)
    module, _ = trained(teacher, configuration("all-linear", teacher, model_type), tmp_path / "module")
    expected = regraft.transfer(module, student)
    monkeypatch.delitem(FAMILIES, model_type)
    ported = regraft.transfer(module, student)
    assert Pretrained("x", tiny_config(model_type)).family.like == ""
    assert ported.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(ported.tensors[key], tensor) for key, tensor in expected.tensors.items())


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_task_heads_are_where_the_record_says(
    model_type: str, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(model_type, layers=2)
    for task_type, labels in (("TOKEN_CLS", 3), ("SEQ_CLS", 3), ("QUESTION_ANS", 2)):
        ending = HEAD_CLASSES[task_type]
        try:
            resolve(base).skeleton(ending)
        except ModelError:
            continue
        if ending not in FAMILIES[model_type].task_heads:
            assert FAMILIES[model_type].stacks  # of a decoder's last state
            continue
        module = regraft.load(make_module(base, "lora", labels, task_type))
        ported = regraft.transfer(module, base)
        assert ported.report["head"] == "teacher"
        assert ported.hash() == module.hash()
        ported.save(tmp_path / task_type)
        model = PeftModel.from_pretrained(load_base(base, labels, task_type), tmp_path / task_type)
        loading = model.load_adapter(tmp_path / task_type, "again")
        assert not loading.unexpected_keys
        assert not [key for key in loading.missing_keys if ".again." in key]
