"""A module in place: what PEFT and transformers make of the same files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import load_peft, make_texts
from peft import LoraConfig, get_peft_model

import regraft
from regraft.errors import ModuleFileError


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_answers_are_those_of_peft(kind: str, make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    base = make_model("bert", layers=2)
    module = make_module(base, kind, labels=4)
    with regraft.loaded(base, module) as (model, tokenizer):
        inputs = tokenizer(make_texts(3), return_tensors="pt", padding=True)
        with torch.no_grad():
            found = model(**inputs).logits
            expected = load_peft(base, module, task_type="TOKEN_CLS", labels=4)(**inputs).logits
        assert not model.training
    torch.testing.assert_close(found, expected)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}  # nothing is held


def test_a_head_that_the_module_brings_is_not_said_to_be_missing(
    make_model: Callable[..., str], make_module: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_model("bert", layers=2)
    module, said = make_module(base, labels=4), []
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [handler := logging.Handler()])
    monkeypatch.setattr(handler, "emit", said.append)
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.WARNING)
    try:
        load_peft(base, module, task_type="TOKEN_CLS", labels=4)
        assert "classifier.weight" in said.pop().getMessage()
        with regraft.loaded(base, module):
            assert transformers.utils.logging.get_verbosity() == logging.WARNING
        assert not said
    finally:
        transformers.utils.logging.set_verbosity(before)


def test_labels_have_their_names_in_a_pipeline(make_model: Callable[..., str], tmp_path: Path) -> None:
    base = make_model("bert", layers=2)
    config = LoraConfig(target_modules=["query"], task_type="SEQ_CLS")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    get_peft_model(model, config).save_pretrained(tmp_path / "module")
    module = regraft.load(tmp_path / "module")
    named = regraft.Module(module.config, module.tensors, module.source, {"labels": ["bad", "fair", "good"]})
    with regraft.loaded(base, named) as (model, tokenizer):
        answer = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)(make_texts(1)[0])
    assert answer[0]["label"] in ("bad", "fair", "good")


def test_a_module_of_another_model_is_refused(make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    module = make_module(make_model("bert", layers=4), labels=2)
    with pytest.raises(ModuleFileError, match="does not fit"), regraft.loaded(make_model("bert", layers=2), module):
        pass


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_a_module_of_a_bare_model(kind: str, make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    base = make_model("bert", layers=2)
    module = make_module(base, kind)
    with regraft.loaded(base, module) as (model, tokenizer), torch.no_grad():
        inputs = tokenizer(make_texts(2), return_tensors="pt", padding=True)
        expected = load_peft(base, module)(**inputs).last_hidden_state
        torch.testing.assert_close(model(**inputs).last_hidden_state, expected)
