"""Known answers of a port through linear maps: what they read, what biases take on, and what they write."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import load_base, load_peft, make_texts, tiny_config, wordpiece_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

import regraft
from regraft.alignment import linear
from regraft.alignment.linear import ridge
from regraft.alignment.maps import Linear
from regraft.alignment.moments import Moments
from regraft.models.sites import SpacePair
from regraft.port.execution import transfer_tensors
from regraft.port.plan import Plan

BOTTLENECK = "base_model.model.encoder.layer.{}.output.LayerNorm.bottleneck_"
LORA = "base_model.model.encoder.layer.{}.attention.self.query.lora_"
CLASSIFIER = "base_model.model.classifier."


class Affine:
    """A student's activations, and teachers' that are an exact affine map of them, one per pair of spaces."""

    def __init__(self, plan: Plan, shrinkage: float = 1e-12, constant: int | None = None) -> None:
        self.h_s: dict[SpacePair, Tensor] = {}
        self.h_t: dict[SpacePair, Tensor] = {}
        self.maps: dict[SpacePair, Linear] = {}
        for number, (space, (d_s, d_t)) in enumerate(plan.widths.items()):
            dice = torch.Generator().manual_seed(number)
            h_s = torch.randn(200, d_s, generator=dice, dtype=torch.float64) + 1
            if constant is not None:
                h_s[:, constant] = 0.3
            h_t = h_s @ torch.randn(d_s, d_t, generator=dice).double() / d_s**0.5
            self.h_s[space], self.h_t[space] = h_s, h_t + torch.randn(d_t, generator=dice)
            self.maps[space] = ridge(Moments.of(self.h_s[space], self.h_t[space], full=True), shrinkage)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [32, 48])
@pytest.mark.parametrize("spaces", ["measured", "released"])
def test_biases_take_on_the_offset_of_what_a_bottleneck_reads(
    make_model: Callable[..., str], make_module: Callable[..., str], spaces: str, width: int
) -> None:
    teacher, student = make_model(layers=4), make_model(width=width, layers=2)
    module = regraft.load(make_module(teacher, "bottleneck", labels=3))
    reads, writes = ("layer_output", "residual_sum") if spaces == "measured" else ("ff_output", "ff_output")
    plan = regraft.plan(module, student, align="ridge", spaces=spaces)
    affine = Affine(plan)
    teachers = {key: tensor.double() for key, tensor in module.tensors.items()}
    tensors = transfer_tensors(plan, teachers, affine.maps)
    for layer in range(2):
        space = SpacePair(layer, 2 * layer, reads)
        one, other = (
            BOTTLENECK.format(number).replace("model.encoder", "model.bert.encoder") for number in (layer, 2 * layer)
        )
        found = affine.h_s[space] @ tensors[f"{one}down.weight"].T + tensors[f"{one}down.bias"]
        close(found, affine.h_t[space] @ teachers[f"{other}down.weight"].T + teachers[f"{other}down.bias"])
        matrix = affine.maps[SpacePair(layer, 2 * layer, writes)].writes
        close(tensors[f"{one}up.weight"], matrix @ teachers[f"{other}up.weight"])
        close(tensors[f"{one}up.bias"], matrix @ teachers[f"{other}up.bias"])
    space = SpacePair(1, 3, "final_hidden")
    found = affine.h_s[space] @ tensors[f"{CLASSIFIER}weight"].T + tensors[f"{CLASSIFIER}bias"]
    close(found, affine.h_t[space] @ teachers[f"{CLASSIFIER}weight"].T + teachers[f"{CLASSIFIER}bias"])
    assert {target.action for target in plan.targets} == {"mapped"}


def test_biases_of_averaged_layers_take_on_their_share(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    module = regraft.load(make_module(make_model(layers=4), "bottleneck"))
    plan = regraft.plan(module, make_model(width=48, layers=2), layers="avg", align="ridge", spaces="measured")
    affine = Affine(plan)
    tensors = transfer_tensors(plan, module.tensors, affine.maps)
    key = BOTTLENECK.format("{}") + "down."
    folded = [
        module.tensors[key.format(layer) + "bias"]
        + module.tensors[key.format(layer) + "weight"] @ affine.maps[SpacePair(1, layer, "layer_output")].offset.float()
        for layer in (2, 3)
    ]
    close(tensors[key.format(1) + "bias"], (folded[0] + folded[1]) / 2)
    assert tensors[key.format(1) + "bias"].dtype == torch.float32


def test_weights_without_a_bias_take_on_the_offset_along_a_constant(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    module = regraft.load(make_module(make_model(layers=2), "lora"))
    plan = regraft.plan(module, make_model(width=48, layers=2), align="ridge", spaces="measured")
    teachers = {key: tensor.double() for key, tensor in module.tensors.items()}
    space, a, b = SpacePair(1, 1, "attention_input"), f"{LORA.format(1)}A.weight", f"{LORA.format(1)}B.weight"
    exact = Affine(plan, shrinkage=1e-10, constant=7)
    tensors = transfer_tensors(plan, teachers, exact.maps)
    close(exact.h_s[space] @ tensors[a].T, exact.h_t[space] @ teachers[a].T)
    close(tensors[b], exact.maps[SpacePair(1, 1, "query_output")].writes @ teachers[b])
    rough = Affine(plan)
    acting = rough.maps[space]
    tensors = transfer_tensors(plan, teachers, rough.maps)
    close(tensors[a], teachers[a] @ (acting.reads + torch.outer(acting.offset, acting.constant)))
    dropping = Linear(acting.reads, acting.offset, acting.writes, torch.zeros_like(acting.constant))
    tensors = transfer_tensors(plan, teachers, {**rough.maps, space: dropping})
    close(tensors[a], teachers[a] @ acting.reads)


def test_the_rows_of_a_head_are_ordered_after_folding(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    plain = regraft.load(make_module(make_model(layers=2), "lora", labels=3))
    module = regraft.Module(plain.config, plain.tensors, "named", {"labels": ["a", "b", "c"]})
    student = make_model(width=48, layers=2)
    straight, turned = (
        transfer_tensors(plan, module.tensors, Affine(plan).maps)
        for plan in (
            regraft.plan(module, student, align="ridge", labels=labels) for labels in (list("abc"), list("cab"))
        )
    )
    for leaf in ("weight", "bias"):
        assert torch.equal(turned[CLASSIFIER + leaf], straight[CLASSIFIER + leaf][[2, 0, 1]])


def test_a_head_without_a_bias_folds_along_the_constant(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base, student = make_model("llama", layers=2), make_model("llama", width=48, layers=2)
    module = regraft.load(make_module(base, "lora", 3, "SEQ_CLS"))
    plan = regraft.plan(module, student, align="ridge")
    affine = Affine(plan, shrinkage=1e-10, constant=0)
    teachers = {key: tensor.double() for key, tensor in module.tensors.items()}
    tensors = transfer_tensors(plan, teachers, affine.maps)
    key, space = "base_model.model.score.weight", SpacePair(1, 1, "final_hidden")
    assert not [key for key in tensors if key.endswith("score.bias")]
    close(affine.h_s[space] @ tensors[key].T, affine.h_t[space] @ teachers[key].T)


def test_logits_of_a_head_survive_another_scale_and_offset_of_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "SHRINKAGES", torch.tensor([1e-9], dtype=torch.float64))
    torch.manual_seed(0)
    tokenizer, config = wordpiece_tokenizer(), tiny_config("bert", layers=2, num_labels=3, initializer_range=0.2)
    student = transformers.BertForTokenClassification(config).double().eval()
    teacher = copy.deepcopy(student)
    norm = teacher.bert.encoder.layer[-1].output.LayerNorm
    with torch.no_grad():
        norm.weight.copy_(0.5 + torch.rand(32))
        norm.bias.copy_(torch.randn(32))
    adapted = get_peft_model(teacher, LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["query"])).eval()
    torch.nn.init.normal_(adapted.base_model.model.classifier.modules_to_save["default"].bias)
    adapted.save_pretrained(tmp_path / "teacher")  # LoRA's B is zero: the head alone makes a difference
    batch = tokenizer(make_texts(4, seed=9), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = adapted(**batch).logits
    ported = regraft.transfer(
        regraft.load(tmp_path / "teacher"),
        student=(student.bert, tokenizer),
        teacher=(adapted.unload().bert, tokenizer),
        align="ridge",
        texts=make_texts(60),
        progress=False,
    )
    assert {score["kind"] for score in ported.report["scores"]} == {"linear"}
    assert min(score["r2_read"] for score in ported.report["scores"]) > 1 - 1e-6
    ported.save(tmp_path / "student")
    with torch.no_grad():
        found = PeftModel.from_pretrained(student, str(tmp_path / "student")).eval()(**batch).logits
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "layers"), [("lora", "skip"), ("lora", "avg"), ("bottleneck", "skip")])
@pytest.mark.parametrize("spaces", ["measured", "released"])
def test_ported_modules_load_in_peft(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, kind: str, layers: str, spaces: str
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2, unigram=True)
    module = regraft.load(make_module(teacher, kind, labels=3))
    options = {"layers": layers, "align": "ridge", "spaces": spaces, "texts": make_texts(60), "progress": False}
    ported = regraft.transfer(module, student, **options)
    assert {made["action"] for made in ported.report["tensors"].values()} == {"mapped"}
    assert ported.hash() == regraft.transfer(module, student, **options).hash()
    for score in json.loads(json.dumps(ported.report["scores"])):
        assert score["assigned"] is None
        assert score["matched"] == 48
        assert score["r2_read"] is not None
        # In the authors' spaces modules write where they read.
        read = ("attention_input", "layer_output") if spaces == "measured" else ()
        assert (score["r2_write"] is None) == score["space"].endswith((*read, "final_hidden"))
    ported.save(tmp_path / "ported")
    model = load_peft(student, tmp_path / "ported", 3)
    result = model.load_adapter(str(tmp_path / "ported"), "again")
    assert not result.missing_keys
    assert not result.unexpected_keys
    ids = torch.tensor([[2, 7, 11, 9, 3]])
    assert not torch.equal(model(ids).logits, load_base(student, 3)(ids).logits)


def test_half_precision_modules_stay_in_half_precision(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    module = regraft.load(make_module(make_model(layers=2), "bottleneck"))
    plan = regraft.plan(module, make_model(width=48, layers=2), align="ridge")
    maps = Affine(plan).maps
    rough = {key: tensor.bfloat16() for key, tensor in module.tensors.items()}
    exact = transfer_tensors(plan, {key: tensor.float() for key, tensor in rough.items()}, maps)
    for key, tensor in transfer_tensors(plan, rough, maps).items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, exact[key].bfloat16())


def test_the_command_line_prints_what_linear_maps_predict(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(make_texts(80)))
    moments, module = tmp_path / "moments", make_module(teacher, "lora", 3)
    code, _, error = run("sample", "--teacher", teacher, "--student", student, "--texts", texts, "--out", moments)
    assert code == 0, error
    for align, shown, hidden in (("ridge", ("R2 read", "R2 write"), "held-out r"), ("lsa", ("held-out r", "R2"), "?")):
        port = ("transfer", module, "--student", student, "--align", align, "--spaces", "measured", "--verbose")
        code, output, error = run(*port, "--moments", moments, "--out", tmp_path / align)
        assert code == 0, error
        assert all(title in output for title in shown)
        assert hidden not in output
