"""Maps fitted layer by layer with the module in place, and scales of what it writes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_texts, peft_config, wordpiece_tokenizer
from peft import PeftModel, get_peft_model
from twins import Twin, make_twin

import regraft
from regraft.activations.options import RunOptions
from regraft.activations.sampling import sample
from regraft.errors import PlanError, SamplingError
from regraft.models.pretrained import resolve
from regraft.port.candidates import Fit, Fitting
from regraft.port.sequential import SCALES
from regraft.port.spaces import space_pairs

TEXTS = make_texts(60)
ONE = pytest.approx(1, abs=1e-6)
LINEARS = r".*\.layer\.\d+\..*(query|key|value|dense)"
WRITTEN = ("lora_B.weight", "lora_B.bias", "bottleneck_up.weight", "bottleneck_up.bias")


@dataclass(frozen=True)
class Ported:
    """A module with a head on a teacher, ported to the student that is a permuted copy of the teacher."""

    module: regraft.Module
    student: Any
    report: dict[str, Any]
    found: torch.Tensor
    expected: torch.Tensor


def tagger(encoder: Any) -> Any:
    config = copy.deepcopy(encoder.config)
    config.num_labels = 3
    model = transformers.BertForTokenClassification(config).double().eval()
    model.bert = encoder
    return model


def port(twin: Twin, kind: str, folder: Path, targets: str = "", **options: Any) -> Ported:
    tokenizer = wordpiece_tokenizer()
    head = {"task_type": "TOKEN_CLS", "modules_to_save": ["classifier"]}
    head |= {"target_modules": targets} if targets else {}
    adapted = get_peft_model(tagger(copy.deepcopy(twin.teacher)), peft_config(kind, "bert", **head)).eval()
    torch.manual_seed(3)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder / "teacher")
    batch = tokenizer(make_texts(4, seed=9), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = adapted(**batch).logits
    module = regraft.load(folder / "teacher")
    ported = regraft.transfer(
        module,
        student=(copy.deepcopy(twin.student), tokenizer),
        teacher=(copy.deepcopy(twin.teacher), tokenizer),
        texts=TEXTS,
        progress=False,
        **options,
    )
    ported.save(folder / "student")
    model = PeftModel.from_pretrained(tagger(twin.student), str(folder / "student")).eval()
    with torch.no_grad():
        found = model(**batch).logits
    return Ported(module, ported, dict(ported.report), found, expected)


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("scale", [1, "auto"])
def test_auto_in_sequence_gives_a_permuted_twin_the_teachers_logits(
    kind: str, scale: float | str, tmp_path: Path
) -> None:
    done = port(make_twin(prune=False), kind, tmp_path, align="auto", sequential=True, scale=scale)
    torch.testing.assert_close(done.found, done.expected, rtol=1e-4, atol=1e-4)
    report = done.report
    assert {score["method"] for score in report["scores"]} == {"lsa"}
    assert min(score["held_out"] for score in report["scores"]) == pytest.approx(1, abs=1e-6)
    assert report["expected"] == {"module": ONE, "head": ONE, "interval": [ONE, ONE]}
    assert (report["align"], report["sequential"], report["scale"]) == ("auto", True, 1)
    if scale == "auto":  # the right one is known
        assert list(report["scales"]) == [str(scale) for scale in SCALES]
        assert report["scales"]["1.0"] == max(report["scales"].values()) == 100
    else:
        assert report["scales"] == {}


@pytest.mark.parametrize(
    ("kind", "targets"), [("lora", ""), ("lora", LINEARS), ("bottleneck", "")], ids=["lora", "all-linear", "bottleneck"]
)
def test_ridge_in_sequence_gives_them_too(kind: str, targets: str, tmp_path: Path) -> None:
    done = port(make_twin(prune=False), kind, tmp_path, targets, align="ridge", sequential=True)
    torch.testing.assert_close(done.found, done.expected, rtol=1e-4, atol=1e-4)
    assert {score["method"] for score in done.report["scores"]} == {"ridge"}


@pytest.fixture(scope="module")
def pair(make_model: Callable[..., str]) -> tuple[str, str]:
    return make_model(layers=4), make_model("distilbert", width=48, layers=2)


def test_maps_fitted_with_the_module_in_place_are_of_other_activations(
    pair: tuple[str, str], make_module: Callable[..., str]
) -> None:
    """Above the first layer the teacher's activations are those that its module makes."""
    teacher, student = pair
    module = regraft.load(make_module(teacher))
    apart, sequential = (
        regraft.transfer(module, student, texts=TEXTS, align="ridge", sequential=sequential, progress=False)
        for sequential in (False, True)
    )
    key = "base_model.model.transformer.layer.{}.attention.q_lin.lora_A.weight"
    first, last = (
        (apart.tensors[key.format(layer)] - sequential.tensors[key.format(layer)]).abs().max() for layer in (0, 1)
    )
    assert first < 1e-4 < 1e-2 < last


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_a_module_ported_to_its_own_model_is_itself(
    make_model: Callable[..., str], make_module: Callable[..., str], kind: str
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, kind, labels=3))
    options = {"align": "none", "sequential": True, "texts": TEXTS, "progress": False}
    ported = regraft.transfer(module, base, **options)
    assert ported.tensors.keys() == module.tensors.keys()
    assert all(torch.equal(ported.tensors[key], tensor) for key, tensor in module.tensors.items())
    assert [score["r2_read"] for score in ported.report["scores"]] == pytest.approx([1] * len(ported.report["scores"]))


def test_one_loaded_model_may_be_teacher_and_student(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=3)
    module = regraft.load(make_module(base))
    options = {"align": "zero", "sequential": True, "texts": TEXTS, "progress": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    one, other = (transformers.AutoModel.from_pretrained(base) for _ in range(2))
    same = regraft.transfer(module, (one, tokenizer), (one, tokenizer), **options)
    assert same.hash() == regraft.transfer(module, (one, tokenizer), (other, tokenizer), **options).hash()
    assert min(score["r2_read"] for score in same.report["scores"]) < 0.9  # the teacher's module is active, no other
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, "auto"])
def test_the_same_again_gives_the_same(
    pair: tuple[str, str], make_module: Callable[..., str], scale: float | str
) -> None:
    teacher, student = pair
    module = regraft.load(make_module(teacher, "bottleneck", labels=3))
    first, again = (
        regraft.transfer(module, student, texts=texts, scale=scale, progress=False) for texts in (TEXTS, TEXTS[::-1])
    )
    assert first.hash() == again.hash()
    assert first.report["scales"] == again.report["scales"]
    assert (first.report["align"], first.report["sequential"]) == ("auto", True)
    if scale == "auto":
        scales = {float(tried): share for tried, share in first.report["scales"].items()}
        assert tuple(scales) == SCALES
        (chosen,) = (one for one in first.report["candidates"] if one["chosen"])
        best = max(first.report["candidates"], key=lambda one: one["value"])
        assert scales[first.report["scale"]] == chosen["value"] >= best["value"] - best["error"]


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("options", [{"align": "none"}, {"align": "ridge", "texts": TEXTS}], ids=["copied", "mapped"])
def test_a_scale_is_of_what_a_module_writes_and_of_nothing_else(
    make_model: Callable[..., str], make_module: Callable[..., str], kind: str, options: dict[str, Any]
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    extra = {"lora_bias": True} if kind == "lora" and options["align"] == "none" else {}
    module = regraft.load(make_module(teacher, kind, labels=3, **extra))
    whole, half, nothing = (
        regraft.transfer(module, student, layers="avg", scale=scale, progress=False, **options)
        for scale in (1.0, 0.5, "0")
    )
    assert [ported.report["scale"] for ported in (whole, half, nothing)] == [1, 0.5, 0]
    written = [key for key in whole.tensors if key.endswith(WRITTEN)]
    assert len(written) == (8 if extra else 4)
    for key, tensor in whole.tensors.items():
        assert torch.equal(half.tensors[key], 0.5 * tensor if key in written else tensor), key
        assert torch.equal(nothing.tensors[key], 0 * tensor if key in written else tensor), key


@pytest.mark.parametrize(("labels", "head"), [(None, None), (3, "fresh")], ids=["no head", "fresh"])
def test_without_the_teachers_head_the_final_hidden_states_judge_scales(
    pair: tuple[str, str], make_module: Callable[..., str], labels: int | None, head: str | None
) -> None:
    teacher, student = pair
    module = regraft.load(make_module(teacher, "lora", labels))
    ported = regraft.transfer(module, student, head=head, texts=TEXTS, scale="auto", progress=False)
    scales = {float(tried): share for tried, share in ported.report["scales"].items()}
    assert tuple(scales) == SCALES
    assert ported.report["scale"] == max(scales, key=lambda tried: scales[tried])
    assert "final_hidden" not in {score["space"].split(".")[2] for score in ported.report["scores"]}
    assert ported.report["expected"]["head"] is None
    plain = regraft.transfer(module, student, head=head, texts=TEXTS, progress=False)
    assert plain.report["scales"] == {}
    assert ("base_model.model.classifier.weight" in plain.tensors) == (labels is not None)


def test_a_judge_chooses_the_scale(pair: tuple[str, str], make_module: Callable[..., str]) -> None:
    module, student = regraft.load(make_module(pair[0])), pair[1]
    seen: list[regraft.Module] = []

    def judge(candidate: regraft.Module) -> float:
        seen.append(candidate)
        return -abs(len(seen) - 4)  # the fourth is best: of 1, 0 and the others

    ported = regraft.transfer(module, student, texts=TEXTS, scale="auto", judge=judge, progress=False)
    assert len(seen) == len(SCALES)
    assert ported.report["scale"] == 1.5
    assert ported.report["scales"] == {"0.0": -2, "0.5": -1, "1.0": -3, "1.5": 0, "2.0": -1}
    assert {one["metric"] for one in ported.report["candidates"]} == {"score"}
    assert all(torch.equal(seen[3].tensors[key], tensor) for key, tensor in ported.tensors.items())


def test_what_cannot_be_done_is_refused_in_words(pair: tuple[str, str], make_module: Callable[..., str]) -> None:
    teacher, student = pair
    module = regraft.load(make_module(teacher))
    both = resolve(teacher), resolve(student)
    moments = sample(*both, space_pairs(*both, "skip"), TEXTS, run=RunOptions(quiet=True))
    words = "sequential runs both models with the module in place, which no moments hold; give --texts"
    with pytest.raises(SamplingError, match=words):
        regraft.transfer(module, student, moments=moments, sequential=True)
    with pytest.raises(SamplingError, match=words):
        regraft.transfer(module, student, align="none", sequential=True)
    for options in ({"moments": moments}, {"texts": TEXTS, "sequential": False}, {"texts": TEXTS, "align": "lsa"}):
        with pytest.raises(PlanError, match=r"scale auto runs both models .*; fit --sequential, with --texts"):
            regraft.transfer(module, student, scale="auto", **options)
    for scale in ("x", "", "nan", float("inf")):
        with pytest.raises(PlanError, match=r"scale: found .*, expected a number or auto"):
            regraft.transfer(module, student, texts=TEXTS, scale=scale)


def test_auto_with_moments_is_fitted_to_the_bare_models(pair: tuple[str, str], make_module: Callable[..., str]) -> None:
    teacher, student = pair
    module = regraft.load(make_module(teacher, labels=3))
    both = resolve(teacher), resolve(student)
    moments = sample(*both, space_pairs(*both, "skip"), TEXTS, run=RunOptions(quiet=True))
    from_moments = regraft.transfer(module, student, moments=moments)
    apart = regraft.transfer(module, student, texts=TEXTS, sequential=False, progress=False)
    assert (from_moments.report["align"], from_moments.report["sequential"]) == ("auto", False)
    assert from_moments.hash() == apart.hash()
    assert apart.hash() != regraft.transfer(module, student, texts=TEXTS, progress=False).hash()


def test_loaded_models_stay_as_they_were(pair: tuple[str, str], make_module: Callable[..., str]) -> None:
    teacher, student = pair
    module = regraft.load(make_module(teacher, labels=3))
    loaded = [transformers.AutoModel.from_pretrained(path).train() for path in pair]
    given = [
        (model, transformers.AutoTokenizer.from_pretrained(path)) for model, path in zip(loaded, pair, strict=True)
    ]
    before = [(repr(model), copy.deepcopy(model.state_dict())) for model in loaded]
    ported = regraft.transfer(module, given[1], given[0], texts=TEXTS, progress=False)
    assert ported.hash() == regraft.transfer(module, student, texts=TEXTS, progress=False).hash()
    for model, (tree, weights) in zip(loaded, before, strict=True):
        assert repr(model) == tree
        torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_map_is_dropped_when_it_has_served(
    make_model: Callable[..., str], make_module: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind each stage nothing is kept but what the module's tensors became."""
    kept: list[tuple[int, int]] = []
    move = Fitting.move

    def noting(fitting: Fitting, body: Fit, later: Any) -> None:
        before = len(body.maps)
        move(fitting, body, later)
        kept.append((before, len(body.maps)))

    monkeypatch.setattr(Fitting, "move", noting)
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    module = regraft.load(make_module(teacher, labels=3))
    ported = regraft.transfer(module, student, teacher, texts=TEXTS, align="ridge", sequential=True, progress=False)
    # Queries and values read one space and write one each.
    assert kept == [(3, 0), (3, 0)]
    assert all(tensor.abs().max() > 0 for tensor in ported.tensors.values())
