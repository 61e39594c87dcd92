"""A port that is finished on its teacher's answers: known answers, growth without effect, kills, refusals."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_peft, make_texts

import regraft
from regraft.cli.refined import limit_said
from regraft.distillation import kept_answers as kept
from regraft.distillation import refinement
from regraft.distillation.answers import Answers, ask
from regraft.distillation.kept_answers import kept_answers
from regraft.distillation.lesson import Lesson, held_out_texts
from regraft.distillation.losses import distance_of_answers
from regraft.errors import ModelError, ModuleFileError, RegraftError, SamplingError, TaskError
from regraft.models.pretrained import resolve
from regraft.training.attachment import attach

Make = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
TEXTS = make_texts(120)
# Initialised like this a tiny model is smooth enough for its answers to be learnt.
SMOOTH = {"layers": 2, "initializer_range": 0.05}
HEAD = "base_model.model.classifier.weight"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refine(module: Any, teacher: Any, texts: Any = TEXTS, *rest: Any, **options: Any) -> regraft.Module:
    options = {"steps": 30, "batch_size": 16, "progress": False, **options}
    return regraft.refine(module, teacher, texts, *rest, **options)


def of_many_answers(teacher: regraft.Module) -> regraft.Module:
    """Move the bias of a teacher's head so that no answer is its answer to everything."""
    bias = HEAD.replace("weight", "bias")
    logits = ask(resolve(teacher.base_model), teacher, TEXTS, progress=False).logits
    return replace(teacher, tensors={**teacher.tensors, bias: teacher.tensors[bias] - logits.mean(0)})


def disturbed(module: regraft.Module) -> regraft.Module:
    noise = torch.randn(module.tensors[HEAD].shape, generator=torch.Generator().manual_seed(0))
    return replace(module, tensors={**module.tensors, HEAD: module.tensors[HEAD] + noise}, source="mine")


def agreement(module: regraft.Module) -> tuple[float, float]:
    said = module.provenance["refinement"]["agreement"]
    return said["before"]["percent"], said["after"]["percent"]


def test_a_student_like_its_teacher_is_kept_as_it_is(make_model: Make, make_module: Make) -> None:
    module = regraft.load(make_module(make_model(layers=2), labels=3))
    refined = refine(module, module)
    assert agreement(refined) == (100.0, 100.0)
    assert refined.provenance["refinement"]["step"] == 0
    assert refined.hash() == module.hash()


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_a_head_that_was_disturbed_is_mended(make_model: Make, make_module: Make, kind: str) -> None:
    teacher = regraft.load(make_module(make_model(**SMOOTH), kind, labels=3))
    teacher = of_many_answers(teacher)
    refined = refine(disturbed(teacher), teacher, steps=80, learning_rate=3e-2)
    before, after = agreement(refined)
    assert before < 70
    assert after > before + 15
    assert refined.provenance["refinement"]["step"] > 0


def test_numbers_are_learnt_too(make_model: Make, make_module: Make) -> None:
    teacher = regraft.load(make_module(make_model(**SMOOTH), labels=1, task_type="SEQ_CLS"))
    refined = refine(disturbed(teacher), teacher, steps=80, learning_rate=3e-2)
    before, after = agreement(refined)
    assert refined.provenance["refinement"]["metric"] == "rank correlation"
    assert after > before + 15


def test_the_loss_is_that_of_pytorch() -> None:
    dice = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(7, 3, generator=dice), torch.randn(7, 3, generator=dice)
    texts = torch.arange(7)
    for temperature in (1.0, 2.0):
        theirs = torch.nn.functional.kl_div(
            (student / temperature).log_softmax(1), (teacher / temperature).softmax(1), reduction="batchmean"
        )
        ours = distance_of_answers(teacher, temperature)(student, teacher, texts).mean()
        torch.testing.assert_close(ours, temperature**2 * theirs)
    numbers, others = student[:, :1], teacher[:, :1]
    theirs = torch.nn.functional.mse_loss(numbers, others) / others.var()
    torch.testing.assert_close(distance_of_answers(others, 2.0)(numbers, others, texts).mean(), theirs)


@pytest.mark.slow
def test_two_tokenizers_and_pairs_of_texts(make_model: Make, make_module: Make) -> None:
    teacher = regraft.load(make_module(make_model(layers=2), labels=3))
    student = regraft.load(make_module(make_model(width=24, layers=2, unigram=True), labels=3))
    before, after = agreement(refine(student, teacher, max_length=12, learning_rate=2e-2, steps=60))
    assert after > before
    teacher = of_many_answers(regraft.load(make_module(make_model(layers=2), labels=2, task_type="SEQ_CLS")))
    pairs = list(zip(TEXTS, make_texts(120, seed=3), strict=True))
    assert refine(teacher, teacher, pairs).provenance["refinement"]["step"] == 0


def test_texts_are_drawn_each_once_before_any_again_in_batches_of_like_length() -> None:
    answers = Answers(torch.zeros(1, 2), np.zeros(1, int), np.zeros(1, int), (), "SEQ_CLS")
    held_out = held_out_texts(1000, seed=0)
    assert len(held_out) == 100
    assert held_out.tolist() == sorted({*held_out.tolist()})
    lesson = Lesson(make_texts(1000), answers, held_out, max_length=256, batch_size=10)
    order = lesson.drawn(180, seed=0)
    assert sorted(order[:900]) == sorted(order[900:]) == lesson.learnt.tolist()
    assert not {*order} & {*held_out.tolist()}
    assert order == lesson.drawn(180, seed=0) != lesson.drawn(180, seed=1)
    lengths = np.array([len(lesson.texts[number]) for number in order]).reshape(180, 10)
    assert lengths.std(1).mean() < lengths.std() / 4
    assert (np.diff(lengths.mean(1)) > 0).any()  # short batches and long ones take turns
    assert (np.diff(lengths.mean(1)) < 0).any()
    few = replace(lesson, texts=make_texts(60), held_out=held_out_texts(60, 0))
    assert sorted(few.drawn(8, seed=0)) == sorted([*few.learnt.tolist()] * 2)
    assert [len({*few.drawn(8, seed=0)[start : start + 10]}) for start in range(0, 80, 10)] == [10] * 8


def test_what_was_grown_is_trained(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(**SMOOTH)
    teacher = regraft.load(make_module(base, labels=3))
    refined = refine(
        disturbed(teacher), teacher, TEXTS, tmp_path / "out", grow="all-linear", rank=8, learning_rate=3e-2
    )
    written = {key: tensor for key, tensor in refined.tensors.items() if "lora_B" in key}
    assert len(written) == 2 * 6
    assert all(tensor.shape[1] == 8 and (tensor != 0).any(0).all() for tensor in written.values())
    load_peft(base, tmp_path / "out", labels=3)


# The teacher's answers are kept


def test_answers_that_are_kept_need_no_teacher(
    make_model: Make, make_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(make_model(layers=2), base)
    module = regraft.load(make_module(str(base), labels=3))
    first = kept_answers(module, TEXTS, progress=False)
    plain = ask(resolve(str(base)), module, TEXTS, progress=False)
    torch.testing.assert_close(first.logits, plain.logits.half().float(), rtol=0, atol=0)
    assert np.array_equal(first.word, plain.word)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the teacher ran")

    with monkeypatch.context() as patch:
        patch.setattr(kept, "ask", never)
        assert torch.equal(kept_answers(module, TEXTS, progress=False).logits, first.logits)
        for other, texts, length in ((module, TEXTS[:50], 256), (module, TEXTS, 9), (louder(module), TEXTS, 256)):
            with pytest.raises(AssertionError, match="the teacher ran"):
                kept_answers(other, texts, max_length=length, progress=False)
        shutil.rmtree(base)
        assert torch.equal(kept_answers(module, TEXTS, progress=False).logits, first.logits)
    with pytest.raises(ModelError):
        kept_answers(module, TEXTS[:50], progress=False)


def louder(module: regraft.Module) -> regraft.Module:
    """The same tensors with another alpha: other answers."""
    return replace(module, config={**module.config, "lora_alpha": 2 * module.config["lora_alpha"]})


def test_answers_of_other_base_weights_are_not_taken(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    bases = [make_model(layers=2, seed=seed) for seed in (0, 1)]
    module = regraft.load(make_module(bases[0], labels=3))
    first, other = (kept_answers(module, TEXTS, tmp_path, model=base, progress=False) for base in bases)
    assert not torch.equal(first.logits, other.logits)
    again = kept_answers(module, TEXTS, tmp_path, model=bases[0], progress=False)
    assert torch.equal(first.logits, again.logits)


@pytest.mark.parametrize("file", ["answers.safetensors", "regraft.json"])
def test_damaged_answers_are_noticed(make_model: Make, make_module: Make, tmp_path: Path, file: str) -> None:
    module = regraft.load(make_module(make_model(layers=2), labels=3))
    first = kept_answers(module, TEXTS, tmp_path, progress=False)
    (path,) = tmp_path.glob(f"*/{file}")
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content if file.endswith("safetensors") else content[:-9])
    with pytest.warns(UserWarning, match="are damaged"):
        assert torch.equal(kept_answers(module, TEXTS, tmp_path, progress=False).logits, first.logits)
    assert torch.equal(kept_answers(module, TEXTS, tmp_path, progress=False).logits, first.logits)


# A kill


@pytest.mark.slow
@pytest.mark.parametrize("steps", [40, "auto"])
def test_a_killed_refinement_ends_as_if_nothing_had_happened(
    make_model: Make, make_module: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int | str
) -> None:
    for between in ("_AUTO_BETWEEN", "_BETWEEN"):
        monkeypatch.setattr(refinement, between, 5)
    teacher = regraft.load(make_module(make_model(layers=2), labels=3))
    student = regraft.load(make_module(make_model(width=24, layers=2), labels=3, lora_dropout=0.1))
    whole = refine(student, teacher, TEXTS, tmp_path / "whole", steps=steps)
    out, work = tmp_path / "killed", tmp_path / "killed.training"
    other = get_context("fork").Process(target=refine, args=(student, teacher, TEXTS, out), kwargs={"steps": steps})
    other.start()
    for _ in range(3000):
        if list(work.glob("checkpoint-*/regraft-checkpoint.json")):
            break
        time.sleep(0.01)
    other.kill()
    other.join()
    assert work.is_dir()
    assert not out.exists()
    with pytest.raises(TaskError, match="unfinished training with other temperature"):
        refine(student, teacher, TEXTS, out, steps=steps, temperature=2)
    resumed = refine(student, teacher, TEXTS, out, steps=steps)
    assert resumed.hash() == whole.hash()
    curves = [(tmp_path / name / "curve.jsonl").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert not work.exists()
    taken = whole.provenance["refinement"]["steps_taken"]
    assert taken == 40 if steps == 40 else taken < refinement._AUTO_END  # which ended by itself


def test_auto_ends_where_nothing_is_gained(
    make_model: Make, make_module: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(refinement, "_AUTO_BETWEEN", 4)
    module = regraft.load(make_module(make_model(layers=2), labels=3))
    refined = refine(module, module, TEXTS, tmp_path / "out", steps="auto")
    assert refined.provenance["refinement"]["steps_taken"] == 12  # three looks, none above the 100 of the start
    curve = [json.loads(line) for line in (tmp_path / "out" / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve if "agreement" in row] == [0, 4, 8, 12]


# Refusals


def test_what_cannot_be_refined_is_refused_in_a_sentence(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    teacher = regraft.load(make_module(base, labels=3))
    named = replace(teacher, provenance={"labels": ["O", "B-PER", "I-PER"]}, source="mine")
    others = replace(teacher, provenance={"labels": ["O", "B-LOC", "I-LOC"]}, source="other")
    constant = {**teacher.tensors, HEAD: torch.zeros(3, 32), HEAD.replace("weight", "bias"): torch.tensor([0.0, 1, 0])}
    drawn = regraft.transfer(teacher, base, head="fresh")
    saying_one, alone = (replace(named, tensors=tensors) for tensors in (constant, teacher.tensors))
    five, texts_alone = make_module(base, labels=5), make_module(base, labels=3, task_type="SEQ_CLS")
    bare = regraft.load(make_module(base))
    lists = "mine has the labels O, B-PER, I-PER, its teacher other O, B-LOC, I-LOC"
    refusals: list[tuple[type[RegraftError], str, Any, dict[str, Any]]] = [
        (SamplingError, "found 39 texts.*40 at the very least: 20 are held out", teacher, {"texts": TEXTS[:39] * 2}),
        (TaskError, "gives one answer .B-PER. to all of the 120 texts", saying_one, {}),
        (ModuleFileError, lists, others, {}),
        (ModuleFileError, "drawn at random by a port", drawn, {}),
        (ModuleFileError, "task type", bare, {}),
        (ModuleFileError, "a head of 3 labels, its teacher .* one of 5", five, {}),
        (ModuleFileError, "expected the same", texts_alone, {}),
        (TaskError, "steps: found 'some', expected a number of steps", alone, {"steps": "some"}),
        (TaskError, "unknown key 'stepz'", alone, {"stepz": 3}),
        (TaskError, "unknown site 'valeu', expected one of .*did you mean 'value'", alone, {"grow": "valeu"}),
        (TaskError, "mine has rank 4 already, expected --rank 4 or more, not 2", alone, {"rank": 2}),
    ]
    for number, (error, message, teaches, options) in enumerate(refusals):
        with pytest.raises(error, match=message):
            refine(named, teaches, options.pop("texts", TEXTS), tmp_path / f"{number}", **options)
        assert not (tmp_path / f"{number}").exists()


def test_a_training_that_diverged_is_told(make_model: Make, make_module: Make) -> None:
    base = resolve(make_model(layers=2))
    module = regraft.load(make_module(base.name, labels=3))
    lesson = Lesson(TEXTS, ask(base, module, TEXTS, progress=False), held_out_texts(120, 0), 256, 32)
    model = attach(base, module, lesson.task)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).fill_(torch.nan)
    with pytest.raises(TaskError, match="diverged"):
        lesson.agreement(model, base)


def test_models_that_answer_no_word_in_common_are_told(make_model: Make, make_module: Make) -> None:
    base = resolve(make_model(layers=2))
    module = regraft.load(make_module(base.name, labels=3))
    answers = ask(base, module, TEXTS, progress=False)
    lesson = Lesson(TEXTS, replace(answers, word=answers.word + 1000), held_out_texts(120, 0), 256, 32)
    with pytest.raises(TaskError, match="found no text that both models answer"):
        lesson.agreement(attach(base, module, lesson.task), base)


def test_labels_in_another_order_are_matched_by_name(make_model: Make, make_module: Make) -> None:
    names = ["O", "B-PER", "I-PER"]
    plain = regraft.load(make_module(make_model(layers=2), labels=3))
    teacher = replace(plain, provenance={"labels": names})
    turned = regraft.transfer(teacher, make_model(layers=2), labels=[names[2], names[0], names[1]])
    refined = refine(turned, teacher)
    assert agreement(refined) == (100.0, 100.0)
    assert refined.labels == ("I-PER", "O", "B-PER")
    # A teacher that names none: the port was told.
    turned = regraft.transfer(plain, make_model(layers=2), labels=[names[2], *names[:2]], teacher_labels=names)
    assert agreement(refine(turned, plain)) == (100.0, 100.0)


def test_what_was_refined_is_a_module_as_any_other(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    student = make_model(width=24, layers=2)
    teacher = regraft.load(make_module(make_model(layers=2), labels=3))
    drawn = regraft.transfer(teacher, student, align="copy", head="fresh")
    refined = refine(drawn, teacher, TEXTS, tmp_path / "out")
    assert not refined.head_is_random
    loaded = regraft.load(tmp_path / "out")
    assert loaded.hash() == refined.hash()
    assert loaded.report["align"] == "copy"
    load_peft(student, tmp_path / "out", labels=3)
    assert "Refined" in (tmp_path / "out" / "README.md").read_text()
    ported = regraft.transfer(loaded, student)  # a head that was drawn at random and has learnt since may move on
    assert ported.report["head"] == "teacher"


# The command line


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "the texts.jsonl"
    file.write_text("\n".join(json.dumps({"sentence": text}) for text in TEXTS))
    return file


def test_transfer_with_refine_is_transfer_and_refine(
    make_model: Make, make_module: Make, tmp_path: Path, texts: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, student = make_model(**SMOOTH), make_model(seed=1, **SMOOTH)
    teacher = tmp_path / "teacher"
    of_many_answers(regraft.load(make_module(base, labels=3))).save(teacher)
    read = ("--texts", texts, "--column", "sentence", "--max-length", 60, "--seed", 3)
    ported = ("transfer", teacher, "--teacher", base, "--student", student, *read, "--out")
    code, said, hint = run(*ported, tmp_path / "once", "--refine", 12)
    assert code == 0, hint
    assert "agreement with the teacher" in said
    assert run(*ported, tmp_path / "port")[0] == 0
    where = ("--teacher", teacher, *read, "--steps", 12, "--out", tmp_path / "twice")
    code, _, error = run("refine", tmp_path / "port", *where)
    assert code == 0, error
    once, twice = (regraft.load(tmp_path / name) for name in ("once", "twice"))
    assert once.hash() == twice.hash() != regraft.load(tmp_path / "port").hash()
    texts_of = [module.provenance["refinement"]["texts"] for module in (once, twice)]
    assert texts_of[0] == texts_of[1]

    # The command that goes on from there runs as it is printed, and the teacher is not asked again.
    last = hint.strip().splitlines()[-1]
    assert last.startswith("To go on with other settings (--grow, --data, --learning-rate): regraft refine ")
    monkeypatch.setattr(kept, "ask", None)
    command = shlex.split(last.partition(": regraft ")[2])
    code, _, error = run(*command, "--steps", 2, "--grow", "all-linear")
    assert code == 0, error
    further = regraft.load(tmp_path / "once-again").provenance["refinement"]
    assert (further["start"], further["texts"], further["seed"]) == (str(tmp_path / "once"), texts_of[0], 3)


def test_bad_calls_from_the_command_line(
    make_model: Make, make_module: Make, tmp_path: Path, texts: Path, run: Run
) -> None:
    teacher, student = make_module(make_model(layers=2), labels=3), make_model(width=24, layers=2)
    port, read = ("transfer", teacher, "--student", student), ("--texts", texts, "--column", "sentence")
    out, start = ("--out", tmp_path / "x"), ("refine", teacher, "--teacher", teacher)
    no_steps = "--steps: found '0', expected a number of steps, 1 or more, or auto"
    for call, message in (
        ((*start, *out), "give --texts FILE"),
        ((*port, "--refine", 9, *out), "give --texts FILE"),
        ((*start, *read, "--steps", 0, *out), no_steps),
        ((*port, *read, "--refine", 0, *out), "found '0', expected a number of steps"),
    ):
        code, _, error = run(*call)
        assert (code, message in error) == (2, True)
        assert not (tmp_path / "x").exists()


def test_refine_prints_one_object(make_model: Make, make_module: Make, tmp_path: Path, texts: Path, run: Run) -> None:
    module = make_module(make_model(layers=2), labels=3)
    call = ("refine", module, "--teacher", module, "--texts", texts, "--column", "sentence", "--steps", 2)
    code, out, error = run(*call, "--out", tmp_path / "refined", "--json")
    assert code == 0, error
    said = json.loads(out)
    assert said["agreement"]["after"]["percent"] == said["agreement"]["learnt"]["percent"] == 100


# What limits it


def test_agreement_is_told_of_learnt_texts_too(make_model: Make, make_module: Make) -> None:
    """As `compare` finds it on these texts."""
    teacher = of_many_answers(regraft.load(make_module(make_model(**SMOOTH), labels=3)))
    refined = refine(disturbed(teacher), teacher, steps=20)
    learnt = [text for number, text in enumerate(TEXTS) if number not in held_out_texts(120, 0)]
    some = [learnt[round(number)] for number in np.linspace(0, 99, 20).astype(int)]
    found = regraft.compare(teacher, refined, some, progress=False).agreement
    said = refined.provenance["refinement"]["agreement"]["learnt"]
    assert said["percent"] == pytest.approx(found.percent, abs=0.5)  # what was kept is rounded
    assert said["divergence"] == pytest.approx(found.divergence, rel=1e-2)


@pytest.mark.parametrize(
    ("learnt", "held_out", "report", "said"),
    [
        (70.0, 68.0, {}, "it has not learnt from those it has: more --steps would help, or a larger module"),
        (60.0, 68.0, {}, "more --steps would help"),
        (70.0, 68.0, {"step": 100}, "no more steps, but a larger module (--grow, --rank), before more texts"),
        (70.0, 68.0, {"step": 120}, "more --steps would help"),
        (70.0, 68.0, {"steps": "auto", "step": 150}, "no more steps, but a larger module"),
        (70.0, 68.0, {"steps": "auto"}, "more --steps would help"),  # it ended at the most that auto takes
        (98.0, 80.0, {}, "is on texts that it has not seen: more texts would help before more steps"),
        (98.0, 80.0, {"steps": "auto", "step": 50}, "more texts would help"),
        (94.0, 86.0, {}, "; 20 held-out texts are too few to tell whether more texts would help or more steps"),
        (88.0, 85.0, {}, "; 20 held-out texts are too few"),  # of 15, from none to 13 may be missing besides
        (83.0, 82.0, {}, "more --steps would help"),
        (100.0, 95.0, {}, ""),  # nothing may be missing
        (None, 68.0, {}, ""),
    ],
)
def test_what_limits_a_refinement_is_said(
    learnt: float | None, held_out: float, report: dict[str, Any], said: str
) -> None:
    agreement = {
        name: {"percent": percent, "interval": [percent - 5, percent + 5]}
        for name, percent in (("learnt", learnt), ("after", held_out))
        if percent is not None
    }
    steps = {"steps": 200, "step": 200, "steps_taken": 200, **report}
    found = limit_said({"agreement": agreement, "texts": {"held_out": 20}, **steps})
    assert said in found
    assert bool(said) == bool(found)
    assert not said or f"gives {learnt:.1f} of the teacher's answers" in found
