"""On a permuted and pruned twin the right answer is known: lsa finds it, and the ported module does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_texts, peft_config, wordpiece_tokenizer
from peft import PeftModel, get_peft_model
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
