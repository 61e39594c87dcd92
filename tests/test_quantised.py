"""Base models in llama.cpp's format, and in four bits: read as transformers reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from conftest import make_texts
from peft import LoraConfig, get_peft_model
from transformers.convert_slow_tokenizer import bytes_to_unicode

import regraft
from regraft.activations.options import RunOptions
from regraft.errors import ModelError, SamplingError
from regraft.models.pretrained import resolve
from regraft.schema import make

Make = Callable[..., Any]
WIDTH, LAYERS, HEADS = 32, 2, 4


def write_gguf(path: Path, architecture: str = "llama") -> None:
    """Write a tiny LLaMA with a tokenizer of bytes."""
    tokens = ["<s>", "</s>", *bytes_to_unicode().values(), "th"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * 257])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    torch.manual_seed(0)
    sizes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, WIDTH),
        "attn_v": (WIDTH, WIDTH),
        "attn_output": (WIDTH, WIDTH),
    }
    sizes |= {"ffn_gate": (2 * WIDTH, WIDTH), "ffn_up": (2 * WIDTH, WIDTH), "ffn_down": (WIDTH, 2 * WIDTH)}
    sizes |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
    tensors = {f"blk.{layer}.{name}": size for layer in range(LAYERS) for name, size in sizes.items()}
    tensors |= {"token_embd": (len(tokens), WIDTH), "output": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for name, size in tensors.items():
        writer.add_tensor(f"{name}.weight", (0.2 * torch.randn(size)).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf")
    write_gguf(path / "tiny.gguf")
    return path


@pytest.fixture(scope="module")
def module(folder: Path) -> str:
    """A LoRA that was trained on it, by PEFT alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="tiny.gguf")
    adapted = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(folder / "lora")
    return str(folder / "lora")


@pytest.mark.parametrize("called", ["{folder}:tiny.gguf", "{folder}/tiny.gguf"])
def test_a_model_in_gguf_is_what_transformers_makes_of_it(called: str, folder: Path) -> None:
    base = resolve(called.format(folder=folder))
    ids = base.tokenizer()("the tiny one", return_tensors="pt")
    own = transformers.AutoModel.from_pretrained(folder, gguf_file="tiny.gguf").eval()
    with torch.no_grad(), base.running(None, None) as model:
        torch.testing.assert_close(model(**ids).last_hidden_state, own(**ids).last_hidden_state)
    assert base.weights_id.startswith("file:")


def test_a_module_goes_from_gguf_to_another_model(
    folder: Path, module: str, make_model: Make, tmp_path: Path, run: Make
) -> None:
    base, texts = f"{folder}:tiny.gguf", tmp_path / "texts.txt"
    texts.write_text("\n".join(make_texts(60)))
    student = make_model("llama", width=24, layers=2)
    code, output, error = run(
        "transfer",
        module,
        "--teacher",
        base,
        "--student",
        student,
        "--texts",
        texts,
        "--out",
        tmp_path / "out",
    )
    assert code == 0, error
    assert "quantised, in GGUF" in output.replace("\n", " ")
    assert regraft.load(tmp_path / "out").report["teacher"] == base


def test_a_module_goes_to_its_own_model_unchanged(folder: Path, module: str) -> None:
    base = f"{folder}:tiny.gguf"
    ported = regraft.transfer(regraft.load(module), student=base, teacher=base, texts=make_texts(60), progress=False)
    assert ported.report["relation"]["kind"] == "same"
    for key, tensor in regraft.load(module).tensors.items():
        assert torch.equal(ported.tensors[key], tensor)


def test_models_are_quantised_as_transformers_does_it(make_model: Make) -> None:
    """Sampled through the port's own options, a model in four bits gives what it gives there."""
    base = make_model("llama", width=64, layers=2)
    four = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    own = transformers.AutoModel.from_pretrained(base, quantization_config=four).eval()
    options, ids = RunOptions(load_in_4bit=True), torch.arange(9)[None]
    with torch.no_grad(), resolve(base, loading=options.loading).running(None, None) as model:
        assert type(model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
        torch.testing.assert_close(model(input_ids=ids).last_hidden_state, own(input_ids=ids).last_hidden_state)


def test_a_port_between_quantised_models_stays_in_its_precision(make_model: Make, make_module: Make) -> None:
    teacher, student = make_model("llama", width=128, layers=2), make_model("llama", width=64, layers=2, seed=3)
    module = regraft.load(make_module(teacher))
    fields: dict[str, Any] = {"texts": make_texts(60), "progress": False}
    plain, rounded = (regraft.transfer(module, student, teacher, load_in_4bit=four, **fields) for four in (False, True))
    for key, tensor in plain.tensors.items():
        assert rounded.tensors[key].dtype == tensor.dtype == torch.float32
    assert any(not torch.equal(rounded.tensors[key], tensor) for key, tensor in plain.tensors.items())
    of_itself = regraft.transfer(module, teacher, teacher, load_in_4bit=True, **fields)
    for key, tensor in module.tensors.items():
        assert torch.equal(of_itself.tensors[key], tensor)


def test_ways_to_load_that_exclude_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ({"load_in_4bit": True, "load_in_8bit": True}, {"device": "cpu", "device_map": "auto"}):
        with pytest.raises(SamplingError, match="expected one of them"):
            make(RunOptions, given, SamplingError)
    assert RunOptions(device_map="auto").loading == {"device_map": "auto"}
    monkeypatch.setattr("regraft.activations.options.find_spec", lambda _: None)
    with pytest.raises(SamplingError, match=r"pip install 'regraft\[quantized\]'"):
        _ = RunOptions(load_in_4bit=True).loading


def test_what_is_no_model_in_gguf_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"has no other.gguf, expected .* that is there: tiny.gguf"):
        resolve(f"{folder}:other.gguf")
    write_gguf(tmp_path / "odd.gguf", "nobody-knows")
    with pytest.raises(ModelError, match="nobody-knows"):
        resolve(tmp_path / "odd.gguf")
    (tmp_path / "text.gguf").write_text("this is no model")
    with pytest.raises(ModelError, match=r"text.gguf"):
        resolve(tmp_path / "text.gguf")
    monkeypatch.setattr("transformers.modeling_gguf_pytorch_utils.is_gguf_available", lambda: False)
    with pytest.raises(ModelError, match=r"pip install 'regraft\[gguf\]'"):
        resolve(f"{folder}:tiny.gguf")
