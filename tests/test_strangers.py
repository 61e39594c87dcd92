"""Modules as people have them, trained with PEFT alone: what PEFT loads of them is what is ported."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import load_base, make_texts
from peft import LoraConfig, PeftModel, get_peft_model

import regraft
from regraft.errors import ModuleFileError, PlanError


def with_config(module: str, path: Path, **changes: object) -> str:
    """Copy a module, with other fields in its configuration."""
    shutil.copytree(module, path)
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return str(path)


def loads_whole(model: object, ported: regraft.Module, path: Path) -> bool:
    """Whether PEFT finds every key of a model's module, and knows what to do with all there are."""
    ported.save(path)
    loading = PeftModel.from_pretrained(model, path).load_adapter(path, "again")
    missing = [key for key in loading.missing_keys if "lora_" in key or "classifier" in key or "score" in key]
    return not missing and not loading.unexpected_keys


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra", "llama"])
@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"])
def test_a_head_that_the_configuration_does_not_name_is_ported(
    model_type: str,
    task_type: str,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
) -> None:
    base = make_model(model_type, layers=2)
    labels = 2 if task_type == "QUESTION_ANS" else 3
    named = make_module(base, "lora", labels=labels, task_type=task_type)
    module = regraft.load(with_config(named, tmp_path / "module", modules_to_save=None))
    ported = regraft.transfer(module, base)
    assert ported.report["head"] == "teacher"
    assert not ported.report["left"]
    assert ported.tensors.keys() == module.tensors.keys()
    assert all(torch.equal(ported.tensors[key], tensor) for key, tensor in module.tensors.items())
    assert loads_whole(load_base(base, labels, task_type), ported, tmp_path / "ported")


@pytest.mark.parametrize(
    ("model_type", "auto", "noted"),
    [
        ("bert", "AutoModel", None),
        ("bert", "AutoModelForMaskedLM", None),
        ("bert", "AutoModelForCausalLM", "BertLMHeadModel"),
        ("bert", "AutoModelForMaskedLM", "PeftModel"),
        ("llama", "AutoModel", None),
        ("llama", "AutoModelForCausalLM", None),
        ("llama", "AutoModelForCausalLM", "PeftModel"),
    ],
)
def test_the_keys_tell_a_class_that_nothing_else_tells(
    model_type: str,
    auto: str,
    noted: str | None,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
) -> None:
    base = make_model(model_type, layers=2)
    model = getattr(transformers, auto).from_pretrained(base)
    # As if it had been trained on that class: its keys have that class's prefix.
    bare = regraft.load(make_module(base, "lora"))
    prefix = "" if auto == "AutoModel" else f"{model.base_model_prefix}."
    tensors = {key.replace("base_model.model.", f"base_model.model.{prefix}", 1): t for key, t in bare.tensors.items()}
    mapping = noted and {"base_model_class": noted, "parent_library": "transformers"}
    module = regraft.Module({**bare.config, "task_type": None, "auto_mapping": mapping}, tensors, "module")
    ported = regraft.transfer(module, base)
    assert ported.tensors.keys() == tensors.keys()
    assert all(torch.equal(ported.tensors[key], tensor) for key, tensor in tensors.items())
    assert loads_whole(model, ported, tmp_path / "ported")


def test_a_head_of_an_unknown_task_is_refused(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    named = make_module(base, "lora", labels=3)
    module = regraft.load(with_config(named, tmp_path / "module", task_type=None, auto_mapping=None))
    with pytest.raises(ModuleFileError, match=r"does not say of what task; write its task_type .* one of SEQ_CLS"):
        regraft.transfer(module, base)


@pytest.mark.parametrize("model_type", ["bert", "llama"])
@pytest.mark.parametrize("how", ["PeftModel", "load_adapter", "merged"])
def test_an_adapter_in_the_model_that_was_passed_is_not_sampled(
    model_type: str, how: str, make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base, student = make_model(model_type, layers=2), make_model(model_type, width=48, layers=2)
    active, tokenizer = make_module(base, "lora"), transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModel.from_pretrained(base)
    if how == "load_adapter":
        model.load_adapter(active)
    else:
        model = PeftModel.from_pretrained(model, active, is_trainable=True)
    if how == "merged":
        model.merge_adapter()
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    module = regraft.load(make_module(base, "lora", lora_dropout=0.1))
    options = {"texts": make_texts(80), "align": "ridge", "progress": False}
    for sequential in (False, True):
        expected = regraft.transfer(module, student, base, sequential=sequential, **options)
        with pytest.warns(UserWarning, match=r"passed with an adapter in it; .* those of the model without"):
            ported = regraft.transfer(module, student, (model, tokenizer), sequential=sequential, **options)
        for key, tensor in expected.tensors.items():
            # Taking a merged adapter off again rounds.
            torch.testing.assert_close(ported.tensors[key], tensor, rtol=0, atol=1e-3 if how == "merged" else 0)
    after = {name: (p, p.requires_grad) for name, p in model.named_parameters()}
    assert before.keys() == after.keys()
    assert all(torch.equal(p, after[name][0]) and grad == after[name][1] for name, (p, grad) in before.items())


def test_what_is_read_is_never_written_over(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, run: Callable[..., tuple]
) -> None:
    base = make_model(layers=2)
    module = Path(shutil.copytree(make_module(base, "lora", labels=3), tmp_path / "mine"))
    other = Path(shutil.copytree(module, tmp_path / "other"))
    held = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    transfer = ("transfer", module, "--student", base, "--replace", "--out")
    train = ("train", "--model", base, "--init", module, "--replace", "--out")
    convert = ("convert", module, "--to", "peft", "--replace", "--out")
    for command in (transfer, train, convert):
        for out, words in (
            (module, "is .*mine, which is read"),
            (module / "inside", "lies in .*mine, which is read"),
            (tmp_path, "holds .*mine, which is read"),
            (other, "exists, and regraft did not write it, so it is not replaced"),
        ):
            code, _, error = run(*command, out)
            assert code == 2
            assert re.search(words, error), error
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == held


def test_a_layer_that_gets_nothing_is_a_row_of_the_plan(
    make_model: Callable[..., str], make_module: Callable[..., str], run: Callable[..., tuple]
) -> None:
    base = make_model(layers=4)
    module = make_module(base, "lora", layers_to_transform=[0, 1])
    assert regraft.plan(regraft.load(module), base).silent == (("", 2), ("", 3))
    _, out, _ = run("plan", module, "--student", base)
    assert re.search(r"(?m)^ *3 +3 +0 .*gets nothing", out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scale", "-1"), "--scale: found '-1', expected 0 or more"),
        (("--labels", "a,b"), "has no task head whose labels could be named; leave out --labels"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[str, str],
    words: str,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    run: Callable[..., tuple],
) -> None:
    base = make_model(layers=2)
    code, _, error = run("plan", make_module(base, "lora"), "--student", base, *arguments)
    assert code == 2
    assert words in error


def test_a_head_that_names_no_labels_is_kept_and_it_is_said(
    ner_folder: Path,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    run: Callable[..., tuple],
) -> None:
    base, student = make_model(layers=4), make_model(layers=2)
    module = make_module(base, "lora", labels=9)
    run("transfer", module, "--student", student, "--out", tmp_path / "ported")
    data = ("--data", ner_folder, "--model", student, "--epochs", "1", "--max-train", "16", "--max-eval", "16")
    code, out, error = run("train", "--init", tmp_path / "ported", *data, "--out", tmp_path / "trained")
    assert code == 0, error
    assert "with its task head" in out
    assert "It names no labels; taken in the order of the task: O, B-PER" in out
    code, out, _ = run("train", "--init", tmp_path / "ported", "--head", "fresh", *data, "--out", tmp_path / "fresh")
    assert "with a fresh task head" in out
    assert "names no labels" not in out


@pytest.mark.parametrize(
    ("model_type", "auto", "target", "lost"),
    [
        ("llama", "AutoModelForCausalLM", "lm_head", "lm_head.lora_A.weight, lm_head.lora_B.weight"),
        ("llama", "AutoModelForCausalLM", "embed_tokens", "model.embed_tokens.lora_embedding_A"),
        ("bert", "AutoModel", "pooler.dense", "pooler.dense.lora_A.weight"),
        ("electra", "AutoModel", "embeddings_project", "embeddings_project.lora_A.weight"),
    ],
)
def test_what_would_be_lost_is_named_and_refused_unless_it_is_to_be_dropped(
    model_type: str, auto: str, target: str, lost: str, make_model: Callable[..., str], tmp_path: Path, run: Callable
) -> None:
    base, student = make_model(model_type, layers=4), make_model(model_type, layers=2)
    query = "q_proj" if model_type == "llama" else "query"
    task = "CAUSAL_LM" if auto == "AutoModelForCausalLM" else "FEATURE_EXTRACTION"
    config = LoraConfig(r=2, target_modules=[query, target], task_type=task, init_lora_weights=False)
    model = getattr(transformers, auto).from_pretrained(base)
    get_peft_model(model, config).save_pretrained(tmp_path / "module", save_embedding_layers=False)
    for command in (("plan",), ("transfer", "--out", tmp_path / "ported")):
        code, out, error = run(command[0], tmp_path / "module", "--student", student, *command[1:])
        assert code == 2
        assert "would not be what was trained without tensors that cannot be ported" in error
        assert lost in error
        assert "leave them out with --drop" in error
        assert command[0] == "transfer" or lost in " ".join(out.split())
    assert not (tmp_path / "ported").exists()
    module = regraft.load(tmp_path / "module")
    ported = regraft.transfer(module, student, drop=True)
    assert all(query in key for key in ported.tensors)
    assert len(ported.report["lost"]) == 2
    sequential = {"texts": make_texts(40), "align": "auto", "drop": True, "progress": False}
    if target == "lm_head":  # which the bare model, that is sampled, lacks
        regraft.transfer(module, student, **sequential)
        return
    with pytest.raises(PlanError, match=r"changes what the teacher computes with .*; fit --apart"):
        regraft.transfer(module, student, **sequential)
    regraft.transfer(module, student, sequential=False, **sequential)
