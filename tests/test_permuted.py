"""On a permuted and pruned twin the right answer is known: lsa finds it, and the ported module does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_texts, peft_config, tiny_config, wordpiece_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from twins import Twin, make_twin

import regraft


def trained_on(twin: Twin, kind: str) -> Any:
    """Put a random module on the teacher that uses only what the student kept."""
    model = get_peft_model(twin.teacher, peft_config(kind, "bert"))
    torch.manual_seed(3)
    pruned = torch.ones(twin.teacher.config.hidden_size, dtype=torch.bool)
    pruned[twin.kept] = False
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            torch.nn.init.normal_(parameter, std=0.3)
            if "lora_A" in name or "bottleneck_down.default.weight" in name:
                parameter[:, pruned] = 0
            elif "bottleneck_up" in name:
                parameter.copy_(twin.write @ parameter[: twin.write.shape[1]])
    return model.eval()


@pytest.mark.parametrize("prune", [False, True], ids=["permuted", "pruned"])
@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_lsa_in_measured_spaces_recovers_the_mapping_and_the_outputs(kind: str, prune: bool, tmp_path: Path) -> None:
    twin = make_twin(prune=prune)
    tokenizer = wordpiece_tokenizer()
    batch = tokenizer(make_texts(4, seed=9), padding=True, return_tensors="pt")
    with torch.no_grad():
        bare = twin.teacher(**batch).last_hidden_state
        torch.testing.assert_close(bare[..., twin.kept], twin.student(**batch).last_hidden_state)

    adapted = trained_on(twin, kind)
    adapted.save_pretrained(tmp_path / "teacher")
    with torch.no_grad():
        expected = adapted(**batch).last_hidden_state[..., twin.kept]
    assert (expected - bare[..., twin.kept]).abs().max() > 0.1

    ported = regraft.transfer(
        regraft.load(tmp_path / "teacher"),
        student=(twin.student, tokenizer),
        teacher=(adapted.unload(), tokenizer),
        layers=[0, 1, 2],
        align="lsa",
        spaces="measured",
        texts=make_texts(60),
        progress=False,
    )
    ported.save(tmp_path / "student")
    model = PeftModel.from_pretrained(twin.student, str(tmp_path / "student")).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).last_hidden_state, expected, rtol=1e-4, atol=1e-5)

    held_out = [score["held_out"] for score in ported.report["scores"]]
    assert min(held_out) == pytest.approx(1, abs=1e-6)
    tensors = regraft.load(tmp_path / "teacher").tensors
    for layer in range(3):
        prefix = f"base_model.model.encoder.layer.{layer}."
        if kind == "lora":
            expected_maps = {"query": twin.query[layer], "value": twin.value[layer]}
            for part, rows in expected_maps.items():
                name = f"{prefix}attention.self.{part}.lora_"
                assert torch.equal(ported.tensors[f"{name}B.weight"], tensors[f"{name}B.weight"][rows])
                assert torch.equal(ported.tensors[f"{name}A.weight"], tensors[f"{name}A.weight"][:, twin.kept])
        else:
            name = f"{prefix}output.LayerNorm.bottleneck_"
            assert torch.equal(ported.tensors[f"{name}down.weight"], tensors[f"{name}down.weight"][:, twin.kept])
            assert torch.equal(ported.tensors[f"{name}down.bias"], tensors[f"{name}down.bias"])
            assert torch.equal(ported.tensors[f"{name}up.weight"], tensors[f"{name}up.weight"][twin.kept])
            assert torch.equal(ported.tensors[f"{name}up.bias"], tensors[f"{name}up.bias"][twin.kept])


def test_released_spaces_map_lora_b_like_the_input_of_the_query(tmp_path: Path) -> None:
    twin = make_twin(prune=False)
    tokenizer = wordpiece_tokenizer()
    adapted = trained_on(twin, "lora")
    adapted.save_pretrained(tmp_path / "teacher")
    module = regraft.load(tmp_path / "teacher")
    ported = regraft.transfer(
        module,
        student=(twin.student, tokenizer),
        teacher=(adapted.unload(), tokenizer),
        align="lsa",
        spaces="released",
        texts=make_texts(60),
        progress=False,
    )
    for key, tensor in module.tensors.items():
        expected = tensor[twin.kept] if "lora_B" in key else tensor[:, twin.kept]
        assert torch.equal(ported.tensors[key], expected), key
    assert {score["space"].split(".")[2] for score in ported.report["scores"]} == {"attention_input"}


@pytest.mark.parametrize(("of_teacher", "of_student"), [(8, 12), (12, 8)], ids=["wider", "narrower"])
def test_by_ridge_heads_of_another_width_do_the_same(of_teacher: int, of_student: int, tmp_path: Path) -> None:
    """T5 does not divide by the width of its heads, so dimensions that meet a zero change nothing."""
    tokenizer = wordpiece_tokenizer()
    torch.manual_seed(0)
    models = {width: transformers.AutoModel.from_config(tiny_config("t5", layers=1, d_kv=width)) for width in (8, 12)}
    kept = torch.cat([12 * head + torch.randperm(12)[:8] for head in range(4)])
    wide = dict(models[12].double().eval().named_parameters())
    with torch.no_grad():
        for name, weight in models[8].double().eval().named_parameters():
            projection = name.split(".")[-2]
            if projection in ("k", "o"):
                wide[name].zero_()
            if projection in ("q", "k", "v"):
                wide[name][kept] = weight
            elif projection == "o":
                wide[name][:, kept] = weight
            else:
                wide[name].copy_(weight)
    ids = tokenizer(make_texts(4, seed=9), padding=True, return_tensors="pt").input_ids
    batch = {"input_ids": ids, "decoder_input_ids": ids}
    with torch.no_grad():
        bare, same = (models[width](**batch).last_hidden_state for width in (8, 12))
    torch.testing.assert_close(bare, same)

    config = LoraConfig(target_modules=["q", "v"], init_lora_weights=False)
    adapted = get_peft_model(models[of_teacher], config).eval()
    adapted.save_pretrained(tmp_path / "teacher")
    with torch.no_grad():
        expected = adapted(**batch).last_hidden_state
    assert (expected - bare).abs().max() > 0.1
    ported = regraft.transfer(
        regraft.load(tmp_path / "teacher"),
        student=(models[of_student], tokenizer),
        teacher=(adapted.unload(), tokenizer),
        align="ridge",
        sequential=True,
        texts=make_texts(60),
        progress=False,
    )
    ported.save(tmp_path / "student")
    model = PeftModel.from_pretrained(models[of_student], str(tmp_path / "student")).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
