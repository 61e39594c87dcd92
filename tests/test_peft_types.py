"""PEFT types, each on an encoder and a decoder: what is copied adds what it added, PEFT being the judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from conftest import load_base, load_peft
from peft import PeftConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

import regraft
from regraft.modules.peft_types import PEFT_TYPES

ATTENTION = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}
DOWN = {"bert": "output.dense", "llama": "down_proj"}
Make = Callable[..., Any]

# Name of a case -> the configuration, of the names of an attention's projections and that of the feed-forward's last.
CASES: dict[str, Callable[[list[str], str], PeftConfig]] = {
    "adalora": lambda at, _: peft.AdaLoraConfig(target_modules=at, init_r=4, target_r=2, total_step=10),
    "loha": lambda at, down: peft.LoHaConfig(
        target_modules=[*at, down], r=4, alpha=6, rank_pattern={at[0]: 2}, alpha_pattern={down: 3}
    ),
    "lokr": lambda at, down: peft.LoKrConfig(target_modules=[*at, down], r=2, alpha=6, alpha_pattern={at[1]: 3}),
    "lokr-both": lambda at, _: peft.LoKrConfig(target_modules=at, r=1, decompose_both=True, decompose_factor=4),
    "ia3": lambda at, down: peft.IA3Config(target_modules=[*at, down], feedforward_modules=[down]),
    "ia3-attention": lambda at, _: peft.IA3Config(target_modules=at, feedforward_modules=[]),
    "oft": lambda at, down: peft.OFTConfig(target_modules=[*at, down], oft_block_size=8),
    "oft-shared": lambda at, _: peft.OFTConfig(target_modules=at, r=4, oft_block_size=0, block_share=True),
    "boft": lambda at, _: peft.BOFTConfig(target_modules=at, boft_block_size=4, boft_n_butterfly_factor=2),
    "fourierft": lambda at, down: peft.FourierFTConfig(target_modules=[*at, down], n_frequency=50, scaling=150.0),
    "hra": lambda at, _: peft.HRAConfig(target_modules=at, r=4),
    "hra-gs": lambda at, _: peft.HRAConfig(target_modules=at, r=3, apply_GS=True),
    "miss": lambda at, down: peft.MissConfig(target_modules=[*at, down], r=4),
    "miss-bat": lambda at, _: peft.MissConfig(target_modules=at, r=4, init_weights="bat"),
    "miss-mini": lambda at, _: peft.MissConfig(target_modules=at, r=4, init_weights="mini", mini_r=4),
    "c3a": lambda at, down: peft.C3AConfig(target_modules=[*at, down], block_size=8, block_size_pattern={at[0]: 16}),
    "gralora": lambda at, _: peft.GraloraConfig(target_modules=at, r=4, gralora_k=2, hybrid_r=2),
    "hira": lambda at, down: peft.HiraConfig(target_modules=[*at, down], r=4, rank_pattern={down: 2}),
    "vera": lambda at, _: peft.VeraConfig(target_modules=at, r=4),
    "vera-unsaved": lambda at, down: peft.VeraConfig(target_modules=[*at, down], r=4, save_projection=False),
    "dora": lambda at, down: peft.LoraConfig(target_modules=[*at, down], r=4, use_dora=True),
}


def write_module(base: str, config: PeftConfig, path: Path, labels: int | None = None) -> str:
    """Write a module with noise on all that it trains, so that gains and magnitudes stay near what they were."""
    if labels:
        config.task_type, config.modules_to_save = "TOKEN_CLS", ["classifier"]
    torch.manual_seed(1)
    model = get_peft_model(load_base(base, labels), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "original_module" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def module_of(make_model: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], regraft.Module]:
    """Give the module of a case on a model type, of 4 layers."""
    made: dict[tuple[str, str], str] = {}

    def give(case: str, model_type: str) -> regraft.Module:
        if (case, model_type) not in made:
            config = CASES[case](list(ATTENTION[model_type]), DOWN[model_type])
            path = tmp_path_factory.mktemp("module") / case
            made[case, model_type] = write_module(make_model(model_type, layers=4), config, path)
        return regraft.load(made[case, model_type])

    return give


def merged(base: str, module: str | Path, **loading: Any) -> dict[str, list[Tensor]]:
    """Weights and biases that PEFT makes of the layers with a module merged into them."""
    model = load_peft(base, module, **loading)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    made = {}
    for name, layer in layers.items():
        layer.merge()
        own = layer.get_base_layer()
        made[name] = [parameter.detach().clone() for parameter in (own.weight, own.bias) if parameter is not None]
    return made


def loads_whole(base: str, module: regraft.Module, path: Path) -> dict[str, list[Tensor]]:
    """Save a module and have PEFT load it, with no missing and no unexpected key."""
    module.save(path)
    model = get_peft_model(load_base(base), PeftConfig.from_pretrained(str(path)))
    result = peft.set_peft_model_state_dict(model, dict(module.tensors))
    names = [role.suffix.removesuffix(".weight") for role in PEFT_TYPES[module.peft_type].rows["linear"]]
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if any(f".{name}." in key for name in names)]
    return merged(base, path)


def layer_of(path: str) -> int:
    return next(int(part) for part in path.split(".") if part.isdecimal())


def at_layer(path: str, layer: int) -> str:
    return ".".join(str(layer) if part.isdecimal() else part for part in path.split("."))


@pytest.mark.parametrize("model_type", ["bert", "llama"])
@pytest.mark.parametrize("case", CASES)
def test_copies_add_what_the_teachers_layers_add(
    case: str, model_type: str, module_of: Make, make_model: Make, tmp_path: Path
) -> None:
    module, teacher = module_of(case, model_type), make_model(model_type, layers=4)
    own = regraft.transfer(module, teacher)
    assert own.tensors.keys() == module.tensors.keys()
    assert all(torch.equal(own.tensors[key], module.tensors[key]) for key in module.tensors)
    before, bare = merged(teacher, module.source), load_base(teacher)
    after = loads_whole(teacher, own, tmp_path / "own")
    assert {path: len(some) for path, some in before.items()} == {path: len(some) for path, some in after.items()}
    for path, tensors in before.items():
        assert all(map(torch.equal, tensors, after[path])), path
        weight = bare.get_submodule(path.removeprefix("base_model.model.")).weight
        assert (tensors[0] - weight).abs().max() > 1e-3, path

    student = make_model(model_type, layers=2)  # has the teacher's first layers
    cut = regraft.transfer(module, student, layers=[0, 1])
    for path, tensors in loads_whole(student, cut, tmp_path / "cut").items():
        assert all(map(torch.equal, tensors, before[path])), path
    assert cut.report["relation"]["kind"] == "cut"


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_trained_rank_pattern_of_adalora_is_rewritten_for_the_student(
    model_type: str, make_model: Make, tmp_path: Path
) -> None:
    teacher, student = make_model(model_type, layers=4), make_model(model_type, layers=2)
    at = ATTENTION[model_type]
    write_module(teacher, peft.AdaLoraConfig(target_modules=at, init_r=4, total_step=10), tmp_path / "whole")
    model = load_peft(teacher, tmp_path / "whole")
    ranks = {}
    for number, (name, layer) in enumerate(model.base_model.model.named_modules()):
        if isinstance(layer, BaseTunerLayer):  # what the rank allocator leaves
            ranks[f"{name}.lora_E"] = [True, number % 2 == 0, layer_of(name) > 0, number % 3 == 0]
    model.base_model.resize_modules_by_rank_pattern(ranks, "default")
    model.peft_config["default"].rank_pattern = ranks
    model.save_pretrained(tmp_path / "pruned")

    module = regraft.load(tmp_path / "pruned")
    assert len({tuple(tensor.shape) for tensor in module.tensors.values()}) > 3
    before = merged(teacher, tmp_path / "pruned")
    own = regraft.transfer(module, teacher)
    for path, tensors in loads_whole(teacher, own, tmp_path / "own").items():
        assert all(map(torch.equal, tensors, before[path])), path
    cut = regraft.transfer(module, student, layers=[0, 1])
    for path, tensors in loads_whole(student, cut, tmp_path / "cut").items():
        assert all(map(torch.equal, tensors, before[path])), path
