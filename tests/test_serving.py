"""Modules for who serves them: llama.cpp's file, and models with the module merged in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import load_base, load_peft, make_texts
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

import regraft
from regraft.errors import ModuleFileError
from regraft.models.pretrained import resolve
from regraft.modules.merging import save_merged
from regraft.modules.to_gguf import ARCHITECTURES, save_gguf
from regraft.port.serving import serving_said

Make = Callable[..., Any]
ALL = {"target_modules": "all-linear"}


def read(directory: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    reader = GGUFReader(directory / "adapter_model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return {tensor.name: np.array(tensor.data) for tensor in reader.tensors}, fields


def write_causal(base: str, path: Path, r: int) -> Any:
    """Write a LoRA on all linear layers of a language model; return the model with it."""
    causal = transformers.AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(causal, LoraConfig(r=r, task_type="CAUSAL_LM", target_modules="all-linear")).eval()
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(path)
    return adapted


@pytest.mark.parametrize(
    "scaled", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}]
)
def test_llama_cpp_adds_what_peft_adds(
    scaled: dict[str, Any], make_model: Make, make_module: Make, tmp_path: Path
) -> None:
    """llama.cpp adds alpha / rank * B A to its weights, whose rows transformers puts back as it reads them."""
    base = make_model("llama", layers=2, num_key_value_heads=2)
    module = make_module(base, task_type="CAUSAL_LM", r=4, **ALL, **scaled)
    save_gguf(regraft.load(module), tmp_path / "served")
    tensors, fields = read(tmp_path / "served")
    assert (fields["general.architecture"], fields["general.type"], fields["adapter.type"]) == (
        "llama",
        "adapter",
        "lora",
    )
    model, config = load_peft(base, module), transformers.AutoConfig.from_pretrained(base)
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    names |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    assert len(tensors) == 2 * 2 * len(names)
    for layer in range(2):
        for own, its in names.items():
            lora_a, lora_b = (tensors[f"blk.{layer}.{its}.weight.lora_{part}"] for part in "ab")
            delta = fields["adapter.lora.alpha"] / len(lora_a) * lora_b @ lora_a
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(own)
            if heads:
                delta = LlamaTensorProcessor()._reverse_permute_weights(delta, heads, heads)
            inside = "self_attn" if own[0] in "qkvo" else "mlp"
            added = model.get_submodule(f"base_model.model.layers.{layer}.{inside}.{own}").get_delta_weight("default")
            np.testing.assert_allclose(delta, added.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", sorted(set(ARCHITECTURES) & {"gemma2", "qwen2", "qwen3", "phi3", "mistral"}))
def test_every_tensor_has_a_name_there(model_type: str, make_model: Make, make_module: Make, tmp_path: Path) -> None:
    module = regraft.load(make_module(make_model(model_type, layers=2), task_type="CAUSAL_LM", **ALL))
    save_gguf(module, tmp_path / "served")
    tensors, fields = read(tmp_path / "served")
    assert len(tensors) == len(module.tensors)
    assert fields["general.architecture"] == ARCHITECTURES[model_type].name


def test_what_llama_cpp_cannot_load_is_refused(make_model: Make, make_module: Make, run: Make, tmp_path: Path) -> None:
    llama, bert, out = make_model("llama", layers=2), make_model(layers=2), tmp_path / "out"
    for module, message in (
        (make_module(bert), "unknown model type 'bert'"),
        (make_module(llama, "bottleneck", target_modules=["down_proj"]), "llama.cpp loads LoRA alone"),
        (make_module(llama, use_dora=True), "uses use_dora"),
        (make_module(llama, labels=2), "uses modules_to_save"),
    ):
        code, _, error = run("convert", module, "--to", "gguf", "--out", out)
        assert code == 2
        assert message in error
        assert error.count("\n") == 1
        assert not out.exists()


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS"])
def test_a_merged_model_needs_no_peft(
    task_type: str, make_model: Make, make_module: Make, run: Make, tmp_path: Path
) -> None:
    base = make_model()
    module = make_module(base, labels=3, task_type=task_type, target_modules=["query", "value", "dense"])
    code, output, error = run("convert", module, "--to", "merged", "--out", tmp_path / "merged")
    assert code == 0, error
    assert str(tmp_path / "merged") in output.replace("\n", "")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    batch = tokenizer(make_texts(5), padding=True, return_tensors="pt")
    with torch.no_grad():
        merged = load_base(str(tmp_path / "merged"), 3, task_type).eval()(**batch).logits
        apart = load_peft(base, module, 3, task_type)(**batch).logits
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-4)
    assert (
        "query" in (tmp_path / "merged" / "README.md").read_text()
        or "LORA" in (tmp_path / "merged" / "README.md").read_text()
    )
    assert run("convert", module, "--to", "merged", "--out", tmp_path / "merged")[0] == 2
    assert run("convert", module, "--to", "merged", "--out", tmp_path / "merged", "--replace")[0] == 0


def test_a_merged_language_model_keeps_its_head(make_model: Make, run: Make, tmp_path: Path) -> None:
    base = make_model("llama", layers=2, tie_word_embeddings=True)
    adapted = write_causal(base, tmp_path / "module", r=2)
    assert run("convert", tmp_path / "module", "--to", "merged", "--model", base, "--out", tmp_path / "merged")[0] == 0
    ids = torch.arange(6)[None]
    with torch.no_grad():
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=ids).logits
        torch.testing.assert_close(merged, adapted(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_a_bottleneck_is_not_merged(make_model: Make, make_module: Make, run: Make, tmp_path: Path) -> None:
    module = make_module(make_model(), "bottleneck")
    code, _, error = run("convert", module, "--to", "merged", "--out", tmp_path / "merged")
    assert (code, (tmp_path / "merged").exists()) == (2, False)
    assert "a bottleneck adapter cannot be merged into the base weights" in error


def test_what_is_merged_has_to_fit(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    with pytest.raises(ModuleFileError, match="does not fit"):
        save_merged(regraft.load(make_module(make_model())), tmp_path / "merged", make_model(width=24))


@pytest.mark.parametrize(
    ("config", "sentences"),
    [
        ({"r": 8}, []),
        ({"r": 24}, ["vLLM serves its rank of 24 with --max-lora-rank 32."]),
        ({"r": 8, "rank_pattern": {"q_proj": 200}}, ["vLLM serves its rank of 200 with --max-lora-rank 256."]),
        ({"r": 600}, ["vLLM will refuse its rank of 600"]),
        ({"use_dora": True}, ["vLLM will refuse it for its use_dora"]),
        ({"task_type": "SEQ_CLS", "r": 24}, []),
    ],
)
def test_the_plan_says_what_servers_will_refuse(config: dict[str, Any], sentences: list[str], make_model: Make) -> None:
    said = serving_said(
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", **config}, resolve(make_model("llama", layers=2))
    )
    assert [sentence.startswith(start) for sentence, start in zip(said, sentences, strict=True)] == [True] * len(said)


def test_other_methods_and_models_are_not_served(make_model: Make, make_module: Make, run: Make) -> None:
    gpt2 = " ".join(serving_said({"peft_type": "LORA"}, resolve(make_model("gpt2", layers=2))))
    assert "vLLM serves no LoRA on gpt2" in gpt2
    base = make_model("gpt_neox", layers=2)
    assert "No GGUF adapter is written for gpt_neox" in " ".join(serving_said({"peft_type": "LORA"}, resolve(base)))
    llama = make_model("llama", layers=2)
    assert serving_said({"peft_type": "LORA"}, resolve(make_model(layers=2))) == []
    _, output, _ = run("plan", make_module(llama, "bottleneck", target_modules=["down_proj"]), "--student", llama)
    assert "vLLM and llama.cpp load LoRA alone, not bottleneck" in output


@pytest.mark.parametrize(("teacher", "student"), [("llama", "qwen2"), ("mistral", "llama"), ("qwen3", "gemma2")])
def test_transformers_loads_a_port_without_peft_around_it(
    teacher: str, student: str, make_model: Make, tmp_path: Path
) -> None:
    """`load_adapter` puts into the model what PEFT puts around it: nothing is missing and the answers are the same."""
    bases = make_model(teacher, layers=2), make_model(student, width=48, layers=2)
    write_causal(bases[0], tmp_path / "module", r=4)
    module = regraft.load(tmp_path / "module")
    regraft.transfer(module, bases[1], texts=make_texts(60), align="ridge", progress=False).save(tmp_path / "ported")
    model = transformers.AutoModelForCausalLM.from_pretrained(bases[1]).eval()
    alone, ids = copy.deepcopy(model), torch.arange(12)[None]
    with torch.no_grad():
        bare = model(input_ids=ids).logits
        found = model.load_adapter(str(tmp_path / "ported"))
        loaded = model(input_ids=ids).logits
        expected = PeftModel.from_pretrained(alone, str(tmp_path / "ported")).eval()(input_ids=ids).logits
    assert (found.missing_keys, found.unexpected_keys, found.mismatched_keys) == (set(), set(), set())
    assert (bare - expected).abs().max() > 0.01
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)
