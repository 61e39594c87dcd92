"""Modules as LoRAs: what they add, PEFT being the judge, to the rank that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from conftest import load_peft
from test_peft_types import ATTENTION, CASES, DOWN, merged, module_of, write_module  # noqa: F401

import regraft
from regraft.errors import ModuleFileError
from regraft.modules.to_lora import convert_to_lora

Make = Callable[..., Any]


@pytest.mark.parametrize("model_type", ["bert", "llama"])
@pytest.mark.parametrize("case", CASES)
def test_a_lora_of_full_rank_adds_what_the_module_adds(
    case: str,
    model_type: str,
    module_of: Make,  # noqa: F811
    make_model: Make,
    tmp_path: Path,
) -> None:
    module, base = module_of(case, model_type), make_model(model_type, layers=4)
    lora = convert_to_lora(module, 64)
    assert lora.provenance["converted"]["max_error"] < 1e-6
    lora.save(tmp_path / "lora")
    before, after = merged(base, module.source), merged(base, tmp_path / "lora")
    assert before.keys() == after.keys()
    for path, tensors in before.items():
        for own, converted in zip(tensors, after[path], strict=True):
            torch.testing.assert_close(converted, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["loha", "lokr", "fourierft", "gralora", "vera"])
def test_it_is_pefts_conversion_where_peft_has_one(case: str, module_of: Make, make_model: Make) -> None:  # noqa: F811
    module = module_of(case, "bert")
    _, expected = peft.convert_to_lora(load_peft(make_model(layers=4), module.source), rank=3)
    lora = convert_to_lora(module, 3)
    assert lora.tensors.keys() == expected.keys()
    for key in expected:
        if "lora_A" in key:
            other = key.replace("lora_A", "lora_B")
            torch.testing.assert_close(
                lora.tensors[other] @ lora.tensors[key], expected[other] @ expected[key], rtol=1e-3, atol=1e-4
            )


def test_the_head_is_kept_and_the_errors_are_said(make_model: Make, run: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    config = CASES["loha"](ATTENTION["bert"], DOWN["bert"])
    module = regraft.load(write_module(base, config, tmp_path / "loha", labels=5))
    code, out, _ = run("convert", tmp_path / "loha", "--to", "lora", "--rank", 6, "--out", tmp_path / "lora")
    assert code == 0
    lora = regraft.load(tmp_path / "lora")
    head = [key for key in module.tensors if "classifier" in key]
    assert len(head) == 2
    assert all(torch.equal(lora.tensors[key], module.tensors[key]) for key in head)
    assert {len(tensor) for key, tensor in lora.tensors.items() if "lora_A" in key} == {6}
    said = json.loads((tmp_path / "lora" / "regraft.json").read_text())["converted"]
    assert 0.05 < said["mean_error"] <= said["max_error"] < 1
    assert f"at most {said['max_error']:.2g}" in out
    for name, layer in load_peft(base, tmp_path / "loha", labels=5).named_modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            delta = layer.get_delta_weight("default")
            ours = lora.tensors[f"{name}.lora_B.weight"] @ lora.tensors[f"{name}.lora_A.weight"]
            error = float((ours - delta).norm() / delta.norm())
            assert said["errors"][name.removeprefix("base_model.model.")] == pytest.approx(error, rel=1e-3, abs=1e-6)
    student = make_model(width=48, layers=2)
    ported = regraft.transfer(lora, student, align="random", head="fresh")
    assert ported.config["peft_type"] == "LORA"


def test_a_type_that_the_table_lacks_converts_too(make_model: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    write_module(base, peft.DeloraConfig(target_modules=["query"], r=4), tmp_path / "delora")
    module = regraft.load(tmp_path / "delora")
    with pytest.raises(ModuleFileError, match=r"is a DELORA module, expected one of ADALORA, .*; where .* convert it"):
        regraft.transfer(module, base)
    lora = convert_to_lora(module, 4)
    assert lora.provenance["converted"]["max_error"] < 1e-5
    regraft.transfer(lora, base)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, ["--rank", 0], "found rank 0 for a LoRA, expected 1 or more"),
        ({}, [], "found --to lora without --rank"),
        (
            {"peft_type": "PREFIX_TUNING"},
            ["--rank", 2],
            "expected one of those that PEFT can merge",
        ),
        ({"bias": "all"}, ["--rank", 2], "trains biases"),
        ({"target_modules": ["key"]}, ["--rank", 2], "does not fit .*name the model that it was trained on"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    change: dict[str, Any], arguments: list[Any], message: str, make_model: Make, run: Make, tmp_path: Path
) -> None:
    write_module(make_model(layers=2), peft.LoHaConfig(target_modules=["query"], r=4), tmp_path / "loha")
    path = tmp_path / "loha" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, _, err = run("convert", tmp_path / "loha", "--to", "lora", *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert re.search(message, " ".join(err.split())), err
    assert not (tmp_path / "out").exists()
