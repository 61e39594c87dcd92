from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import DECODERS, ENCODERS, make_texts, tiny_config, unigram_tokenizer, wordpiece_tokenizer
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from regraft.distillation import losses
from regraft.distillation.masking import collator, encode, split
from regraft.distillation.options import DistillOptions
from regraft.distillation.shallower import choose_layers, load_teacher, matched_states, shallower
from regraft.distillation.students import Distilled, distill
from regraft.distillation.trainer import Distiller
from regraft.errors import ModelError, ModuleFileError, PlanError, RegraftError, SamplingError, TaskError
from regraft.files.texts import read_texts
from regraft.models.pretrained import resolve
from regraft.schema import make

FAST = DistillOptions(max_steps=12, batch_size=8, learning_rate=5e-3, save_every=5)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return make_texts(60)


@pytest.fixture(scope="session")
def make_language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Write a model of random weights with its language-model head and its tokenizer; return its directory."""
    made: dict[Any, str] = {}

    def make(model_type: str, **extra: Any) -> str:
        key = (model_type, *extra.items())
        if key not in made:
            torch.manual_seed(0)
            config = tiny_config(model_type, initializer_range=0.2, **extra)
            auto = transformers.AutoModelForCausalLM if model_type in DECODERS else AutoModelForMaskedLM
            path = tmp_path_factory.mktemp("lm") / model_type
            auto.from_config(config).save_pretrained(path)
            wordpiece_tokenizer().save_pretrained(path)
            made[key] = str(path)
        return made[key]

    return make


# Known answers


def test_divergence_by_hand() -> None:
    """At temperature 2 logits of 0 and 2 ln 3 are shares of 1/4 and 3/4; 4 (1/4 ln 1/2 + 3/4 ln 3/2)."""
    teacher = torch.tensor([[[0.0, 2 * math.log(3)]]])
    student = torch.zeros(1, 1, 2)
    expected = 4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert losses.divergence(student, teacher, 2.0).item() == pytest.approx(expected)
    assert losses.divergence(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-7)


def test_language_model_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0], [5.0, 0.0]]])
    values = losses.language_model(logits, torch.tensor([[1, 0, losses.IGNORED]]))
    torch.testing.assert_close(values, torch.tensor([[math.log(4 / 3), math.log(2), 0.0]]))


def test_cosine_by_hand() -> None:
    student = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]]])
    teacher = torch.tensor([[[0.0, 3.0], [1.0, 0.0], [-1.0, 0.0]]])
    values = losses.cosine_distance(student, teacher)
    torch.testing.assert_close(values, torch.tensor([[1.0, 1 - 1 / math.sqrt(2), 2.0]]))


def test_hidden_by_hand() -> None:
    """Two layers of width 2: squares (1, 9) and (0, 4), means 5 and 2, together 3.5."""
    student = [torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.0, 2.0]]])]
    teacher = [torch.zeros(1, 1, 2)] * 2
    assert losses.hidden_distance(student, teacher).item() == 3.5


def test_padding_never_counts() -> None:
    tokens = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[1.0, 2.0, math.nan], [6.0, math.inf, 1e9]])
    assert losses.mean_over(values, tokens).item() == 3
    assert losses.mean_over(values, torch.zeros_like(tokens)).item() == 0


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_longer_padding_changes_no_loss(
    make_language_model: Callable[..., str], model_type: str, tmp_path: Path, texts: list[str]
) -> None:
    """Also: the loss that is trained on is the weighted sum of those that are reported."""
    base = resolve(make_language_model(model_type))
    teacher, has_head = load_teacher(base)
    assert has_head
    student = shallower(teacher, base.family, (0, 2)).eval()
    trainer = Distiller(
        teacher=teacher,
        weights={"kl": 5.0, "lm": 2.0, "cosine": 1.0},
        temperature=2.0,
        matched=matched_states((0, 2), 4),
        model=student,
        args=transformers.TrainingArguments(output_dir=str(tmp_path), report_to="none"),
    )
    tokenizer = base.tokenizer()
    masked = model_type == "bert"
    encoded = encode(texts[:6], tokenizer, 64, masked)
    batch = collator(tokenizer, 0.15 if masked else None, 0)(list(encoded))
    fill = {"input_ids": 0, "attention_mask": 0, "labels": losses.IGNORED}
    longer = {name: torch.nn.functional.pad(value, (0, 5), value=fill[name]) for name, value in batch.items()}
    for name in ("lm", "kl", "cosine"):
        trainer.weights = {name: 1.0}
        with torch.no_grad():
            torch.testing.assert_close(trainer.compute_loss(student, longer), trainer.compute_loss(student, batch))
    trainer.weights = {"kl": 5.0, "lm": 2.0, "cosine": 1.0}
    _, sums, counts = trainer.prediction_step(student, batch)
    averages = dict(zip(trainer.reported, (sums.sum(0) / counts.sum(0)).tolist(), strict=True))
    weighted = 5 * averages["kl"] + 2 * averages["lm"] + averages["cosine"]
    assert trainer.compute_loss(student, batch).item() == pytest.approx(weighted, rel=1e-5)
    labels = batch["labels"] if masked else batch["input_ids"].masked_fill(~batch["attention_mask"].bool(), -100)
    own = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert averages["teacher_lm"] == pytest.approx(own.item(), rel=1e-5)


# Layers


def test_which_layers_are_taken_and_what_they_match() -> None:
    assert choose_layers(2, 6) == (0, 2, 4)
    assert choose_layers(2, 7) == (0, 2, 4, 6)
    assert choose_layers(4, 6) == (0, 4)
    assert choose_layers(9, 6) == (0,)
    assert choose_layers([1, 5], 6) == (1, 5)
    assert matched_states((0, 2, 4), 6) == (2, 4, 6)  # state 2 is what layer 2 reads, state 6 the last
    assert matched_states((1, 5), 6) == (5, 6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (1, "expected a step of 2 or more"),
        (0, "expected a step of 2 or more"),
        ([], "names no layer"),
        ([2, 1], "names 2,1, expected one or more layers in ascending order"),
        ([1, 1], "ascending order, each once"),
        ([0, 4], "names layer 4, expected 0 to 3"),
        ([-1], "names layer -1, expected 0 to 3"),
        ([0, 1, 2, 3], "all 4 layers of the teacher would be taken"),
    ],
)
def test_layers_that_make_no_student_are_refused(layers: int | list[int], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        choose_layers(layers, 4)


@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
@pytest.mark.parametrize("with_head", [True, False], ids=["head", "bare"])
def test_a_student_is_its_teacher_with_fewer_layers(
    make_model: Callable[..., str], make_language_model: Callable[..., str], model_type: str, with_head: bool
) -> None:
    base = resolve(make_language_model(model_type) if with_head else make_model(model_type))
    teacher, has_head = load_teacher(base)
    assert has_head == with_head
    student = shallower(teacher, base.family, (1, 2))
    mine, its = student.state_dict(), teacher.state_dict()
    path = f"{base.family.layers}."
    for name, tensor in mine.items():
        head, found, tail = name.rpartition(path) if path in name else ("", "", "")
        number, _, rest = tail.partition(".")
        source = f"{head}{path}{int(number) + 1}.{rest}" if found else name
        assert torch.equal(tensor, its[source]), name
    assert sum(path in name for name in mine) * 2 == sum(path in name for name in its)
    assert student.config.num_hidden_layers == 2
    # Cut after the layers that were taken, the two are one function.
    first = shallower(teacher, base.family, (0, 1)).eval()
    batch = base.tokenizer()(make_texts(2), padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        states = teacher(**batch, output_hidden_states=True).hidden_states
        torch.testing.assert_close(first(**batch, output_hidden_states=True).hidden_states[1], states[1])


@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
@pytest.mark.parametrize("with_head", [True, False], ids=["head", "bare"])
def test_distilled_students_load_and_are_nearer_to_their_teacher(
    make_model: Callable[..., str],
    make_language_model: Callable[..., str],
    model_type: str,
    with_head: bool,
    tmp_path: Path,
    texts: list[str],
) -> None:
    teacher = make_language_model(model_type) if with_head else make_model(model_type)
    out = tmp_path / "student"
    result = distill(teacher, out, texts, options=FAST, progress=False)
    assert result.layers == (0, 2)
    assert result.after["loss"] < result.before["loss"]
    names = {"loss", "kl", "lm", "cosine", "teacher_lm"} if with_head else {"loss", "cosine", "hidden"}
    assert set(result.after) == names
    autos = [AutoModel, transformers.AutoModelForTokenClassification]
    if with_head:
        autos.append(transformers.AutoModelForCausalLM if model_type in DECODERS else AutoModelForMaskedLM)
    for auto in autos:
        model, report = auto.from_pretrained(out, output_loading_info=True)
        _, expected = auto.from_pretrained(teacher, output_loading_info=True)
        assert report["missing_keys"] == expected["missing_keys"]  # a new task's head, or nothing
        assert model.config.num_hidden_layers == 2
    config, its = (transformers.AutoConfig.from_pretrained(path).to_dict() for path in (out, teacher))
    changed = {"num_hidden_layers", "n_layers", "layer_types", "dtype", "_name_or_path"}
    assert {name for name, value in its.items() if config[name] != value} <= changed
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert len(tokenizer(" ".join(texts))["input_ids"]) > FAST.max_length
    report = json.loads((out / "regraft.json").read_text())
    assert set(report["files"]) == {file.name for file in out.iterdir()}
    assert report["distillation"]["language_model"] == with_head
    assert report["distillation"]["losses"]["after"] == result.after
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve if "split" in row] == [0, 5, 10, 12]
    assert [row["step"] for row in curve if "learning_rate" in row] == [5, 10]
    assert not (tmp_path / "student.training").exists()


def test_layer_types_come_with_their_layers(make_language_model: Callable[..., str], tmp_path: Path) -> None:
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
    base = resolve(make_language_model("qwen2", **window))
    assert base.config.layer_types == ["full_attention"] * 3 + ["sliding_attention"]
    teacher, _ = load_teacher(base)
    shallower(teacher, base.family, (0, 3)).save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).config.layer_types == ["full_attention", "sliding_attention"]


# Heads and poolers


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta"])
def test_the_teachers_pooler_is_the_students(
    make_language_model: Callable[..., str], tmp_path: Path, texts: list[str], model_type: str
) -> None:
    """Masked language models have no pooler in transformers, sequence classifiers read it."""
    torch.manual_seed(1)
    config = tiny_config(model_type)
    auto = transformers.AutoModelForPreTraining if model_type == "bert" else AutoModelForMaskedLM
    whole = auto.from_config(config)
    pooler = AutoModel.from_config(config).pooler
    whole.base_model.pooler = pooler
    whole.save_pretrained(tmp_path / "teacher")
    wordpiece_tokenizer().save_pretrained(tmp_path / "teacher")
    distill(tmp_path / "teacher", tmp_path / "student", texts, options=FAST, progress=False)
    student, report = AutoModel.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(student.pooler.dense.weight, pooler.dense.weight)
    assert torch.equal(student.pooler.dense.bias, pooler.dense.bias)
    _, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"]
    if model_type == "bert":
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
        assert torch.equal(loaded.bert.pooler.dense.weight, pooler.dense.weight)
    # A checkpoint without one yields none, rather than one of random weights.
    distill(make_language_model(model_type), tmp_path / "other", texts, options=FAST, progress=False)
    assert not [name for name in load_file(tmp_path / "other" / "model.safetensors") if "pooler" in name]


def test_heads_are_found_by_what_the_checkpoint_holds(tmp_path: Path, make_model: Callable[..., str]) -> None:
    """A tied head is in the embeddings; a discriminator is no language model; a decoder's own head can be missing."""
    for name, auto, config, expected in (
        ("electra", transformers.AutoModelForPreTraining, tiny_config("electra"), False),
        ("tied", AutoModel, tiny_config("llama", tie_word_embeddings=True), True),
        ("untied", AutoModel, tiny_config("llama"), False),
        ("classifier", AutoModelForSequenceClassification, tiny_config("bert"), False),
    ):
        auto.from_config(config).save_pretrained(tmp_path / name)
        teacher, has_head = load_teacher(resolve(tmp_path / name))
        assert has_head == expected, name
        assert (teacher.base_model is teacher) != expected
    tensors = load_file(Path(make_model()) / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "classifier" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks encoder\.layer\.1\.output\.dense\.weight, expected all weights"):
        load_teacher(resolve(tmp_path / "classifier"))


# Texts and masks


def test_the_held_out_share_depends_on_the_seed(texts: list[str]) -> None:
    train, held_out = split([*texts, " "], 0)
    assert (len(train), len(held_out)) == (57, 3)
    assert sorted(train + held_out) == sorted(texts)
    assert split(texts, 0) == (train, held_out) != split(texts, 1)
    assert len(split(texts[:2], 0)[1]) == 1
    assert len(split([str(i) for i in range(30_000)], 0)[1]) == 1000


def test_masks_follow_the_batch_and_the_seed(texts: list[str]) -> None:
    tokenizer = wordpiece_tokenizer()
    rows = list(encode(texts, tokenizer, 64, masked=True))

    def labels(rows: list[dict[str, Any]], seed: int = 0) -> torch.Tensor:
        return collator(tokenizer, 0.15, seed)(rows)["labels"]

    first = collator(tokenizer, 0.15, 0)
    assert torch.equal(first(rows)["labels"], labels(rows))
    assert torch.equal(first(rows)["labels"], labels(rows))  # whatever was drawn before
    assert not torch.equal(labels(rows), labels(rows, seed=1))
    assert not torch.equal(labels(rows), labels(rows[::-1]).flip(0))
    share = (labels(rows) != losses.IGNORED).sum() / sum(len(row["input_ids"]) - 2 for row in rows)
    assert 0.1 < share < 0.2
    with pytest.raises(ModelError, match="has no mask token"):
        collator(unigram_tokenizer(), 0.15, 0)


def test_texts_are_read_from_tables_and_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local copy in the hub's layout stands for the hub."""
    monkeypatch.chdir(tmp_path)
    rows = [{"text": 'the "old river', "n": 1}, {"text": " ", "n": 2}, {"text": "a city, light", "n": 3}]
    data = Dataset.from_list(rows)
    data.to_parquet("t.parquet")
    data.to_csv("t.csv")
    Path("t.tsv").write_text("text\tn\n" + "".join(f"{row['text']}\t{row['n']}\n" for row in rows))
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("t.txt").write_text("\n".join(row["text"] for row in rows))
    (tmp_path / "org" / "name" / "data").mkdir(parents=True)
    data.to_parquet("org/name/data/train-00000-of-00001.parquet")
    for source in ("t.parquet", "t.csv", "t.tsv", "t.jsonl", "t.txt", "org/name", "org/name:default"):
        assert read_texts(source) == [rows[0]["text"], rows[2]["text"]], source
        assert read_texts(source, limit=1) == [rows[0]["text"]], source
    for source, column, message in (
        ("t.tsv", "body", r"t\.tsv, line 2: no column 'body', expected one of n, text \(--column\)"),
        ("t.parquet", "n", r"t\.parquet, row 1: 'n' holds int, expected texts"),
        ("org/name", "body", "org/name, row 1: no column 'body', expected one of n, text"),
        ("org/name:nope", "text", "cannot read texts from org/name, expected a file here or a data set"),
        ("org/other", "text", "cannot read texts from org/other, expected a file here or a data set"),
        ("none.csv", "text", r"cannot read none\.csv"),
        ("none.txt", "text", r"cannot read texts from none\.txt, expected UTF-8, one text per line"),
    ):
        with pytest.raises(RegraftError, match=message):
            read_texts(source, column)


# Runs


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    mine, its = weights(one), weights(other)
    return mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


@pytest.mark.slow
def test_the_same_seed_distills_the_same_student(
    make_language_model: Callable[..., str], tmp_path: Path, texts: list[str]
) -> None:
    teacher = make_language_model("bert")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        distill(teacher, tmp_path / name, texts, options=FAST.model_copy(update={"seed": seed}), progress=False)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


@pytest.mark.slow
def test_a_killed_distillation_goes_on_and_ends_as_if_nothing_had_happened(
    make_language_model: Callable[..., str], tmp_path: Path, texts: list[str]
) -> None:
    """Killed within an epoch: order, masks and dropout go on where they were."""
    teacher = make_language_model("bert")
    settings = FAST.model_copy(update={"max_steps": None, "epochs": 25})  # 8 steps an epoch, checkpoints every 5
    whole = distill(teacher, tmp_path / "whole", texts, options=settings, progress=False)
    out, work = tmp_path / "killed", tmp_path / "killed.training"
    options = {"options": settings, "progress": False}
    other = get_context("fork").Process(target=distill, args=(teacher, out, texts), kwargs=options)
    other.start()
    for _ in range(3000):
        if list(work.glob("checkpoint-*/regraft-checkpoint.json")):
            break
        time.sleep(0.02)
    other.kill()
    other.join()
    assert work.is_dir()
    assert not out.exists()  # a directory appears whole or not at all
    with pytest.raises(TaskError, match="unfinished training with other learning_rate"):
        distill(teacher, out, texts, options=settings.model_copy(update={"learning_rate": 1.0}), progress=False)
    with pytest.raises(TaskError, match="unfinished training with other texts"):
        distill(teacher, out, texts[1:], options=settings, progress=False)
    resumed = distill(teacher, out, texts, options=settings, progress=False)
    assert same(tmp_path / "whole", out)
    assert resumed.before == whole.before
    assert resumed.after == whole.after
    curves = [(tmp_path / name / "curve.jsonl").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert not work.exists()


def test_only_students_are_replaced(make_model: Callable[..., str], tmp_path: Path, texts: list[str]) -> None:
    teacher, out = make_model(), tmp_path / "out"
    quick = FAST.model_copy(update={"max_steps": 1})

    def again(replace: bool, layers: list[int]) -> Distilled:
        return distill(
            teacher, out, texts, options=quick.model_copy(update={"layers": layers}), replace=replace, progress=False
        )

    again(False, [0])
    with pytest.raises(ModuleFileError, match="exists; choose another name, or replace it"):
        again(False, [1])
    again(True, [1, 2])
    assert AutoModel.from_pretrained(out).config.num_hidden_layers == 2
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ModuleFileError, match=r"holds notes\.txt, which regraft did not write"):
        again(True, [1])
    with pytest.raises(ModuleFileError, match="which is read; choose another name"):
        distill(teacher, Path(teacher), texts, options=quick, replace=True, progress=False)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"precision": "bf16"}, "unknown precision 'bf16', expected one of"),
        ({"max_steps": 0}, "max_steps is 0, expected 1 or more"),
        ({"epochs": float("inf")}, "epochs is inf, expected a finite number"),
    ],
)
def test_settings_that_do_not_serve(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        make(DistillOptions, wrong, TaskError)


def test_what_does_not_serve_leaves_nothing_behind(
    make_model: Callable[..., str], tmp_path: Path, texts: list[str]
) -> None:
    teacher = make_model()
    cases: tuple[tuple[type[RegraftError], str, tuple[Any, ...], DistillOptions], ...] = (
        (SamplingError, "found 1 non-empty texts", (teacher, ["the river", " "]), FAST),
        (PlanError, "names layer 9", (teacher, texts), FAST.model_copy(update={"layers": (9,)})),
        (ModelError, "is a directory without config.json", (tmp_path, texts), FAST),
    )
    for error, message, (model, *arguments), settings in cases:
        with pytest.raises(error, match=message):
            distill(model, tmp_path / "out", *arguments, options=settings, progress=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TaskError, match="the distillation diverged"):
        distill(
            teacher, tmp_path / "out", texts, options=FAST.model_copy(update={"learning_rate": 1e30}), progress=False
        )
    assert not (tmp_path / "out").exists()


# The command


def test_the_command_prints_losses_before_and_after(
    run: Callable[..., tuple[int, str, str]], make_language_model: Callable[..., str], tmp_path: Path, texts: list[str]
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(texts))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"body": text}) for text in texts))
    sources = ("--texts", tmp_path / "a.txt", "--texts", tmp_path / "b.jsonl", "--column", "body", "--max-texts", 30)
    small = ("--max-steps", 3, "--batch-size", 8, "--quiet")
    out = tmp_path / "student"
    code, printed, error = run(
        "distill", "--teacher", make_language_model("bert"), *sources, "--out", out, "--layers", "1,3", *small
    )
    assert code == 0, error
    for name in ("held-out loss", "before", "after", "loss", "kl", "lm", "cosine", "teacher_lm", "layers 1, 3 of"):
        assert name in printed
    report = json.loads((out / "regraft.json").read_text())["distillation"]
    assert report["layers"] == [1, 3]
    assert report["texts"]["train"] + report["texts"]["held_out"] == 60
    code, printed, _ = run("distill", "--help")
    assert code == 0
    assert "distilled as DistilBERT was" in printed


def test_bad_input_to_the_command_is_one_sentence_and_exit_2(
    run: Callable[..., tuple[int, str, str]], make_model: Callable[..., str], tmp_path: Path, texts: list[str]
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(texts))
    (tmp_path / "a.jsonl").write_text(json.dumps({"body": "the river", "title": "a"}))
    teacher = ("--teacher", make_model(), "--out", tmp_path / "out")
    good = (*teacher, "--texts", tmp_path / "a.txt")
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        (
            (*teacher, "--texts", tmp_path / "a.jsonl"),
            "line 1: no column 'text', expected one of body, title",
        ),
        ((*teacher, "--texts", tmp_path / "none.txt"), "cannot read texts"),
        ((*teacher, "--texts", "org/none"), "cannot read texts from org/none"),
        ((*good, "--every", 2, "--layers", "0,2"), "got both --every and --layers"),
        ((*good, "--layers", "skip"), "expected numbers such as 0,2,4"),
        ((*good, "--layers", "0,9"), "names layer 9, expected 0 to 3"),
        ((*good, "--every", 1), "expected a step of 2 or more"),
        ((*good, "--precision", "float8"), "unknown precision 'float8', expected one of auto, bfloat16"),
    ):
        code, printed, error = run("distill", *arguments, "--quiet")
        assert code == 2
        assert printed == ""
        assert message in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.real
@pytest.mark.slow
def test_a_real_encoder_is_distilled_on_real_text(minilm: str, data: Path, tmp_path: Path) -> None:
    texts = read_texts(data / "wikineural" / "en" / "val.conllu", limit=100)
    settings = DistillOptions(max_steps=12, batch_size=8, max_length=64, save_every=12)
    result = distill(minilm, tmp_path / "student", texts, options=settings, progress=False)
    assert result.layers == (0, 2, 4)
    assert result.after["loss"] < 0.9 * result.before["loss"]
    student = AutoModel.from_pretrained(tmp_path / "student")
    assert torch.equal(student.pooler.dense.weight, AutoModel.from_pretrained(minilm).pooler.dense.weight)


@pytest.mark.parametrize("model_type", ["t5", "albert"])
def test_models_with_other_than_one_list_of_layers_are_refused(
    make_model: Callable[..., str], tmp_path: Path, model_type: str
) -> None:
    extra = {"num_hidden_groups": 1} if model_type == "albert" else {}
    with pytest.raises(ModelError, match=r"several lists of layers, or layers that share weights"):
        distill(make_model(model_type, **extra), tmp_path / "student", make_texts(20), options=FAST, progress=False)
    assert not list(tmp_path.iterdir())
