"""How much a module keeps of what it reads has known answers, and says before any training whether a port will help."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import make_texts
from torch import Tensor

import regraft
from regraft.alignment.linear import ridge
from regraft.alignment.maps import Assignment, Linear, Map
from regraft.alignment.moments import Moments, SplitMoments
from regraft.alignment.scores import missed_scatter, read_error
from regraft.models.sites import SpacePair
from regraft.port.forecast import LIKELY, POSSIBLE, Fidelity, Forecast, fidelity
from regraft.port.pipeline import Port
from regraft.port.plan import Plan
from regraft.port.spaces import fit_pairs

Activations = dict[SpacePair, tuple[Tensor, Tensor]]
BERT = "base_model.model.bert.encoder.layer.{}."
NAMES = {"lora": {"lora_B @ lora_A", "classifier"}, "bottleneck": {"bottleneck_down", "classifier"}}


def expected(places: list[Fidelity]) -> dict[str, float | None]:
    return Forecast.of(places).expected


def draw(plan: Plan, noise: float, n: int = 4000) -> Activations:
    """Draw a student's activations, and a teacher's: an affine map of them and so much of its own."""
    drawn = {}
    for number, space in enumerate(sorted({*plan.widths, *plan.reads})):
        dice = torch.Generator().manual_seed(number)
        d_s, d_t = 48, 32
        h_s = torch.randn(n, d_s, generator=dice, dtype=torch.float64) + 1
        h_s[:, 0] = 0.5  # along this one an offset goes where no bias takes it on
        shared = h_s @ torch.randn(d_s, d_t, generator=dice).double() / d_s**0.5
        own = torch.randn(n, d_t, generator=dice, dtype=torch.float64) + torch.randn(d_t, generator=dice)
        drawn[space] = h_s, shared * (1 - noise) + own * noise + torch.randn(d_t, generator=dice)
    return drawn


def split(drawn: Activations, full: bool = True) -> dict[SpacePair, SplitMoments]:
    return {
        space: SplitMoments(Moments.of(h_s[:3000], h_t[:3000], full), Moments.of(h_s[3000:], h_t[3000:], full))
        for space, (h_s, h_t) in drawn.items()
    }


def exact(drawn: Activations) -> dict[SpacePair, Map]:
    return {space: ridge(Moments.of(h_s[:3000], h_t[:3000], full=True), 1e-10) for space, (h_s, h_t) in drawn.items()}


@pytest.fixture(scope="module")
def pair(make_model: Callable[..., str], make_module: Callable[..., str]) -> Callable[[str], tuple]:
    def load(kind: str) -> tuple[regraft.Module, str]:
        return regraft.load(make_module(make_model(layers=4), kind, labels=3)), make_model(width=48, layers=2)

    return load


def share(missed: Tensor, varies: Tensor) -> float:
    return 1 - float(missed.square().sum() / (varies - varies.mean(0)).square().sum())


def test_errors_through_a_weight_equal_those_of_the_activations() -> None:
    dice = torch.Generator().manual_seed(0)
    h_s, h_t = (torch.randn(200, width, generator=dice, dtype=torch.float64) + 1 for width in (6, 9))
    weight, reads, offset = (torch.randn(*shape, generator=dice).double() for shape in ((4, 9), (9, 6), (9,)))
    moments = Moments.of(h_s, h_t, full=True)
    missed = (h_t - h_s @ reads.T - offset) @ weight.T
    torch.testing.assert_close(missed_scatter(moments, reads, offset, weight), missed.T @ missed)
    whole = missed_scatter(moments, reads, offset, torch.eye(9).double())
    assert float(whole.trace()) == pytest.approx(read_error(moments, reads, offset))


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("layers", ["skip", "avg"])
def test_a_teacher_that_is_affine_in_the_student_is_kept_whole(
    pair: Callable[[str], tuple], kind: str, layers: str
) -> None:
    module, student = pair(kind)
    plan = regraft.plan(module, student, layers=layers, align="ridge", spaces="measured")
    drawn = draw(plan, noise=0)
    found = fidelity(plan, module.tensors, exact(drawn), split(drawn))
    assert {one.name for one in found} == NAMES[kind]
    assert len(found) == (5 if kind == "lora" else 3)
    assert all(one.r2 == pytest.approx(1, abs=1e-6) for one in found)
    assert expected(found) == pytest.approx({"module": 1, "head": 1})


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_nothing_is_kept_of_what_the_student_knows_nothing_of(pair: Callable[[str], tuple], kind: str) -> None:
    module, student = pair(kind)
    plan = regraft.plan(module, student, align="ridge", spaces="measured")
    drawn = draw(plan, noise=1)
    found = fidelity(plan, module.tensors, exact(drawn), split(drawn))
    assert all(-0.1 < one.r2 <= 0.02 for one in found)
    maps, _ = fit_pairs("random", plan.widths, None)
    assert max(one.r2 for one in fidelity(plan, module.tensors, maps, split(drawn))) < -0.2  # wrong is worse than none


@pytest.mark.parametrize("linear", [True, False])
def test_the_closed_form_equals_what_the_module_computes(pair: Callable[[str], tuple], linear: bool) -> None:
    module, student = pair("lora")
    plan = regraft.plan(module, student, layers="avg", align="ridge", spaces="measured")
    drawn = draw(plan, noise=0.4)
    maps: dict[SpacePair, Map] = exact(drawn) if linear else fit_pairs("lsa", plan.widths, split(drawn))[0]
    tensors = {key: tensor.double() for key, tensor in module.tensors.items()}
    found = {(one.layer, one.site): one.r2 for one in fidelity(plan, tensors, maps, split(drawn))}

    def matrix(space: SpacePair) -> Linear:
        fitted = maps[space]
        return Linear.of(fitted) if isinstance(fitted, Assignment) else fitted

    for site in ("query", "value"):
        shares = []
        for layer in (2, 3):
            space = SpacePair(1, layer, "attention_input")
            h_s, h_t = (h[3000:] for h in drawn[space])
            key = f"{BERT.format(layer)}attention.self.{site}.lora_"
            weight = tensors[f"{key}B.weight"] @ tensors[f"{key}A.weight"]
            missed = h_t @ weight.T - h_s @ (weight @ matrix(space).without_offset().reads).T
            shares.append(share(missed, h_t @ weight.T))
        assert found[1, site] == pytest.approx(sum(shares) / 2)
    space = SpacePair(1, 3, "final_hidden")
    h_s, h_t = (h[3000:] for h in drawn[space])
    weight = tensors["base_model.model.classifier.weight"]
    acting = matrix(space)
    missed = (h_t - h_s @ acting.reads.T - acting.offset) @ weight.T
    assert found[None, "head"] == pytest.approx(share(missed, h_t @ weight.T))


def test_what_is_read_counts_where_a_map_was_fitted_on_another_space(pair: Callable[[str], tuple]) -> None:
    module, student = pair("bottleneck")
    plan = regraft.plan(module, student, align="ridge", spaces="released")
    assert {space.name for space in plan.reads} == {"layer_output", "final_hidden"}
    drawn = draw(plan, noise=0.1)
    maps, moments = exact(drawn), split(drawn)
    found = fidelity(plan, module.tensors, maps, moments)
    space, weight = (
        SpacePair(0, 0, "layer_output"),
        module.tensors[f"{BERT.format(0)}output.LayerNorm.bottleneck_down.weight"],
    )
    h_s, h_t = (h[3000:] for h in drawn[space])
    acting = maps[SpacePair(0, 0, "ff_output")]
    missed = (h_t - h_s @ acting.reads.T - acting.offset) @ weight.double().T
    assert found[0].r2 == pytest.approx(share(missed, h_t @ weight.double().T))
    lacking = {space: both for space, both in moments.items() if space.name != "layer_output"}
    assert [one.r2 is None for one in fidelity(plan, module.tensors, maps, lacking)] == [True, True, False]


def test_what_cannot_be_told_is_none(pair: Callable[[str], tuple]) -> None:
    module, student = pair("lora")
    plan = regraft.plan(module, student, align="ridge", spaces="measured")
    drawn = draw(plan, noise=0, n=3000)  # none held out
    nothing = {"module": None, "head": None}
    assert expected(fidelity(plan, module.tensors, exact(drawn), split(drawn))) == nothing
    drawn = draw(plan, noise=0)
    assert expected(fidelity(plan, module.tensors, exact(drawn), split(drawn, full=False))) == nothing
    untrained = {key: tensor * ("lora_B" not in key) for key, tensor in module.tensors.items()}
    found = fidelity(plan, untrained, exact(drawn), split(drawn))
    assert [one.r2 is None for one in found] == [True] * 4 + [False]


def test_a_verdict_goes_by_the_head_where_there_is_one() -> None:
    assert expected(
        [Fidelity(0, "query", "", 0.25), Fidelity(0, "value", "", 0.75), Fidelity(1, "query", "", None)]
    ) == {
        "module": 0.5,
        "head": None,
    }
    for head, module, words in (
        (LIKELY, 0.0, "is likely"),
        (POSSIBLE, 1.0, "may help"),
        (-3.0, 1.0, "no more than a random start"),
        (None, 0.6, "is likely"),
    ):
        assert words in (Forecast((), module, head).verdict or "")
    assert Forecast((), None, None).verdict is None
    assert Forecast((), 1.0, 1.0, silent=True).verdict is None


@pytest.mark.slow
def test_a_port_reports_what_is_expected_of_it(make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    texts = make_texts(80)
    for kind, spaces in (("lora", "measured"), ("bottleneck", "released")):
        module = regraft.load(make_module(teacher, kind, labels=3))
        options = {"spaces": spaces, "texts": texts, "progress": False}
        report = regraft.transfer(module, student, align="ridge", **options).report
        assert {one["site"] for one in report["fidelity"]} >= {"head"}
        assert all(value is not None and value <= 1 for value in report["expected"].values())
        port = Port.of(module, student, align="lsa", covariances=True, **options)
        assert port.forecast is not None
        assert set(port.forecast.expected) == {"module", "head"}
        assert regraft.forecast(module, student, align="lsa", **options) == port.forecast
        assert port.ported.report["expected"] == port.forecast.expected
        assert port.ported.hash() == regraft.transfer(module, student, align="lsa", **options).hash()
        assert all(score.r2_read is not None for score in port.fitted.scores)
        assert "expected" not in regraft.transfer(module, student, align="lsa", **options).report
    assert regraft.forecast(module, make_model(layers=2)) is None


def files(root: Path) -> set[Path]:
    return set(root.rglob("*"))


def test_plan_says_whether_a_port_will_help_and_writes_nothing(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    run: Callable[..., tuple[int, str, str]],
    ner_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    module = make_module(teacher, "lora", 9)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(make_texts(80)))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    here = ("plan", module, "--student", student, "--align", "ridge", "--quiet")
    before = {root: files(Path(root)) for root in (tmp_path, module, student, teacher)}
    code, out, error = run(*here, "--texts", texts, "--data", ner_folder, "--max-eval", 20)
    assert code == 0, error
    for words in ("mapped", "R2 read", "R2 write", "lora_B @ lora_A", "This port ", "validation"):
        assert words in out
    assert re.search(r"expected: the module keeps -?\d\.\d\d of what it reads, the head -?\d\.\d\d\n", out)
    assert "before any training, on the validation split; its task head is the teacher's" in out
    assert {root: files(Path(root)) for root in before} == before

    models = ("--teacher", teacher, "--student", student)
    run("sample", *models, "--texts", texts, "--out", tmp_path / "moments", "--quiet")
    _, sampled, _ = run(*here, "--moments", tmp_path / "moments")
    _, ported, _ = run(
        "transfer", module, *models[2:], "--align", "ridge", "--moments", tmp_path / "moments", "--out", tmp_path / "x"
    )
    (expected,) = re.findall("expected: .*", sampled)
    assert expected in ported
    assert expected in out
    assert "before any training" not in sampled

    code, out, _ = run(*here, "--data", ner_folder)
    assert code == 2  # ridge needs texts
    fresh = ("--student", make_model(layers=2), "--head", "fresh", "--data", ner_folder, "--max-eval", 5, "--quiet")
    code, out, _ = run("plan", module, *fresh)
    assert code == 0
    assert "drawn at random, so this says little" in out
    assert "expected" not in out
