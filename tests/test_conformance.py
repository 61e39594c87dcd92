"""Every method ports between every sort of pair, up and down, to a directory that PEFT loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import load_base, load_peft, make_texts

import regraft
from regraft.activations.options import RunOptions
from regraft.activations.sampling import Sample, sample
from regraft.alignment.methods import METHODS
from regraft.errors import PlanError
from regraft.models.pretrained import resolve
from regraft.port.options import default_spaces
from regraft.port.spaces import space_pairs

TEXTS = make_texts(60)
LARGE, SMALL = {"width": 48, "layers": 4}, {"width": 32, "layers": 2}
GROUPED = {"num_key_value_heads": 2}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "bert-distilbert": ({"model_type": "bert"}, {"model_type": "distilbert", "unigram": True}, "bottleneck"),
    "roberta-bert": ({"model_type": "roberta"}, {"model_type": "bert"}, "lora"),
    "llama-llama": (
        {"model_type": "llama", **GROUPED},
        {"model_type": "llama", "seed": 1, "unigram": True, **GROUPED},
        "lora",
    ),
}
# A narrower student may be the deeper one too.
SIZES = {
    "down": (LARGE, SMALL),
    "up": (SMALL, LARGE),
    "narrower and deeper": ({**LARGE, "layers": 2}, {**SMALL, "layers": 3}),
}


def ports(*sizes: str) -> pytest.MarkDecorator:
    chosen = [(pair, size) for pair in PAIRS for size in sizes]
    return pytest.mark.parametrize("port", chosen, ids=" ".join, indirect=True)


@pytest.fixture(scope="module")
def port(
    request: pytest.FixtureRequest, make_model: Callable[..., str], make_module: Callable[..., str]
) -> tuple[regraft.Module, str, Sample]:
    """Give a teacher's module with a head, a student, and moments of the pair."""
    pair, size = request.param
    teacher, student, kind = PAIRS[pair]
    large, small = SIZES[size]
    models = make_model(**teacher, **large), make_model(**student, **small)
    module = regraft.load(make_module(models[0], kind, 3))
    both = resolve(models[0]), resolve(models[1])
    return module, models[1], sample(*both, space_pairs(*both, "skip"), TEXTS, run=RunOptions(quiet=True))


def assert_peft_loads(ported: regraft.Module, student: str, folder: Path) -> None:
    assert all(tensor.isfinite().all() for tensor in ported.tensors.values())
    ported.save(folder / "ported")
    model = load_peft(student, folder / "ported", 3)
    result = model.load_adapter(str(folder / "ported"), "again")
    assert not result.missing_keys
    assert not result.unexpected_keys
    ids = torch.tensor([[2, 7, 11, 9, 3]])
    logits, bare = model(ids).logits, load_base(student, 3).eval()(ids).logits
    assert logits.isfinite().all()
    assert not torch.equal(logits, bare)


@ports("down", "up")
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_from_moments(port: tuple[regraft.Module, str, Sample], method: str, tmp_path: Path) -> None:
    module, student, moments = port
    if method == "none":
        with pytest.raises(PlanError, match="expected the same without a map"):
            regraft.transfer(module, student, align=method, moments=moments)
        return
    spaces = default_spaces(method)
    if "llama" in student and spaces == "released":  # grouped values are narrower than what attention reads
        with pytest.raises(PlanError, match="of another width; use --spaces measured"):
            regraft.transfer(module, student, align=method, moments=moments)
        spaces = "measured"
    ported = regraft.transfer(module, student, align=method, moments=moments, spaces=spaces)
    assert (ported.report["align"], ported.report["spaces"]) == (method, spaces)
    assert_peft_loads(ported, student, tmp_path)
    written = [tensor for key, tensor in ported.tensors.items() if "lora_B" in key or "bottleneck_up" in key]
    assert any(tensor.any() for tensor in written) == (method != "zero")


@ports(*SIZES)
def test_auto_in_sequence(port: tuple[regraft.Module, str, Sample], tmp_path: Path) -> None:
    module, student, _ = port
    ported = regraft.transfer(module, student, texts=TEXTS, progress=False)
    assert (ported.report["align"], ported.report["sequential"], ported.report["head"]) == ("auto", True, "teacher")
    assert {score["method"] for score in ported.report["scores"]} <= {"lsa", "ridge"}
    assert set(ported.report["expected"]) == {"module", "head", "interval"}
    assert None not in ported.report["expected"].values()
    assert_peft_loads(ported, student, tmp_path)
