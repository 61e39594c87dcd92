"""Known answers of a port between models of one width."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import load_peft, make_texts
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

import regraft
from regraft.errors import PlanError

LORA = "base_model.model.encoder.layer.{}.attention.self.query.lora_{}.weight"


def port(module: str, student: str, **options: object) -> regraft.Module:
    return regraft.transfer(regraft.load(module), student, progress=False, **options)


def test_a_module_ported_through_the_identity_is_unchanged_to_the_bit(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model()
    for kind in ("lora", "bottleneck"):
        module = make_module(base, kind)
        teacher = regraft.load(module)
        ported = port(module, base)
        assert ported.hash() == teacher.hash()
        for align in ("copy", "lsa"):
            mapped = port(module, base, align=align, texts=make_texts(60), spaces="measured")
            assert mapped.hash() == teacher.hash()


def test_skip_avg_last_and_avg_released_by_hand(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    module = make_module(teacher, "lora")
    tensors = regraft.load(module).tensors
    for side in "AB":
        one, two, three, four = (tensors[LORA.format(layer, side)] for layer in range(4))
        expected = {
            "skip": (one, three),
            "last": (two, four),
            "avg": ((one + two) / 2, (three + four) / 2),
            "avg_released": (one / 2, three / 2),
        }
        for layers, answers in expected.items():
            ported = port(module, student, layers=layers)
            for layer, answer in enumerate(answers):
                torch.testing.assert_close(ported.tensors[LORA.format(layer, side)], answer, rtol=1e-6, atol=1e-7)
        explicit = port(module, student, layers=[3, 0])
        assert torch.equal(explicit.tensors[LORA.format(0, side)], four)
        assert torch.equal(explicit.tensors[LORA.format(1, side)], one)


def test_averaged_layers_go_through_a_map_each(make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    module = make_module(teacher, "lora")
    options = {"align": "lsa", "spaces": "measured", "texts": make_texts(80)}
    first, second = (port(module, student, layers=layers, **options) for layers in ([0, 2], [1, 3]))
    averaged = port(module, student, layers="avg", **options)
    for key, tensor in averaged.tensors.items():
        torch.testing.assert_close(tensor, (first.tensors[key] + second.tensors[key]) / 2)


def test_ported_logits_equal_hand_computed_ones(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    module = make_module(teacher, "lora")
    port(module, student).save(tmp_path / "ported")
    tensors = regraft.load(module).tensors
    by_hand = transformers.AutoModel.from_pretrained(student).eval()
    with torch.no_grad():
        for layer in range(2):
            for part in ("query", "value"):
                key = f"base_model.model.encoder.layer.{2 * layer}.attention.self.{part}.lora_"
                delta = tensors[f"{key}B.weight"] @ tensors[f"{key}A.weight"] * (8 / 4)
                by_hand.encoder.layer[layer].attention.self.get_submodule(part).weight += delta
    ids = torch.tensor([[2, 7, 11, 9, 3]])
    with torch.no_grad():
        output = load_peft(student, tmp_path / "ported")(ids).last_hidden_state
        torch.testing.assert_close(output, by_hand(ids).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_copy_between_widths_truncates_and_pads(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    wide, narrow = make_model(width=48, layers=2), make_model(width=32, layers=2, seed=5)
    module = make_module(wide, "lora")
    tensors = regraft.load(module).tensors
    down = port(module, narrow, align="copy")
    assert torch.equal(down.tensors[LORA.format(0, "A")], tensors[LORA.format(0, "A")][:, :32])
    assert torch.equal(down.tensors[LORA.format(0, "B")], tensors[LORA.format(0, "B")][:32])
    narrow_module = make_module(narrow, "lora")
    up = port(narrow_module, wide, align="copy").tensors[LORA.format(0, "B")]
    assert torch.equal(up[:32], regraft.load(narrow_module).tensors[LORA.format(0, "B")])
    assert up[32:].abs().sum() == 0


def test_scaling_survives_patterns_and_rank_stabilisation(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    module = make_module(
        teacher,
        "lora",
        use_rslora=True,
        rank_pattern={r"layer\.2\.attention\.self\.query": 2, "layer.1.attention.self.query": 3},
        alpha_pattern={"layer.2.attention.self.query": 32},
    )
    port(module, student).save(tmp_path / "ported")
    before, after = (
        load_peft(base, path).base_model.model.encoder.layer
        for base, path in ((teacher, module), (student, tmp_path / "ported"))
    )
    for layer in range(2):
        for part in ("query", "value"):
            source = before[2 * layer].attention.self.get_submodule(part)
            target = after[layer].attention.self.get_submodule(part)
            assert target.scaling == source.scaling
            assert target.r == source.r
    assert after[1].attention.self.query.r["default"] == 2
    with pytest.raises(PlanError, match=r"layers 0, 1 of the module differ at query .* use --layers skip"):
        port(module, student, layers="avg")


def test_the_head_is_fresh_from_the_seed_and_shaped_by_the_labels(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", layers=2)
    module = make_module(teacher, "lora", labels=5)
    first, again, other = (port(module, student, align="none", seed=seed, head="fresh") for seed in (0, 0, 1))
    head = "base_model.model.classifier.weight"
    assert first.tensors[head].shape == (5, 32)
    assert torch.equal(first.tensors[head], again.tensors[head])
    assert not torch.equal(first.tensors[head], other.tensors[head])
    assert first.report["tensors"][head]["action"] == "fresh"
    assert "freshly initialised" in first.report["left"][head]
    first.save(tmp_path / "ported")
    loaded = load_peft(student, tmp_path / "ported", labels=5)
    assert torch.equal(loaded.base_model.model.classifier.modules_to_save["default"].weight, first.tensors[head])


def test_partial_modules_stay_partial(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", layers=2)
    module = make_module(teacher, "lora", layers_to_transform=[2, 3], layers_pattern="layer")
    ported = port(module, student, align="none")
    assert {target.split(".")[4] for target in ported.tensors} == {"1"}
    ported.save(tmp_path / "ported")
    names = load_peft(student, tmp_path / "ported").base_model.targeted_module_names
    assert names == ["transformer.layer.1.attention.q_lin", "transformer.layer.1.attention.v_lin"]


def test_sites_that_the_student_lacks_are_left_behind_and_said_so(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model("llama", layers=2), make_model("bert", layers=2)
    module = make_module(teacher, "lora", target_modules=["q_proj", "gate_proj"])
    with pytest.raises(PlanError, match=r"would not be what was trained .*gate_proj.lora_A.weight, .* --drop"):
        port(module, student, align="none")
    ported = port(module, student, align="none", drop=True)
    reasons = {key: reason for key, reason in ported.report["left"].items() if "gate_proj" in key}
    assert len(reasons) == 4
    assert set(reasons.values()) == {f"{student} has no ff_gate"}
    ported.save(tmp_path / "ported")
    load_peft(student, tmp_path / "ported")


def test_grouped_query_attention_needs_measured_spaces(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    grouped = {"layers": 2, "num_key_value_heads": 2}
    teacher, student = make_model("llama", **grouped), make_model("llama", width=48, **grouped)
    module = make_module(teacher, "lora")
    texts = make_texts(60)
    with pytest.raises(PlanError, match=r"lora_B.weight on value lives in value_output .* use --spaces measured"):
        port(module, student, align="lsa", texts=texts)
    ported = port(module, student, align="lsa", texts=texts, spaces="measured")
    assert ported.tensors["base_model.model.layers.0.self_attn.v_proj.lora_B.weight"].shape == (24, 4)


FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "llama", "mistral", "qwen2")
POST_LN = FAMILIES[:6]
PAIRS = [(teacher, student) for teacher in ("bert", "llama") for student in FAMILIES] + [
    ("distilbert", "xlm-roberta"),
    ("electra", "bert"),
    ("roberta", "distilbert"),
]


MATRIX = [
    (teacher, student, kind, *combination)
    for teacher, student in PAIRS
    for kind in ("lora", "bottleneck")
    # Decoders have no output LayerNorm for a bottleneck.
    if kind == "lora" or {teacher, student} <= set(POST_LN)
    for combination in (("none", "skip", 3), ("none", "avg", None), ("lsa", "skip", 3), ("random", "last", None))
]


@pytest.mark.parametrize(("teacher", "student", "kind", "align", "layers", "labels"), MATRIX)
def test_every_pair_of_families_loads_in_peft_without_missing_or_unexpected_keys(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    teacher: str,
    student: str,
    kind: str,
    align: str,
    layers: str,
    labels: int | None,
) -> None:
    source, target = make_model(teacher, layers=4), make_model(student, layers=2, unigram=True)
    module = make_module(source, kind, labels)
    options = {"texts": make_texts(60)} if align == "lsa" else {}
    ported = port(module, target, align=align, layers=layers, spaces="measured", **options)
    ported.save(tmp_path / "ported")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = load_peft(target, tmp_path / "ported", labels)
        result = model.load_adapter(str(tmp_path / "ported"), "again")
    assert not result.missing_keys
    assert not result.unexpected_keys
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert set(state) == set(ported.tensors)
    assert all(torch.equal(state[key], tensor) for key, tensor in ported.tensors.items())
    assert model(torch.tensor([[2, 7, 11, 9, 3]]))[0].isfinite().all()
    assert set(ported.report["tensors"]) == set(ported.tensors)
    used = {name for made in ported.report["tensors"].values() for name in made["from"]}
    assert used | set(ported.report["left"]) == set(regraft.load(module).tensors)
    assert not used & set(ported.report["left"])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_module_in_another_process(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    module = make_module(teacher, "lora", labels=3)
    code = (
        f"import regraft; print(regraft.transfer(regraft.load({module!r}), {student!r}, align='random', seed=4).hash())"
    )
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # another than here
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert there == port(module, student, align="random", seed=4).hash()
    assert there != port(module, student, align="random", seed=5).hash()


def test_released_bottlenecks_use_the_feed_forward_output(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    teacher, student = make_model(layers=2), make_model("distilbert", width=48, layers=2)
    module = make_module(teacher, "bottleneck")
    released = port(module, student, align="lsa", texts=make_texts(80))
    measured = port(module, student, align="lsa", texts=make_texts(80), spaces="measured")
    assert {s["space"].split(".")[2] for s in released.report["scores"]} == {"ff_output"}
    assert {s["space"].split(".")[2] for s in measured.report["scores"]} == {"layer_output", "residual_sum"}
    assert released.hash() != measured.hash()


def test_averaging_half_precision_is_done_in_single(make_model: Callable[..., str], tmp_path: Path) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    model = transformers.AutoModel.from_pretrained(teacher)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["query"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "module")
    tensors = regraft.load(tmp_path / "module").tensors
    ported = port(str(tmp_path / "module"), student, layers="avg")
    one, two = (tensors[LORA.format(layer, "A")] for layer in (0, 1))
    assert one.dtype == torch.bfloat16
    expected = ((one.float() + two.float()) / 2).bfloat16()
    assert torch.equal(ported.tensors[LORA.format(0, "A")], expected)
