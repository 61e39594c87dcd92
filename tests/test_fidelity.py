"""How much a module keeps of what it reads has known answers, and says before any training whether a port will help."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from conftest import make_texts, of_many_answers
from scipy import stats
from torch import Tensor

import regraft
from regraft.alignment.linear import ridge
from regraft.alignment.maps import Assignment, Linear, Map
from regraft.alignment.moments import Moments, SplitMoments
from regraft.alignment.scores import margin, missed_scatter, read_error
from regraft.models.sites import SpacePair
from regraft.port.forecast import LIKELY, POSSIBLE, WIDEST, Fidelity, Forecast, fidelity
from regraft.port.pipeline import Port
from regraft.port.plan import Plan
from regraft.port.spaces import fit_pairs

Activations = dict[SpacePair, tuple[Tensor, Tensor]]
BERT = "base_model.model.bert.encoder.layer.{}."
NAMES = {"lora": {"lora_B @ lora_A", "classifier"}, "bottleneck": {"bottleneck_down", "classifier"}}


def expected(places: list[Fidelity]) -> dict[str, float | None]:
    forecast = Forecast.of(places)
    return {"module": forecast.module, "head": forecast.head}


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


def split(drawn: Activations, full: bool = True, folds: int = 0) -> dict[SpacePair, SplitMoments]:
    return {
        space: SplitMoments(
            Moments.of(h_s[:3000], h_t[:3000], full),
            Moments.of(h_s[3000:], h_t[3000:], full),
            tuple(Moments.of(h_s[3000 + n :: folds], h_t[3000 + n :: folds], full) for n in range(folds)),
        )
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
    mapped = moments.mapped(weight @ reads, weight @ offset, weight)
    torch.testing.assert_close(missed_scatter(mapped), missed.T @ missed)
    whole = missed_scatter(moments.mapped(reads, offset, torch.eye(9).double()))
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


@pytest.mark.parametrize("layers", ["skip", "avg"])
def test_the_interval_is_that_of_the_jackknife_over_folds(pair: Callable[[str], tuple], layers: str) -> None:
    module, student = pair("bottleneck")
    plan = regraft.plan(module, student, layers=layers, align="ridge", spaces="measured")
    drawn = draw(plan, noise=0.5)
    maps, moments = exact(drawn), split(drawn, folds=5)
    (found,) = [one for one in fidelity(plan, module.tensors, maps, moments) if one.layer == 1]
    without = []
    for fold in range(5):
        kept = []
        for layer in (2,) if layers == "skip" else (2, 3):
            space = SpacePair(1, layer, "layer_output")
            rest = [row for row in range(3000, 4000) if row % 5 != fold]
            h_s, h_t = (h[rest] for h in drawn[space])
            weight = module.tensors[f"{BERT.format(layer)}output.LayerNorm.bottleneck_down.weight"].double()
            missed = (h_t - h_s @ maps[space].reads.T - maps[space].offset) @ weight.T
            kept.append(share(missed, h_t @ weight.T))
        without.append(fmean(kept))
    error = (4 / 5 * sum((one - fmean(without)) ** 2 for one in without)) ** 0.5
    assert found.margin == pytest.approx(2.776445 * error)  # Student's t with 4 degrees of freedom
    # Only what is judged is kept in folds: the head, and a layer in the middle.
    heads = {space: kept for space, kept in moments.items() if space.name == "final_hidden"}
    forecast = Forecast.of(fidelity(plan, module.tensors, maps, {**split(drawn), **heads}))
    assert forecast.margin == next(one.margin for one in forecast.places if one.layer is None)
    assert forecast.interval == (forecast.head - forecast.margin, forecast.head + forecast.margin)
    assert Forecast.of(fidelity(plan, module.tensors, maps, split(drawn))).interval is None


def test_folds_without_texts_are_no_evidence(pair: Callable[[str], tuple]) -> None:
    module, student = pair("bottleneck")
    plan = regraft.plan(module, student, align="ridge", spaces="measured")
    drawn = draw(plan, noise=0.5)
    maps, moments, one = exact(drawn), split(drawn, folds=2), split(drawn, folds=1)
    padded = {
        space: replace(kept, folds=(*kept.folds, Moments.zeros(48, 32, full=True))) for space, kept in one.items()
    }
    assert {place.margin for place in fidelity(plan, module.tensors, maps, padded)} == {None}
    more = {
        space: replace(kept, folds=(*kept.folds, Moments.zeros(48, 32, full=True))) for space, kept in moments.items()
    }
    assert fidelity(plan, module.tensors, maps, more) == fidelity(plan, module.tensors, maps, moments)


def test_the_margin_of_a_mean_is_that_of_textbooks() -> None:
    values = [0.3, 0.1, 0.7, 0.5]
    without = [fmean(values[:n] + values[n + 1 :]) for n in range(4)]
    low, high = stats.t.interval(0.95, 3, fmean(values), stats.sem(values))
    assert margin(without) == pytest.approx((high - low) / 2)
    assert margin(without[:1]) is None


@pytest.mark.parametrize(
    ("head", "module", "wide", "said"),
    [
        (LIKELY + 0.1, 0.0, 0.2, "This port is likely to help."),
        (LIKELY, 0.0, 0.2, "This port may help, and perhaps is likely to."),
        (0.35, 1.0, 0.2, "This port may help."),
        (POSSIBLE, 1.0, 0.2, "This port may help, or be no better than a random start; more texts would tell."),
        (-3.0, 1.0, 0.2, "This port is unlikely to help; expect no more than a random start."),
        (None, 0.65, 0.2, "This port is likely to help."),
        (0.3, 1.0, WIDEST + 0.02, "No verdict: 7 held-out texts leave the head's R2 between 0.14 and 0.46; give more"),
        (None, 0.3, WIDEST + 0.02, "No verdict: 7 held-out texts leave the module's R2 between 0.14 and 0.46; give"),
        (0.9, 0.9, None, "No verdict: nothing tells how sure this is; give more texts"),
    ],
)
def test_a_verdict_goes_by_the_interval(head: float | None, module: float, wide: float | None, said: str) -> None:
    half = None if wide is None else wide / 2
    assert (Forecast((), module, head, margin=half, held_out_texts=7).verdict or "").startswith(said)


def test_without_a_figure_there_is_no_verdict() -> None:
    places = [Fidelity(0, "query", "", 0.25, 0.1), Fidelity(0, "value", "", 0.75), Fidelity(1, "query", "", None)]
    assert Forecast.of(places).expected == {"module": 0.5, "head": None, "interval": [0.4, 0.6]}
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
        low, high = report["expected"]["interval"]
        assert low < report["expected"]["head"] < high <= 1
        port = Port.of(module, student, align="lsa", covariances=True, **options)
        assert port.forecast is not None
        assert set(port.forecast.expected) == {"module", "head", "interval"}
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
    module = of_many_answers(make_module(teacher, "lora", 9), make_texts(80))
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(make_texts(80)))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    here = ("plan", module, "--student", student, "--align", "ridge")
    before = {root: files(Path(root)) for root in (tmp_path, module, student, teacher)}
    code, out, error = run(*here, "--texts", texts, "--data", ner_folder, "--max-eval", 20)
    assert code == 0, error
    for words in ("mapped", "R2 read", "R2 write", "lora_B @ lora_A", "validation"):
        assert words in out
    assert re.search(r"expected: the module keeps -?\d\.\d\d of what it reads, the head (-?\d\.\d\d \(95%.*)\n", out)
    assert re.search(r"\nOn 20 held-out texts the port gives the teacher's answers with a\w* ", out)
    assert "before any training, on the validation split; its task head is the teacher's" in out
    assert {root: files(Path(root)) for root in before} == before

    models = ("--teacher", teacher, "--student", student)
    run("sample", *models, "--texts", texts, "--out", tmp_path / "moments")
    _, sampled, _ = run(*here, "--moments", tmp_path / "moments")
    _, ported, _ = run(
        "transfer", module, *models[2:], "--align", "ridge", "--moments", tmp_path / "moments", "--out", tmp_path / "x"
    )
    (expected,) = re.findall("expected: .*", sampled)
    assert expected in ported
    assert expected in out
    verdict = next(line for line in sampled.splitlines() if line.startswith(("This port ", "No verdict: 20 held-out ")))
    assert verdict in ported.splitlines()
    assert "before any training" not in sampled

    code, out, _ = run(*here, "--data", ner_folder)
    assert code == 2  # ridge needs texts
    fresh = ("--student", make_model(layers=2), "--head", "fresh", "--data", ner_folder, "--max-eval", 5)
    code, out, _ = run("plan", module, *fresh)
    assert code == 0
    assert "drawn at random, so this says little" in out
    assert "expected" not in out
