"""A teacher that is gone before the student comes teaches what it teaches beside it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_texts

import regraft
from regraft.activations.options import RunOptions
from regraft.activations.sampling import load_sample, sample
from regraft.activations.shelf import Shelf
from regraft.models.pretrained import Pretrained, resolve
from regraft.port import taught
from regraft.port.spaces import space_pairs

Make = Callable[..., str]
TEXTS = make_texts(60)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many other models are there each time that one has been loaded."""
    counts: list[int] = []
    loaded: list[weakref.ref[Any]] = []
    load = Pretrained.load

    def counted(base: Pretrained, *args: Any, **options: Any) -> Any:
        counts.append(sum(one() is not None for one in loaded))
        model, found = load(base, *args, **options)
        loaded.append(weakref.ref(model))
        return model, found

    monkeypatch.setattr(Pretrained, "load", counted)
    return counts


@pytest.mark.parametrize(
    ("models", "kind", "options", "hold"),
    [
        (("bert", "distilbert"), "lora", {"labels": 3}, 4),
        (("llama", "qwen2"), "lora", {"target_modules": "all-linear"}, 0),
        pytest.param(("bert", "bert"), "bottleneck", {"labels": 3, "task_type": "SEQ_CLS"}, 0, marks=pytest.mark.slow),
        pytest.param(("t5", "t5"), "lora", {}, 0, marks=pytest.mark.slow),
    ],
)
def test_the_port_is_the_same(
    make_model: Make,
    make_module: Make,
    alive: list[int],
    models: tuple[str, str],
    kind: str,
    options: dict[str, Any],
    hold: float,
) -> None:
    teacher, student = make_model(models[0], layers=4), make_model(models[1], layers=2, width=48, seed=1)
    module = regraft.load(make_module(teacher, kind, **options))
    said = {"texts": TEXTS, "progress": False, "hold_memory": hold, "sequential": True, "align": "auto"}
    both = regraft.transfer(module, student, teacher, **said)
    assert alive == [0, 1]
    alive.clear()
    one = regraft.transfer(module, student, teacher, one_at_a_time=True, **said)
    assert alive == [0, 0]
    assert one.tensors.keys() == both.tensors.keys()
    assert all(torch.equal(tensor, both.tensors[key]) for key, tensor in one.tensors.items())


def test_the_moments_are_the_same(make_model: Make, run: Callable[..., Any], tmp_path: Path, alive: list[int]) -> None:
    teacher, student = make_model(layers=2), make_model("distilbert", width=48, layers=2)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    models = ("--teacher", teacher, "--student", student, "--texts", tmp_path / "texts.txt", "--quiet")
    assert run("sample", *models, "--one-at-a-time", "--out", tmp_path / "moments")[0] == 0
    assert alive == [0, 0]
    pair = resolve(teacher), resolve(student)
    expected = sample(*pair, space_pairs(*pair, "skip"), TEXTS, run=RunOptions(quiet=True)).moments
    found = load_sample(tmp_path / "moments").moments
    assert found.keys() == expected.keys()
    for space, moments in found.items():
        assert torch.equal(moments.fit.cross, expected[space].fit.cross)
        assert torch.equal(moments.held_out.scatter_t, expected[space].held_out.scatter_t)


def test_one_model_for_both_stays_as_it_was(make_model: Make, make_module: Make) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base))
    loaded = transformers.AutoModel.from_pretrained(base), transformers.AutoTokenizer.from_pretrained(base)
    before = {name: value.clone() for name, value in loaded[0].state_dict().items()}
    ported = regraft.transfer(module, loaded, loaded, texts=TEXTS, progress=False, align="auto", one_at_a_time=True)
    assert all(torch.equal(tensor, module.tensors[key]) for key, tensor in ported.tensors.items())
    after = loaded[0].state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_weight_that_is_held_is_a_copy(make_model: Make, make_module: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights on the CPU are views of their file; one that is kept would keep the teacher in memory."""
    held: list[int] = []
    own: list[int] = []
    hold, weight_of = Shelf.__setitem__, taught.weight_of

    def holding(shelf: Shelf, key: Any, tensor: torch.Tensor) -> None:
        hold(shelf, key, tensor)
        held.extend([shelf[key].data_ptr()] if key[0] == "weight" else [])

    def noting(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias = weight_of(*args)
        own.append(weight.data_ptr())
        return weight, bias

    monkeypatch.setattr(Shelf, "__setitem__", holding)
    monkeypatch.setattr(taught, "weight_of", noting)
    teacher, student = make_model("llama", layers=2), make_model("qwen2", layers=2, width=48)
    module = regraft.load(make_module(teacher))
    regraft.transfer(module, student, teacher, texts=TEXTS, one_at_a_time=True, progress=False)
    assert len(held) == 2 * 2  # queries and values of two layers
    assert not {*held} & {*own}
