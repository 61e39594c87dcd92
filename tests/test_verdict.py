"""What plan and transfer end with: how often a port gives its teacher's answer on texts it was not fitted on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_texts, of_many_answers

import regraft
from regraft.activations.batches import Batches, in_order, unfitted_texts
from regraft.activations.options import SampleOptions
from regraft.models.pretrained import resolve

Make = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
TEXTS = make_texts(80)
LABELS = ("O", "B-PER", "I-PER")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS))
    return file


def figures(out: str) -> tuple[int, str, list[float]]:
    """How many texts, the metric, and the percentages of the port, its head alone and the floor."""
    found = re.search(
        r"On (\d+) held-out texts the port gives the teacher's answers with an? ([\w ]+) of ([\d.]+) \(95% interval "
        r"[\d.]+ to [\d.]+; divergence [\d.]+\); its head alone ([\d.]+), always [\w-]+ ([\d.]+)\.",
        out,
    )
    assert found is not None, out
    return int(found[1]), found[2], [float(one) for one in found.groups()[2:]]


def test_unfitted_texts_are_those_of_the_held_out_batches(make_model: Make) -> None:
    for texts, size in ((TEXTS, 8), ([*TEXTS, *TEXTS[:40], " "], 32), (TEXTS[:5], 32)):
        batches = Batches(*[resolve(make_model())] * 2, in_order(texts), SampleOptions(batch_size=size))
        cut = batches._texts
        assert [is_held_out for _, is_held_out in cut] == [batch.held_out is not None for batch in batches]
        held_out, fitted = (
            {text for some, is_held_out in cut if is_held_out is out for text in some} for out in (True, False)
        )
        assert {*unfitted_texts(texts, size)} == held_out - fitted
        assert held_out
    pairs = list(zip(TEXTS[::2], TEXTS[1::2], strict=True))
    apart = {*unfitted_texts(TEXTS, 8)}
    assert unfitted_texts(pairs, 8) == [pair for pair in pairs if not apart.isdisjoint(pair)]


def test_plan_and_transfer_end_with_the_agreement(
    make_model: Make, make_module: Make, run: Run, texts: Path, tmp_path: Path
) -> None:
    module = of_many_answers(make_module(make_model(), labels=3), TEXTS)
    student = make_model("distilbert", width=48, layers=2)
    call = (module, "--student", student, "--texts", texts, "--teacher-labels", ",".join(LABELS))
    code, planned, error = run("plan", *call)
    assert code == 0, error
    _, ported, _ = run("transfer", *call, "--out", tmp_path / "port")
    assert figures(planned) == figures(ported)
    held_out = unfitted_texts(TEXTS, 32)
    found = regraft.compare(regraft.load(module), regraft.load(tmp_path / "port"), held_out, progress=False)
    assert found.agreement.metric == "span F1"
    printed = [round(one, 1) for one in (found.agreement.percent, found.head_alone.percent, found.floor)]
    assert figures(ported) == (len(held_out), "span F1", printed)
    assert "This port " not in ported


def test_a_port_to_its_own_model_agrees_whatever_the_order_of_its_labels(
    make_model: Make, make_module: Make, run: Run, texts: Path
) -> None:
    module = of_many_answers(make_module(make_model(), labels=3), TEXTS)
    here = ("plan", module, "--student", make_model(), "--texts", texts)
    order = ("--teacher-labels", ",".join(LABELS), "--labels", ",".join(LABELS[::-1]))
    for options in ((), order):
        code, out, error = run(*here, *options)
        assert code == 0, error
        assert figures(out)[2][0] == 100
        assert "no better than knowing nothing" not in out
        assert "The head alone" not in out


def test_without_an_answer_the_forecast_remains(make_model: Make, make_module: Make, run: Run, texts: Path) -> None:
    base, student = make_model(), make_model("distilbert", width=48, layers=2)
    for module, options in ((make_module(base, labels=3), ("--head", "fresh")), (make_module(base), ())):
        here = ("--student", student, "--texts", texts, "--align", "ridge", "--apart")
        code, out, error = run("plan", module, *here, *options)
        assert code == 0, error
        assert "held-out texts the port gives" not in out
        assert "This port " in out or "No verdict" in out


def test_too_few_texts_and_a_teacher_with_one_answer_get_no_verdict(
    make_model: Make, make_module: Make, run: Run, texts: Path, tmp_path: Path
) -> None:
    module, student = make_module(make_model(), labels=3), make_model("distilbert", width=48, layers=2)
    call = ("plan", module, "--student", student, "--texts", texts)
    code, out, _ = run(*call, "--max-texts", 36)
    assert code == 0
    assert "No verdict: found 9 held-out texts, expected at least 10; give more texts." in out
    loaded = regraft.load(module)
    bias = next(key for key in loaded.tensors if key.endswith("classifier.bias"))
    tensors = {
        **loaded.tensors,
        bias: loaded.tensors[bias] + 1000 * (loaded.tensors[bias] == loaded.tensors[bias].max()),
    }
    regraft.Module(loaded.config, tensors).save(tmp_path / "constant")
    code, out, _ = run("plan", tmp_path / "constant", *call[2:])
    assert code == 0
    assert "No verdict: " in out
    assert "gives one answer" in out


def test_a_module_of_pairs_is_asked_pairs(make_model: Make, make_module: Make, run: Run, tmp_path: Path) -> None:
    pairs = list(zip(TEXTS, make_texts(80, seed=5), strict=True))
    module = of_many_answers(make_module(make_model(), labels=2, task_type="SEQ_CLS"), pairs)
    table = tmp_path / "pairs.tsv"
    table.write_text("premise\thypothesis\n" + "".join(f"{one}\t{two}\n" for one, two in pairs))
    call = (module, "--student", make_model(layers=2), "--texts", table, "--column", "premise,hypothesis")
    code, out, error = run("transfer", *call, "--out", tmp_path / "port")
    assert code == 0, error
    found = regraft.compare(
        regraft.load(module), regraft.load(tmp_path / "port"), unfitted_texts(pairs, 32), progress=False
    )
    assert figures(out)[:2] == (found.texts, "accuracy")
    assert figures(out)[2][0] == round(found.agreement.percent, 1)
