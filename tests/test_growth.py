"""A module that grows computes what it did: PEFT says the same, layer by layer and at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import load_peft, make_texts
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer

import regraft
from regraft.distillation.growth import grown
from regraft.errors import TaskError
from regraft.models.pretrained import resolve

Make = Callable[..., str]
ALL = ("all-linear",)


def logits(base: str, module: str | Path) -> torch.Tensor:
    batch = AutoTokenizer.from_pretrained(base)(make_texts(5), padding=True, return_tensors="pt")
    with torch.no_grad():
        return load_peft(base, module, labels=3).double()(**batch).logits


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_bias": True}], ids=["plain", "rslora", "bias"])
@pytest.mark.parametrize("model_type", ["bert", "llama"])
@pytest.mark.parametrize(("sites", "rank"), [(ALL, None), (None, 12), (ALL, 16), (("ff_up",), 5)])
def test_a_lora_that_grows_computes_what_it_did(
    make_model: Make, make_module: Make, tmp_path: Path, model_type: str, options: Any, sites: Any, rank: int | None
) -> None:
    base = make_model(model_type, layers=2)
    pattern = {"rank_pattern": {"0.*.(query|q_proj)": 3}, "alpha_pattern": {"1.*.(value|v_proj)": 5}}
    path = make_module(base, labels=3, **options, **pattern)
    larger = grown(regraft.load(path), resolve(base), sites, rank, seed=0)
    larger.save(tmp_path / "larger")
    torch.testing.assert_close(logits(base, tmp_path / "larger"), logits(base, path), rtol=1e-9, atol=1e-9)
    before, after = (
        {name: layer for name, layer in load_peft(base, one, 3).named_modules() if isinstance(layer, LoraLayer)}
        for one in (path, tmp_path / "larger")
    )
    assert (len(after) > len(before)) == (sites is not None)
    for name, layer in after.items():
        assert layer.r["default"] >= (rank or 3)
        delta = layer.get_delta_weight("default")
        old = before[name].get_delta_weight("default") if name in before else torch.zeros_like(delta)
        torch.testing.assert_close(delta, old, rtol=1e-6, atol=1e-7)
        # What is new can be trained: it reads something.
        assert (layer.lora_A["default"].weight.norm(dim=1) > 0).all()


def test_a_bottleneck_grows_too(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    path = make_module(base, "bottleneck", labels=3)
    grown(regraft.load(path), resolve(base), ("attention_output",), 10, seed=0).save(tmp_path / "larger")
    torch.testing.assert_close(logits(base, tmp_path / "larger"), logits(base, path), rtol=1e-9, atol=1e-9)
    down = [tensor for key, tensor in regraft.load(tmp_path / "larger").tensors.items() if "down.weight" in key]
    assert {tuple(tensor.shape) for tensor in down} == {(10, 32)}
    assert len(down) == 4


def test_what_is_drawn_depends_on_the_seed_and_what_was_there_does_not(make_model: Make, make_module: Make) -> None:
    base = resolve(make_model(layers=2))
    module = regraft.load(make_module(base.name, labels=3))
    assert grown(module, base, None, None, 0) is module
    one, same, other = (grown(module, base, ALL, 8, seed) for seed in (0, 0, 1))
    assert one.hash() == same.hash() != other.hash()
    assert one.config["lora_alpha"] / one.config["r"] == module.config["lora_alpha"] / module.config["r"]
    assert all(torch.equal(one.tensors[key], module.tensors[key]) for key in module.tensors if "classifier" in key)


def test_what_cannot_grow_is_refused(make_model: Make, make_module: Make) -> None:
    base = resolve(make_model(layers=2))
    dora = regraft.load(make_module(base.name, labels=3, use_dora=True))
    with pytest.raises(TaskError, match="a LORA module that cannot grow, expected one of BOTTLENECK, LORA without"):
        grown(dora, base, ALL, None, 0)
    module = regraft.load(make_module(base.name, labels=3))
    with pytest.raises(TaskError, match="'output_norm', expected one of all-linear, attention_output, ff_down"):
        grown(module, base, ("output_norm",), None, 0)
    with pytest.raises(TaskError, match=r"has rank 4 already, expected --rank 4 or more, not 3"):
        grown(module, base, None, 3, 0)
