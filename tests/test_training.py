from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from conftest import load_peft, write_split
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, set_seed

import regraft
from regraft.errors import ModuleFileError, TaskError
from regraft.models.pretrained import resolve
from regraft.schema import make
from regraft.tasks.data import load_task
from regraft.tasks.options import DataOptions
from regraft.tasks.records import TASKS
from regraft.training.attachment import attach, keeps_head, with_head
from regraft.training.checkpoints import last_checkpoint
from regraft.training.evaluation import evaluate
from regraft.training.finetuning import train
from regraft.training.fresh import fresh_config
from regraft.training.options import TrainOptions, preset
from regraft.training.tracking import check_trackers

NER = TASKS["ner"]
FAST = TrainOptions(epochs=2, batch_size=8, learning_rate=5e-3, rank=4, bottleneck_size=6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_train_port_train_again_and_evaluate(
    ner_folder: Path, make_model: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    teacher = make_model(layers=4, initializer_range=0.05)
    student = make_model("distilbert", layers=2)
    longer = FAST.model_copy(update={"epochs": 8, "learning_rate": 2e-2})
    trained = train(
        teacher, tmp_path / "teacher", peft=kind, data=DataOptions(data=ner_folder), options=longer, progress=False
    )
    scores = trained.provenance["training"]["scores"]
    assert scores["test"]["f1"] > scores["before training"]["f1"] + 20
    assert not (tmp_path / "teacher.training").exists()
    curve = [json.loads(line) for line in (tmp_path / "teacher" / "curve.jsonl").read_text().splitlines()]
    validated = [row for row in curve if "f1" in row]
    assert [row["epoch"] for row in validated] == list(range(9))
    assert validated[0]["step"] == 0
    assert max(row["f1"] for row in validated[1:]) == scores["validation"]["f1"]

    again = evaluate(tmp_path / "teacher", data=DataOptions(data=ner_folder), progress=False)
    assert again == pytest.approx(scores["test"])
    load_peft(teacher, tmp_path / "teacher", labels=len(NER.labels))

    regraft.transfer(regraft.load(tmp_path / "teacher"), student, align="none").save(tmp_path / "ported")
    result = train(
        student,
        tmp_path / "student",
        init=tmp_path / "ported",
        data=DataOptions(data=ner_folder),
        options=longer,
        progress=False,
    )
    assert result.peft_type == trained.peft_type
    assert result.labels == NER.labels
    assert result.report["teacher"] == teacher
    assert result.provenance["training"]["step"] > 0
    key = next(key for key in result.tensors if key.endswith(("lora_A.weight", "bottleneck_down.weight")))
    assert not torch.equal(result.tensors[key], regraft.load(tmp_path / "ported").tensors[key])


def test_fresh_heads_follow_the_seed_of_the_training(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    """All starts of one seed share the head, so that they can be compared."""
    base = resolve(make_model(layers=2))
    module = regraft.load(make_module(base.name, "lora", labels=len(NER.labels)))
    ported = regraft.transfer(module, base, head="fresh")
    assert ported.head_is_random

    def head(seed: int, start: regraft.Module | None) -> torch.Tensor:
        set_seed(seed)
        if start is None:
            model = get_peft_model(with_head(base, NER), fresh_config(base, NER, "lora", FAST))
        else:
            model = attach(base, start, NER, fresh_head=True)
        return model.base_model.model.classifier.modules_to_save["default"].weight

    assert torch.equal(head(0, ported), head(0, None))
    assert not torch.equal(head(0, ported), head(1, ported))
    attached = attach(base, module, NER)
    kept = attached.base_model.model.classifier.modules_to_save["default"].weight
    assert torch.equal(kept, module.tensors["base_model.model.classifier.weight"])


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma3_text"])
def test_a_fresh_lora_on_all_linear_layers_is_where_peft_puts_one(
    make_model: Callable[..., str], model_type: str
) -> None:
    base, size = resolve(make_model(model_type, layers=2)), FAST.model_copy(update={"sites": ("all-linear",)})

    def adapted(config: PeftConfig) -> set[str]:
        layers = get_peft_model(AutoModelForCausalLM.from_config(base.config), config).named_modules()
        return {name for name, layer in layers if isinstance(layer, LoraLayer)}

    ours = fresh_config(base, TASKS["lm"], "lora", size)
    assert adapted(ours) == adapted(LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    some = adapted(fresh_config(base, TASKS["lm"], "lora", size.model_copy(update={"sites": ("ff_down",)})))
    assert len(some) == 2
    assert some < adapted(ours)


def test_sites_of_a_fresh_lora_have_one_place_each(make_model: Callable[..., str]) -> None:
    base = resolve(make_model(layers=2))
    # BERT has an "output.dense" within the attention too, as PEFT matches ends of names.
    config = fresh_config(base, NER, "lora", FAST.model_copy(update={"sites": ("ff_down",)}))
    layers = get_peft_model(with_head(base, NER), config).named_modules()
    assert [name for name, layer in layers if isinstance(layer, LoraLayer)] == [
        f"base_model.model.bert.encoder.layer.{layer}.output.dense" for layer in (0, 1)
    ]
    for site in ("output_norm", "ff_dwon"):
        with pytest.raises(TaskError, match=rf"unknown site '{site}', expected one of all-linear, .*\(--sites\)"):
            fresh_config(base, NER, "lora", FAST.model_copy(update={"sites": (site,)}))


def test_a_start_keeps_its_head_where_label_names_are_known_and_agree(
    ner_folder: Path, make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    plain = regraft.load(make_module(base, "lora", labels=len(NER.labels)))
    named = regraft.Module(plain.config, plain.tensors, "named", {"labels": list(reversed(NER.labels))})
    other = regraft.Module(plain.config, plain.tensors, "other", {"labels": [*"abcdefghi"]})
    ner = load_task(NER, ner_folder)
    assert keeps_head(named, ner, None)
    assert keeps_head(regraft.transfer(named, base), ner, None)
    assert not keeps_head(named, ner, "fresh")
    assert keeps_head(plain, ner, None)  # nobody knows the order of its labels, but there are as many
    fewer = regraft.load(make_module(base, "lora", labels=3))
    assert not keeps_head(fewer, ner, None)
    assert keeps_head(plain, ner, "teacher")
    assert not keeps_head(other, ner, None)
    assert not keeps_head(None, ner, None)
    assert keeps_head(named, replace(ner, labels_from="data", task=replace(NER, labels=("O", "B-PER"))), None)
    with pytest.raises(ModuleFileError, match=r"other was trained on labels a, b, c.*use --head fresh"):
        keeps_head(other, ner, "teacher")
    with pytest.raises(ModuleFileError, match="expected --init beside --head teacher"):
        keeps_head(None, ner, "teacher")
    drawn = regraft.transfer(named, base, head="fresh")
    again = regraft.transfer(drawn, base)  # a head that was drawn at random does not become a teacher's by moving on
    assert again.report["head"] == "fresh"
    for module in (drawn, again):
        with pytest.raises(ModuleFileError, match="drawn at random by a port"):
            keeps_head(module, ner, "teacher")


@pytest.mark.slow
def test_labels_in_another_order_score_the_same(
    ner_folder: Path, make_model: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2, initializer_range=0.05)
    longer = FAST.model_copy(update={"epochs": 8, "learning_rate": 2e-2})
    trained = train(base, tmp_path / "trained", data=DataOptions(data=ner_folder), options=longer, progress=False)
    turned = regraft.transfer(trained, base, labels=list(reversed(NER.labels)))
    turned.save(tmp_path / "turned")
    assert turned.hash() != trained.hash()
    scores = [
        evaluate(tmp_path / name, data=DataOptions(data=ner_folder), progress=False) for name in ("trained", "turned")
    ]
    assert scores[0] == scores[1]
    assert scores[0]["f1"] > 10
    # The first evaluation of a training that starts there sees the same head.
    again = train(
        base,
        tmp_path / "again",
        init=tmp_path / "turned",
        data=DataOptions(data=ner_folder),
        options=FAST,
        progress=False,
    )
    assert again.labels == tuple(reversed(NER.labels))
    before = again.provenance["training"]["scores"]["before training"]
    assert before == pytest.approx(trained.provenance["training"]["scores"]["validation"])


def test_a_module_moves_to_another_label_set_with_a_fresh_head(
    ner_folder: Path, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    module = make_module(base, "lora", labels=3)
    with pytest.raises(ModuleFileError, match="has a head of 3 labels, the task has 9"):
        train(
            base,
            tmp_path / "x",
            init=module,
            data=DataOptions(data=ner_folder),
            options=FAST.model_copy(update={"head": "teacher"}),
            progress=False,
        )
    moved = train(
        base, tmp_path / "moved", init=module, data=DataOptions(data=ner_folder), options=FAST, progress=False
    )
    assert moved.tensors["base_model.model.classifier.weight"].shape == (9, 32)


def test_the_papers_preset_and_what_overrides_it() -> None:
    paper = preset("paper", TASKS["pi"])
    assert (paper.epochs, paper.batch_size, paper.learning_rate, paper.head) == (30, 64, 1e-5, "fresh")
    assert (paper.rank, paper.alpha, paper.bottleneck_size) == (8, 8, 96)
    assert preset("paper", NER).epochs == preset("paper", TASKS["nli"]).epochs == 10
    assert TrainOptions(learning_rate=3e-4).over(preset("paper", NER)) == preset("paper", NER).model_copy(
        update={"learning_rate": 3e-4}
    )
    assert preset("fast", NER) == TrainOptions()
    with pytest.raises(TaskError, match="unknown preset 'papr', expected one of fast, paper; did you mean 'paper'"):
        preset("papr", NER)
    with pytest.raises(TaskError, match="unknown precision 'bf16'"):
        make(TrainOptions, {"precision": "bf16"}, TaskError)


def test_the_same_seed_trains_the_same_module(ner_folder: Path, make_model: Callable[..., str], tmp_path: Path) -> None:
    base = make_model(layers=2)
    hashes = [
        train(
            base,
            tmp_path / name,
            data=DataOptions(data=ner_folder),
            options=FAST.model_copy(update={"seed": seed}),
            progress=False,
        ).hash()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    ner_folder: Path, make_model: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    settings = FAST.model_copy(update={"epochs": 12})
    whole = train(base, tmp_path / "whole", data=DataOptions(data=ner_folder), options=settings, progress=False)
    out, work = tmp_path / "killed", tmp_path / "killed.training"
    options = {"data": DataOptions(data=ner_folder), "options": settings, "progress": False}
    other = get_context("fork").Process(target=train, args=(base, out), kwargs=options)
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
        train(
            base,
            out,
            data=DataOptions(data=ner_folder),
            options=settings.model_copy(update={"learning_rate": 1.0}),
            progress=False,
        )
    write_split(tmp_path / "val.conllu", 80, seed=7)
    write_split(tmp_path / "test.conllu", 30, seed=1)
    with pytest.raises(TaskError, match="unfinished training with other data, data_hash"):
        train(base, out, data=DataOptions(data=tmp_path), options=settings, progress=False)
    resumed = train(base, out, data=DataOptions(data=ner_folder), options=settings, progress=False)
    assert resumed.hash() == whole.hash()
    curves = [(tmp_path / name / "curve.jsonl").read_text() for name in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert not work.exists()


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    for step, file in ((9, "regraft-checkpoint.json"), (20, "regraft-checkpoint.json"), (100, "trainer_state.json")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / file).write_text("{}")
    (tmp_path / "checkpoint-200").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")


def test_modules_that_do_not_fit_the_task_are_refused(
    ner_folder: Path, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    three = make_module(base, "lora", labels=3)
    with pytest.raises(ModuleFileError, match="has a head of 3 labels, the task has 9"):
        evaluate(Path(three), data=DataOptions(data=ner_folder), progress=False)
    nine = regraft.load(make_module(base, "lora", labels=9))
    regraft.Module(nine.config, nine.tensors, "nine", {"labels": [*"abcdefghi"]}).save(tmp_path / "nine")
    with pytest.raises(ModuleFileError, match="was trained on labels a, b, c"):
        evaluate(tmp_path / "nine", data=DataOptions(data=ner_folder), progress=False)
    with pytest.raises(TaskError, match="unknown task 'nre', expected one of classification, lm, ner, nli, pi; did"):
        make(DataOptions, {"task": "nre"}, TaskError)
    with pytest.raises(TaskError, match="unknown PEFT method 'lra'"):
        train(base, tmp_path / "x", peft="lra", data=DataOptions(data=ner_folder))
    with pytest.raises(TaskError, match="has no output LayerNorm for a bottleneck; use lora"):
        train(make_model("llama", layers=2), tmp_path / "x", peft="bottleneck", data=DataOptions(data=ner_folder))
    with pytest.raises(TaskError, match="unknown split 'tset'"):
        evaluate(Path(three), data=DataOptions(data=ner_folder), split="tset")


def test_checkpoints_never_replace_what_is_not_theirs(
    ner_folder: Path, make_model: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "notes.txt").write_text("mine")
    with pytest.raises(TaskError, match="holds something else"):
        train(make_model(layers=2), tmp_path / "out", data=DataOptions(data=ner_folder), options=FAST, replace=True)
    assert (tmp_path / "out.training" / "notes.txt").exists()


def test_bad_data_leaves_nothing_behind(make_model: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(TaskError):
        train(make_model(layers=2), tmp_path / "out", data=DataOptions(data=tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_starts_that_do_not_fit_the_model_are_refused(
    ner_folder: Path, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    """PEFT would load what fits, leave the rest at random, and call it a start."""
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    deeper = make_module(teacher, "lora", labels=9)
    bare = make_module(student, "lora")
    for init, model, message in (
        (deeper, student, r"does not fit .* \(8 tensors are missing, unexpected or of another shape.*port it"),
        (deeper, make_model(width=48, layers=4), r"does not fit .* \(17 tensors"),
        (deeper, make_model("distilbert", layers=4), "does not fit"),
        (bare, student, "has task type None, expected TOKEN_CLS"),
    ):
        with pytest.raises(ModuleFileError, match=message):
            train(
                model,
                tmp_path / "out",
                init=Path(init),
                data=DataOptions(data=ner_folder),
                options=FAST,
                progress=False,
            )
        with pytest.raises(ModuleFileError, match=message):
            evaluate(Path(init), model, data=DataOptions(data=ner_folder), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_is_not_there_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.training.tracking.find_spec", lambda _: None)
    with pytest.raises(
        TaskError, match=r"trackio is not installed; install it with: pip install 'regraft\[tracking\]'$"
    ):
        check_trackers(["trackio"])
