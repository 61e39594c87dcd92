"""A real encoder and real texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel, AutoTokenizer

import regraft
from regraft.files.texts import read_texts
from regraft.tasks.options import DataOptions
from regraft.training.evaluation import evaluate
from regraft.training.finetuning import train
from regraft.training.options import EvaluateOptions, TrainOptions

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def texts(data: Path) -> list[str]:
    return read_texts(data / "wikineural" / "en" / "val.conllu")


def permuted(path: str, out: Path) -> tuple[str, torch.Tensor]:
    """Write a BERT whose hidden dimensions are permuted; return it with the teacher dimension of each of its own."""
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(path)
    width = model.config.hidden_size
    order = torch.randperm(width)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("query.weight", "key.weight", "value.weight", "intermediate.dense.weight")):
                parameter.copy_(parameter[:, order])
            elif "embeddings" in name or "LayerNorm" in name or "output.dense" in name:
                parameter.copy_(parameter[..., order] if "output.dense.weight" not in name else parameter[order])
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(path).save_pretrained(out)
    return str(out), order


def test_lsa_recovers_a_permutation_of_a_real_encoder(minilm: str, texts: list[str], tmp_path: Path) -> None:
    student, order = permuted(minilm, tmp_path / "student")
    batch = AutoTokenizer.from_pretrained(minilm)(texts[:4], padding=True, return_tensors="pt")
    teacher = AutoModel.from_pretrained(minilm).eval()
    adapted = get_peft_model(teacher, LoraConfig(r=4, target_modules=["query", "value"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.eval().save_pretrained(tmp_path / "module")
    with torch.no_grad():
        expected = adapted(**batch).last_hidden_state[..., order]
    ported = regraft.transfer(
        regraft.load(tmp_path / "module"), student, align="lsa", spaces="measured", texts=texts[:100], progress=False
    )
    ported.save(tmp_path / "ported")
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(student), str(tmp_path / "ported")).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).last_hidden_state, expected, rtol=1e-3, atol=1e-4)
    assert min(score["held_out"] for score in ported.report["scores"]) > 0.999999


@pytest.mark.slow
def test_ner_trains_ports_and_improves_on_real_rows(minilm: str, data: Path, tmp_path: Path) -> None:
    settings = TrainOptions(epochs=2, max_train=96, max_eval=16, max_length=64, learning_rate=3e-3)
    folder = data / "wikineural"
    teacher = train(
        minilm, tmp_path / "teacher", peft="bottleneck", data=DataOptions(data=folder), options=settings, progress=False
    )
    curve = [json.loads(line) for line in (tmp_path / "teacher" / "curve.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in curve if "f1" in row]
    assert losses[-1] < losses[0] / 2
    regraft.transfer(teacher, minilm, layers="skip").save(tmp_path / "ported")
    assert regraft.load(tmp_path / "ported").labels == teacher.labels
    scores = evaluate(
        tmp_path / "ported",
        data=DataOptions(data=folder),
        options=EvaluateOptions(max_eval=16, max_length=64),
        progress=False,
    )
    assert set(scores) == {"precision", "recall", "f1"}


def test_every_language_of_the_data_set_reads_without_a_bad_line(data: Path) -> None:
    for language in ("de", "en", "es", "ru"):
        for name in ("val", "test"):
            assert len(read_texts(data / "wikineural" / language / f"{name}.conllu")) > 9_000
