"""Layers `best`: what a student's layer takes is known where its activations are those of a teacher's layer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, combinations_with_replacement, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_texts, wordpiece_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from twins import make_twin

import regraft
from regraft.errors import PlanError, SamplingError
from regraft.evidence import MAX_TEXTS, best_layers, monotone, reconstruction, space_read
from regraft.fit import r2
from regraft.linear import ridge
from regraft.models import resolve
from regraft.observation import observe
from regraft.samples import Space
from regraft.sampling import sample

KEPT = [0, 3, 5]


def jumping(model: Any, kept: list[int]) -> Any:
    """Cut a model down to some layers, before each of which the dropped ones still run, unseen by hooks.

    So what enters the layers that are left is what entered them before.
    """
    layers = list(model.encoder.layer)
    for last, layer in zip([-1, *kept], kept, strict=False):
        dropped = layers[last + 1 : layer]

        def run(_: Any, args: tuple, kwargs: dict, dropped: list = dropped) -> tuple:
            states = args[0]
            for other in dropped:
                result = other(states, *args[1:], **kwargs)
                states = result[0] if isinstance(result, tuple) else result
            return (states, *args[1:]), kwargs

        layers[layer].register_forward_pre_hook(run, with_kwargs=True)
    model.encoder.layer = torch.nn.ModuleList(layers[i] for i in kept)
    model.config.num_hidden_layers = len(kept)
    return model


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """Teacher of six layers, and a student that shows layers 0, 3 and 5 of it in a permuted half of its dimensions."""
    twin = make_twin(layers=6, seed=1)
    tokenizer = wordpiece_tokenizer()
    return resolve((twin.teacher, tokenizer)), resolve((jumping(twin.student, KEPT), tokenizer))


@pytest.mark.parametrize("space", ["attention_input", "layer_output"])
def test_layers_with_the_same_activations_are_found(pair: tuple[Any, Any], space: str) -> None:
    scores = reconstruction(*pair, space, make_texts(200), shrinkage=1e-8, progress=False)
    assert scores.shape == (3, 6)
    assert monotone(scores, strict=True) == KEPT
    same = torch.zeros(3, 6, dtype=torch.bool)
    same[torch.arange(3), KEPT] = True
    assert scores[same].min() > 0.999
    assert scores[~same].max() < 0.99  # or the answer would be a matter of luck


def test_scores_are_those_of_ridge_on_each_pair_alone(make_model: Callable[..., str]) -> None:
    teacher, student = resolve(make_model(layers=3)), resolve(make_model("distilbert", width=48, layers=2))
    texts = make_texts(200)
    scores = reconstruction(teacher, student, "attention_input", texts, batch_size=8, progress=False)
    spaces = [Space(i, j, "attention_input") for i in range(2) for j in range(3)]
    taken = sample(teacher, student, spaces, texts, batch_size=8, progress=False)
    for space in spaces:
        split = taken.moments[space]
        expected, _ = r2(split.held_out, ridge(split.fit, 0.01))
        assert float(scores[space.student_layer, space.teacher_layer]) == pytest.approx(expected, abs=1e-6)


def test_at_most_so_many_texts_are_read_in_whatever_order(
    make_model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = resolve(make_model(layers=3)), resolve(make_model(layers=2, seed=4))
    read: list[list[str]] = []

    def watched(*args: Any, **options: Any) -> Any:
        read.append(args[4])
        return observe(*args, **options)

    monkeypatch.setattr("regraft.evidence.observe", watched)
    texts = make_texts(MAX_TEXTS + 150)
    one, other = (
        reconstruction(teacher, student, "attention_input", given, progress=False) for given in (texts, texts[::-1])
    )
    assert torch.equal(one, other)
    assert read[0] == read[1]
    assert len(read[0]) == MAX_TEXTS
    assert len({len(text) for text in read[0]}) > 20  # of all lengths


def test_a_deeper_student_repeats_layers(
    make_model: Callable[..., str], make_module: Callable[..., str], pair: tuple[Any, Any]
) -> None:
    deep, shallow = pair
    teacher, student = resolve((shallow.loaded, shallow.given_tokenizer)), deep
    module = regraft.load(make_module(make_model(layers=2)))
    found = best_layers(module, teacher, student, make_texts(200), progress=False)
    assert found.space == "attention_input"
    assert len(found.chosen) == 6
    assert found.chosen == sorted(found.chosen)
    assert [found.chosen[layer] for layer in KEPT] == [0, 1, 2]


def test_the_space_is_the_one_the_module_reads(make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    bert, llama = make_model(layers=2), make_model("llama", layers=2)

    def space(kind: str, student: str = bert, **extra: Any) -> str:
        return space_read(regraft.load(make_module(bert, kind, **extra)), resolve(bert), resolve(student))

    assert space("lora") == "attention_input"
    assert space("lora", target_modules=["output.dense"], layers_to_transform=[1]) in ("attention_context", "ff_hidden")
    assert space("bottleneck") == "layer_output"
    with pytest.raises(PlanError, match=r"found no tensor of .* that reads activations which .* has, too"):
        space("bottleneck", llama)


@given(st.integers(1, 5), st.integers(1, 5), st.booleans(), st.data())
def test_the_sum_is_the_largest_there_is(rows: int, columns: int, strict: bool, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(-20, 20), min_size=rows * columns, max_size=rows * columns))
    scores = torch.tensor(values, dtype=torch.float64).view(rows, columns)
    if strict and rows > columns:
        with pytest.raises(PlanError, match="expected one for each"):
            monotone(scores, strict)
        return
    chosen = monotone(scores, strict)
    ways = (combinations if strict else combinations_with_replacement)(range(columns), rows)
    best = max(sum(float(scores[i, j]) for i, j in enumerate(way)) for way in ways)
    assert len(chosen) == rows
    assert all(b - a >= strict for a, b in pairwise(chosen))
    assert sum(float(scores[i, j]) for i, j in enumerate(chosen)) == best


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(make_texts(150)) + "\n")
    return path


def test_port_through_the_best_layers(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, texts: Path
) -> None:
    student = make_model("distilbert", width=48, layers=2)
    module = make_module(make_model(layers=4), "bottleneck")
    shared = ("transfer", module, "--student", student, "--align", "ridge", "--texts", texts, "--quiet")
    code, out, error = run(*shared, "--layers", "best", "--out", tmp_path / "best")
    assert code == 0, error
    ported = regraft.load(tmp_path / "best")
    evidence = ported.report["layer_evidence"]
    assert ported.report["layers"] == "best"
    assert evidence["space"] == "layer_output"
    assert [len(row) for row in evidence["r2"]] == [4, 4]
    chosen = evidence["chosen"]
    assert [[share["layer"] for share in group] for group in ported.report["groups"]] == [[layer] for layer in chosen]
    assert "Layers: best; R2 of layer_output" in out
    for layer, (taken, row) in enumerate(zip(chosen, evidence["r2"], strict=True)):
        shown = (layer, taken, f"{row[taken]:.3f}", f"{max(row):.3f}", row.index(max(row)))
        assert any(line.strip("│ ").replace("│", " ").split() == list(map(str, shown)) for line in out.splitlines())
    named = ",".join(map(str, chosen))
    assert f"| layers | best: {named} |" in (tmp_path / "best" / "README.md").read_text()
    code, out, _ = run(*shared, "--layers", named, "--out", tmp_path / "named")
    assert code == 0
    assert "Layers: best" not in out
    assert "layer_evidence" not in regraft.load(tmp_path / "named").report
    assert regraft.load(tmp_path / "named").hash() == ported.hash()


def test_best_needs_texts(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, texts: Path
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    pair = (make_module(teacher), "--student", student, "--layers", "best")
    for command in (
        ("plan", *pair),
        ("transfer", *pair, "--out", tmp_path / "out"),
        ("transfer", *pair, "--moments", tmp_path, "--out", tmp_path / "out"),
    ):
        code, _, error = run(*command)
        assert code == 2
        assert "layers 'best' compares all pairs of layers, which moments do not hold; give --texts FILE" in error
        assert error.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in error
    code, _, error = run("sample", "--teacher", teacher, *pair[1:], "--texts", texts, "--out", tmp_path / "out")
    assert code == 2
    assert "give --texts FILE to 'regraft plan' or 'regraft transfer', or name the layers" in error
    assert not (tmp_path / "out").exists()


def test_texts_and_spaces_that_do_not_serve_are_refused_in_words(make_model: Callable[..., str]) -> None:
    teacher, student = resolve(make_model(layers=3)), resolve(make_model(layers=2, seed=4))
    with pytest.raises(SamplingError, match="found 1 non-empty texts, expected at least 2"):
        reconstruction(teacher, student, "attention_input", ["the old river"], progress=False)
    texts = make_texts(30)
    with pytest.raises(SamplingError, match="has no gate_output in layer"):
        reconstruction(teacher, student, "gate_output", texts, progress=False)
