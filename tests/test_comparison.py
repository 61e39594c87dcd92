"""Two modules compared: known answers, and PEFT, transformers and sklearn as oracles."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import load_base, make_texts, of_many_answers, write_split
from sklearn.metrics import precision_recall_fscore_support

import regraft
from regraft.distillation.answers import ask
from regraft.distillation.options import AskOptions
from regraft.errors import ModuleFileError, TaskError
from regraft.models.pretrained import resolve

Make = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
NAMES = ("O", "B-PER", "I-PER")
TEXTS = make_texts(40)


def answering(directory: str) -> regraft.Module:
    return regraft.load(of_many_answers(directory, TEXTS))


def named(module: regraft.Module, *labels: str) -> regraft.Module:
    return replace(module, provenance={"labels": list(labels)})


def test_a_module_agrees_with_itself(make_model: Make, make_module: Make) -> None:
    module = named(answering(make_module(make_model(), labels=3)), *NAMES)
    found = regraft.compare(module, module, TEXTS, progress=False)
    assert (found.agreement.metric, found.agreement.percent, found.agreement.interval) == ("span F1", 100, (100, 100))
    assert found.agreement.divergence == pytest.approx(0)
    assert (found.matched, found.texts, found.cut) == ("names", 40, 0)
    assert found.head_alone.percent < 100
    assert all(one.precision == one.recall == 100 for one in found.labels if one.share)
    assert sum(one.share for one in found.labels) == pytest.approx(100)


@pytest.mark.parametrize("labels", [NAMES, ("DET", "NOUN", "VERB")])
def test_labels_are_matched_by_name(make_model: Make, make_module: Make, labels: tuple[str, ...]) -> None:
    module = answering(make_module(make_model(), labels=3))
    order = [2, 0, 1]
    tensors = {key: tensor[order] if "classifier" in key else tensor for key, tensor in module.tensors.items()}
    student = named(replace(module, tensors=tensors), *(labels[row] for row in order))
    found = regraft.compare(named(module, *labels), student, TEXTS, progress=False)
    assert (found.matched, found.agreement.percent) == ("names", 100)
    assert [one.label for one in found.labels] == list(labels)
    assert regraft.compare(module, replace(student, provenance={}), TEXTS, progress=False).agreement.percent < 100


def test_names_of_a_configuration_count_where_the_other_module_confirms_them(
    make_model: Make, make_module: Make, tmp_path: Path
) -> None:
    base = make_model()
    model = load_base(base, 3)
    for confirmed, names in ((True, NAMES[::-1]), (False, ("x", "y", "z"))):
        model.config.id2label = dict(enumerate(names))
        model.save_pretrained(tmp_path)
        transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
        teacher, student = (
            named(answering(make_module(base, labels=3)), *NAMES),
            answering(make_module(base, labels=3)),
        )
        found = regraft.compare(teacher, student, TEXTS, model=tmp_path, progress=False)
        assert found.matched == ("names" if confirmed else "positions")
        assert [one.label for one in found.labels] == list(NAMES)


@pytest.mark.parametrize(("kind", "extra"), [("lora", {}), ("lora", {"use_dora": True}), ("bottleneck", {})])
def test_the_head_alone_is_the_bare_model_with_that_head(
    make_model: Make, make_module: Make, kind: str, extra: dict[str, bool]
) -> None:
    base = make_model()
    module = regraft.load(make_module(base, kind, labels=3, **extra))
    bare = load_base(base, 3).eval()
    for name in ("weight", "bias"):
        getattr(bare.classifier, name).data = module.tensors[f"base_model.model.classifier.{name}"]
    answers = ask(resolve(base), module, TEXTS[:1], head_alone=True, progress=False)
    words = transformers.AutoTokenizer.from_pretrained(base)(
        TEXTS[0].split(), is_split_into_words=True, return_tensors="pt"
    )
    first = [words.word_ids().index(word) for word in range(len(TEXTS[0].split()))]
    with torch.no_grad():
        torch.testing.assert_close(answers.logits, bare(**words).logits[0, first])
    assert not torch.allclose(answers.logits, ask(resolve(base), module, TEXTS[:1], progress=False).logits)


def test_the_head_alone_is_what_peft_gives_with_the_adapter_at_zero(make_model: Make, make_module: Make) -> None:
    base = make_model()
    module = answering(make_module(base, labels=3))
    zeros = {key: tensor * 0 if "lora_B" in key else tensor for key, tensor in module.tensors.items()}
    silent = replace(module, tensors=zeros)
    found = regraft.compare(module, module, TEXTS, progress=False)
    expected = regraft.compare(module, silent, TEXTS, progress=False)
    assert found.head_alone == expected.agreement == expected.head_alone


def test_labels_and_calibration_are_counted_as_others_count_them(make_model: Make, make_module: Make) -> None:
    base = make_model()
    teacher = named(answering(make_module(base, labels=3)), *NAMES)
    student = regraft.load(make_module(base, "bottleneck", labels=3))
    found = regraft.compare(teacher, student, TEXTS, progress=False)
    its, mine = (ask(resolve(base), module, TEXTS, progress=False).logits for module in (teacher, student))
    right, given = its.argmax(1).numpy(), mine.argmax(1).numpy()
    precision, recall, _, support = precision_recall_fscore_support(
        right, given, labels=[0, 1, 2], zero_division=np.nan
    )
    for row, one in enumerate(found.labels):
        assert one.share == pytest.approx(100 * support[row] / len(right))
        for ours, theirs in ((one.precision, precision[row]), (one.recall, recall[row])):
            assert ours is None if np.isnan(theirs) else ours == pytest.approx(100 * theirs)
    assert found.commonest == NAMES[np.bincount(right).argmax()]
    sure = mine.softmax(1).max(1).values.numpy().astype(float)
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (sure >= low) & (sure < low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(sure[inside].mean() - (right == given)[inside].mean())
    assert found.calibration is not None
    assert found.calibration.error == pytest.approx(error, abs=1e-6)
    assert found.calibration.student == pytest.approx(sure.mean(), abs=1e-6)
    assert found.calibration.teacher == pytest.approx(float(its.softmax(1).max(1).values.mean()), abs=1e-6)


def test_the_floor_is_the_commonest_answer(make_model: Make, make_module: Make) -> None:
    """Of texts its share; of spans nothing, where it is that no span is."""
    base = make_model()
    texts = answering(make_module(base, labels=2, task_type="SEQ_CLS"))
    found = regraft.compare(texts, texts, TEXTS, progress=False)
    assert found.agreement.metric == "accuracy"
    assert found.floor == pytest.approx(max(one.share for one in found.labels))
    words = answering(make_module(base, labels=3))
    for order in (NAMES, (*NAMES[1:], NAMES[0]), (NAMES[2], *NAMES[:2])):
        if (found := regraft.compare(named(words, *order), words, TEXTS, progress=False)).commonest == "O":
            assert found.floor == 0
            break
    else:
        pytest.fail("no label is the commonest")


def test_numbers_are_compared_by_rank(make_model: Make, make_module: Make) -> None:
    module = answering(make_module(make_model(), labels=1, task_type="SEQ_CLS"))
    found = regraft.compare(module, module, TEXTS, progress=False)
    assert found.agreement.metric == "rank correlation"
    assert found.agreement.percent == pytest.approx(100)
    assert (found.commonest, found.floor, found.calibration, found.labels) == (None, 0, None, ())


def test_modules_of_two_tokenizers_are_compared_word_by_word(make_model: Make, make_module: Make) -> None:
    teacher = named(answering(make_module(make_model(), labels=3)), *NAMES)
    student = named(regraft.load(make_module(make_model(width=24, unigram=True), labels=3)), *NAMES)
    found = regraft.compare(teacher, student, TEXTS, progress=False)
    assert (found.rows, found.cut) == (sum(len(text.split()) for text in TEXTS), 0)
    short = regraft.compare(teacher, student, TEXTS, options=AskOptions(max_length=8), progress=False)
    assert 0 < short.rows < found.rows


def test_pairs_of_texts_are_answered_together(make_model: Make, make_module: Make, run: Run, tmp_path: Path) -> None:
    base = make_model()
    teacher, student = (make_module(base, kind, labels=2, task_type="SEQ_CLS") for kind in ("lora", "bottleneck"))
    pairs = list(zip(TEXTS, make_texts(40, seed=5), strict=True))
    of_many_answers(teacher, [*pairs])
    table = tmp_path / "pairs.tsv"
    table.write_text("premise\thypothesis\n" + "".join(f"{one}\t{two}\n" for one, two in pairs))
    loaded = regraft.load(teacher), regraft.load(student)
    expected = regraft.compare(*loaded, pairs, progress=False)
    single = [ask(resolve(base), loaded[1], texts, progress=False).logits for texts in (pairs, TEXTS)]
    assert not torch.allclose(*single)
    code, out, _ = run(
        "compare", teacher, student, "--texts", table, "--column", "premise,hypothesis", "--json", "--quiet"
    )
    assert code == 0
    assert json.loads(out)["agreement"]["percent"] == expected.agreement.percent


def test_the_command_prints_tables_or_one_object(
    make_model: Make, make_module: Make, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    base = make_model()
    teacher = of_many_answers(make_module(base, labels=3), TEXTS)
    student = make_module(make_model(width=24, unigram=True), labels=3)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    call = ("compare", teacher, student, "--texts", texts, "--quiet")
    code, out, err = run(*call)
    assert (code, err) == (0, "")
    for words in ("its head alone", "95% interval", "LABEL_2", "calibration error", "matched by position"):
        assert words in out
    code, found, err = run(*call, "--json")
    assert (code, err) == (0, out)
    assert found.count("\n") == 1
    record = json.loads(found)
    assert record["teacher"] == teacher
    assert record.keys() == {
        "teacher", "student", "task_type", "texts", "rows", "cut", "matched", "agreement", "head_alone", "commonest",
        "floor", "calibration", "labels", "bits_per_byte", "written",
    }  # fmt: skip
    assert record["agreement"].keys() == {"metric", "percent", "interval", "divergence", "texts", "constant"}
    assert record["calibration"].keys() == {"teacher", "student", "error"}
    assert record["labels"][0].keys() == {"label", "share", "precision", "recall"}
    code, _, err = run("compare", teacher, student)
    assert (code, "give --texts FILE" in err) == (2, True)


def test_what_cannot_be_compared_is_refused(make_model: Make, make_module: Make) -> None:
    base = make_model()
    module = answering(make_module(base, labels=3))
    other = regraft.load(make_module(base, labels=4))
    texts = answering(make_module(base, labels=3, task_type="SEQ_CLS"))
    headless = regraft.load(make_module(base))
    constant = {
        key: torch.tensor([9.0, 0, 0]) if key.endswith("classifier.bias") else tensor * 0.01
        for key, tensor in module.tensors.items()
    }
    drawn = regraft.transfer(module, make_model(layers=2), head="fresh")
    for teacher, student, given, message in (
        (named(module, *NAMES), named(module, "a", "b", "c"), TEXTS, "answers with the labels .* expected the same"),
        (module, other, TEXTS, "TOKEN_CLS with 3 labels, .* TOKEN_CLS with 4 labels, expected modules of one task"),
        (module, texts, TEXTS, "SEQ_CLS with 3 labels, expected modules of one task"),
        (headless, module, TEXTS, "unknown task type"),
        (module, drawn, TEXTS, "drawn at random by a port"),
        (replace(module, config={**module.config, "base_model_name_or_path": None}), module, TEXTS, "--teacher-model"),
        (module, replace(module, config={**module.config, "base_model_name_or_path": None}), TEXTS, r"\(--model\)"),
        (replace(module, tensors=constant), module, TEXTS, "gives one answer, LABEL_0, to all of [0-9]+ words"),
        (module, module, TEXTS[:9], "found 9 texts, expected at least 10"),
        (module, module, ["  "] * 10, "found no text that both models answer"),
    ):
        with pytest.raises((ModuleFileError, TaskError), match=message):
            regraft.compare(teacher, student, given, progress=False)


def test_evaluate_prints_one_object_too(make_model: Make, make_module: Make, run: Run, tmp_path: Path) -> None:
    write_split(tmp_path / "val.conllu", 20, 0)
    write_split(tmp_path / "test.conllu", 10, 1)
    module = make_module(make_model(), labels=9)
    call = ("evaluate", module, "--data", tmp_path, "--quiet")
    code, words, _ = run(*call)
    assert code == 0
    code, out, err = run(*call, "--json")
    assert (code, err.endswith(words)) == (0, True)
    found = json.loads(out)
    assert found.keys() == {"module", "split", "scores", "order", "constant"}
    assert f"{found['scores']['f1']:.2f}" in words
    assert found["order"]["said_by"] == "task"
