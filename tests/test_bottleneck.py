"""The bottleneck adapter equals AdapterHub's and behaves in PEFT as LoRA does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import FIXTURES, load_peft, make_texts, tiny_config
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

import regraft
from regraft import BottleneckConfig, RegraftError
from regraft.models.families import FAMILIES

HUB = FIXTURES / "adapterhub"
ENCODERS = sorted(name for name, family in FAMILIES.items() if "output_norm" in family.sites)
WIDTHS = {"bert": 12, "distilbert": 12, "xlm-roberta": 16}


def adapted(model_type: str = "bert", **config: object) -> PeftModel:
    model = transformers.AutoModel.from_config(tiny_config(model_type))
    return get_peft_model(model, BottleneckConfig(bottleneck_size=6, **config)).eval()


def perturb(model: torch.nn.Module, part: str = "bottleneck_") -> None:
    for name, parameter in model.named_parameters():
        if part in name:
            torch.nn.init.normal_(parameter, std=0.3)


IDS = torch.tensor([[2, 7, 11, 9, 3], [2, 8, 30, 3, 0]])


@pytest.mark.parametrize("family", ["bert", "distilbert", "xlm-roberta"])
def test_outputs_equal_those_of_the_adapters_library(family: str) -> None:
    base = transformers.AutoModel.from_pretrained(HUB / family / "base")
    expected = load_file(HUB / family / "expected.safetensors")
    model = get_peft_model(base, BottleneckConfig(bottleneck_size=WIDTHS[family])).eval()
    weights = torch.load(HUB / family / "pfeiffer" / "pytorch_adapter.bin", weights_only=True)
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in weights.items():
            path, _, part = name.replace(".output_adapters.", ".output.").partition(".output.adapters.pfeiffer.")
            norm = "output_layer_norm" if family == "distilbert" else "output.LayerNorm"
            side, leaf = part.removeprefix("adapter_").split(".", 1)
            state[f"base_model.model.{path}.{norm}.bottleneck_{side}.default.{leaf.removeprefix('0.')}"].copy_(tensor)
        output = model(expected["input_ids"]).last_hidden_state
        with model.disable_adapter():
            without = model(expected["input_ids"]).last_hidden_state
    torch.testing.assert_close(output, expected["hidden.pfeiffer"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(without, expected["hidden.none"], atol=1e-5, rtol=1e-5)
    assert (output - without).abs().max() > 1e-2


@pytest.mark.parametrize("model_type", ENCODERS)
def test_default_targets_are_the_output_norm_of_every_layer(model_type: str) -> None:
    model = adapted(model_type)
    names = model.base_model.targeted_module_names
    stacks = [FAMILIES[model_type], *FAMILIES[model_type].stacks.values()]
    norms = [
        f"{stack.layers}.{i}.{stack.sites['output_norm']}"
        for stack in stacks
        for i in range(4)
        if "output_norm" in stack.sites
    ]
    assert [name.removeprefix("bert.") for name in names] == norms


def test_initialisation_is_adapterhubs() -> None:
    torch.manual_seed(0)
    model = get_peft_model(
        transformers.AutoModel.from_config(tiny_config("bert", width=64)), BottleneckConfig(bottleneck_size=48)
    )
    for name, parameter in model.named_parameters():
        if "bottleneck_" in name and name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)
        elif "bottleneck_" in name:
            assert parameter.abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("gelu", torch.nn.functional.gelu),
        ("swish", torch.nn.functional.silu),
        ("tanh", torch.tanh),
    ],
)
def test_forward_by_hand(name: str, function: object) -> None:
    model = adapted(non_linearity=name, scaling=0.5)
    perturb(model)
    layer = model.base_model.model.encoder.layer[1].output.LayerNorm
    z = torch.randn(3, 32)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    expected = layer.base_layer(z + 0.5 * up(function(down(layer.base_layer(z)))))
    torch.testing.assert_close(layer(z), expected)


def test_save_and_load_through_peft(tmp_path: Path) -> None:
    model = adapted()
    perturb(model)
    model.save_pretrained(tmp_path)
    base = transformers.AutoModel.from_config(model.config)
    base.load_state_dict(model.get_base_model().state_dict(), strict=False)
    with model.disable_adapter():
        fresh = transformers.AutoModel.from_config(model.config)
    clean = {key.replace("base_layer.", ""): value for key, value in model.get_base_model().state_dict().items()}
    fresh.load_state_dict({key: value for key, value in clean.items() if "bottleneck_" not in key})
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
    assert loaded.peft_config["default"].bottleneck_size == 6
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).last_hidden_state, model(IDS).last_hidden_state, rtol=0, atol=0)


def test_several_adapters_switch_add_up_and_go() -> None:
    model = adapted()
    model.add_adapter("second", BottleneckConfig(bottleneck_size=3))
    perturb(model)
    outputs = {}
    with torch.no_grad():
        for name in ("default", "second"):
            model.set_adapter(name)
            outputs[name] = model(IDS).last_hidden_state
        model.base_model.set_adapter(["default", "second"])
        both = model(IDS).last_hidden_state
        layer = model.base_model.model.encoder.layer[0].output.LayerNorm
        z = torch.randn(2, 32)
        out = layer.base_layer(z)
        expected = layer.base_layer(z + layer._delta(out, "default") + layer._delta(out, "second"))
        torch.testing.assert_close(layer(z), expected)
        model.delete_adapter("second")
        model.set_adapter("default")
        torch.testing.assert_close(model(IDS).last_hidden_state, outputs["default"], rtol=0, atol=0)
    assert not torch.allclose(outputs["default"], outputs["second"])
    assert not torch.allclose(both, outputs["default"])


def test_only_the_adapter_and_the_head_train() -> None:
    base = transformers.AutoModelForTokenClassification.from_config(tiny_config("bert", num_labels=3))
    model = get_peft_model(base, BottleneckConfig(bottleneck_size=6, task_type="TOKEN_CLS"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(input_ids=IDS, labels=torch.ones_like(IDS)).loss.backward()
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("bottleneck_up" in name for name in changed)
    assert any("modules_to_save" in name for name in changed)
    assert all("bottleneck_" in name or "modules_to_save" in name for name in changed)


def test_linear_modules_can_be_wrapped_too() -> None:
    config = tiny_config("llama")
    model = get_peft_model(
        transformers.AutoModel.from_config(config), BottleneckConfig(bottleneck_size=6, target_modules=["down_proj"])
    ).eval()
    perturb(model)
    layer = model.base_model.model.layers[2].mlp.down_proj
    x = torch.randn(3, 64)
    out = layer.base_layer(x)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    torch.testing.assert_close(layer(x), out + up(torch.relu(down(out))))


def test_unload_restores_the_base_model_and_merging_is_refused() -> None:
    model = adapted()
    perturb(model)
    with torch.no_grad(), model.disable_adapter():
        expected = model(IDS).last_hidden_state
    with pytest.raises(RegraftError, match="cannot be merged"):
        model.merge_and_unload()
    with pytest.raises(RegraftError, match="cannot be merged"):
        model.merge_adapter()
    with pytest.raises(RegraftError, match="cannot be merged"):
        model.unmerge_adapter()
    base = model.unload()
    with torch.no_grad():
        torch.testing.assert_close(base(IDS).last_hidden_state, expected, rtol=0, atol=0)
    assert not any("bottleneck" in name for name, _ in base.named_modules())


def test_half_precision_base_keeps_its_type() -> None:
    base = transformers.AutoModel.from_config(tiny_config("bert")).to(torch.bfloat16)
    model = get_peft_model(base, BottleneckConfig(bottleneck_size=6)).eval()
    assert model(IDS).last_hidden_state.dtype == torch.bfloat16


def test_mistakes_are_refused_in_words() -> None:
    with pytest.raises(RegraftError, match=r"unknown non_linearity 'rellu'.*did you mean 'relu'"):
        BottleneckConfig(non_linearity="rellu")
    with pytest.raises(RegraftError, match="bottleneck_size is 0"):
        BottleneckConfig(bottleneck_size=0)
    with pytest.raises(RegraftError, match="expected a normalisation or a linear layer"):
        adapted(target_modules=["intermediate_act_fn"])


def test_widths_are_read_as_those_of_other_layers_of_peft() -> None:
    layer = adapted().base_model.model.encoder.layer[0].output.LayerNorm
    assert (layer.in_features, layer.out_features) == (32, 32)
    model = adapted("llama", target_modules=["down_proj"])
    layer = model.base_model.model.layers[0].mlp.down_proj
    assert (layer.in_features, layer.out_features) == (64, 32)
    gpt = transformers.AutoModel.from_config(
        transformers.GPT2Config(n_embd=32, n_layer=1, n_head=4, n_inner=64, vocab_size=50)
    )
    model = get_peft_model(gpt, BottleneckConfig(bottleneck_size=6, target_modules=["mlp.c_proj"]))
    layer = model.base_model.model.h[0].mlp.c_proj
    assert (layer.in_features, layer.out_features) == (64, 32)


def test_a_weighted_sum_is_refused_in_words() -> None:
    model = adapted()
    model.add_adapter("second", BottleneckConfig(bottleneck_size=3))
    with pytest.raises(RegraftError, match=r"cannot be added up .* their outputs add up"):
        model.add_weighted_adapter(["default", "second"], [0.5, 0.5], "both")


def two_adapters(base: torch.nn.Module, **config: object) -> PeftModel:
    """Put two adapters on a model; the second lies in fewer layers."""
    model = get_peft_model(base, BottleneckConfig(bottleneck_size=6, **config))
    some = {"layers_to_transform": [1], "layers_pattern": ["block", "layer", "layers"]}
    model.add_adapter("second", BottleneckConfig(bottleneck_size=3, **some, **config))
    torch.manual_seed(0)
    perturb(model)
    perturb(model, "modules_to_save")
    return model.eval()


ROWS = ["second", "__base__", "default", "default", "second"]
ROW_IDS = torch.randint(3, 100, (5, 7), generator=torch.Generator().manual_seed(0))


def row_by_row(model: PeftModel, call: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Run each row alone, with the adapter it is to have."""
    outputs = []
    for name, ids in zip(ROWS, ROW_IDS, strict=True):
        if name == "__base__":
            with model.disable_adapter():
                outputs.append(call(input_ids=ids[None]))
        else:
            model.set_adapter(name)
            outputs.append(call(input_ids=ids[None]))
    model.set_adapter("default")
    return torch.cat(outputs)


@torch.no_grad()
@pytest.mark.parametrize("model_type", [*ENCODERS, "llama"])
def test_a_mixed_batch_gives_each_row_its_adapter(model_type: str) -> None:
    targets = {} if model_type in ENCODERS else {"target_modules": ["down_proj"]}
    model = two_adapters(transformers.AutoModel.from_config(tiny_config(model_type)), **targets)
    expected = row_by_row(model, lambda **inputs: model(**inputs).last_hidden_state)
    mixed = model(input_ids=ROW_IDS, adapter_names=ROWS).last_hidden_state
    torch.testing.assert_close(mixed, expected)
    assert not torch.allclose(mixed, model(input_ids=ROW_IDS).last_hidden_state)


@torch.no_grad()
def test_a_mixed_batch_gives_each_row_its_task_head() -> None:
    base = transformers.AutoModelForTokenClassification.from_config(tiny_config("bert", num_labels=3))
    model = two_adapters(base, task_type="TOKEN_CLS")
    expected = row_by_row(model, lambda **inputs: model(**inputs).logits)
    torch.testing.assert_close(model(input_ids=ROW_IDS, adapter_names=ROWS).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("model_type", "auto_class", "target"),
    [
        ("llama", transformers.AutoModelForCausalLM, "down_proj"),
        ("t5", transformers.AutoModelForSeq2SeqLM, "wo"),  # its encoder sees each row once
    ],
)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_mixed_batch_generates_what_each_row_does_alone(
    model_type: str, auto_class: type, target: str, beams: int
) -> None:
    torch.manual_seed(0)
    if model_type == "t5":
        config = transformers.T5Config(
            d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=150, decoder_start_token_id=0
        )
    else:
        config = tiny_config(model_type)
    model = two_adapters(auto_class.from_config(config), target_modules=[target])
    options = {"num_beams": beams, "min_new_tokens": 6, "max_new_tokens": 6, "do_sample": False}
    expected = row_by_row(model, lambda **inputs: model.generate(**inputs, **options))
    mixed = model.generate(input_ids=ROW_IDS, adapter_names=ROWS, **options)
    assert torch.equal(mixed, expected)
    assert not torch.equal(mixed, model.generate(input_ids=ROW_IDS, **options))


@torch.no_grad()
def test_a_mixed_batch_that_cannot_be_is_refused() -> None:
    model = two_adapters(transformers.AutoModel.from_config(tiny_config("bert")))
    expected = model(input_ids=ROW_IDS).last_hidden_state
    with pytest.raises(RegraftError, match=r"same as the number of inputs, but got 4 and 5"):
        model(input_ids=ROW_IDS, adapter_names=ROWS[:4])
    with pytest.raises(RegraftError, match=r"non-existing adapter.*: thrid; expected default, second or __base__"):
        model(input_ids=ROW_IDS, adapter_names=[*ROWS[:4], "thrid"])
    with pytest.raises(RegraftError, match="in training mode"):
        model.train()(input_ids=ROW_IDS, adapter_names=ROWS)
    # Nothing of a refused call is left behind.
    torch.testing.assert_close(model.eval()(input_ids=ROW_IDS).last_hidden_state, expected, rtol=0, atol=0)
    with model.disable_adapter():
        base = model(input_ids=ROW_IDS).last_hidden_state
        torch.testing.assert_close(model(input_ids=ROW_IDS, adapter_names=ROWS).last_hidden_state, base)


@pytest.mark.parametrize("layers", [2, [2], [1, 3]])
@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_layers_can_be_chosen_with_the_default_targets(
    make_model: Callable[..., str], make_module: Callable[..., str], model_type: str, layers: int | list[int]
) -> None:
    base = make_model(model_type)
    module = make_module(base, "bottleneck", layers_to_transform=layers)
    names = load_peft(base, module).base_model.targeted_module_names
    family = FAMILIES[model_type]
    numbers = [layers] if isinstance(layers, int) else layers
    assert names == [f"{family.layers}.{number}.{family.sites['output_norm']}" for number in numbers]


def test_layers_can_be_chosen_among_named_targets() -> None:
    model = adapted("llama", target_modules=["down_proj"], layers_to_transform=[1, 2], layers_pattern="layers")
    assert model.base_model.targeted_module_names == ["layers.1.mlp.down_proj", "layers.2.mlp.down_proj"]
    for option in ({"layers_to_transform": [1]}, {"layers_pattern": "layers"}):
        with pytest.raises(RegraftError, match=f"`{next(iter(option))}` cannot be used when `target_modules` is a str"):
            BottleneckConfig(target_modules=".*down_proj", **option)
    with pytest.raises(RegraftError, match="`layers_to_transform` must also be specified"):
        BottleneckConfig(target_modules=["down_proj"], layers_pattern="layers")


@pytest.mark.parametrize("targets", [None, ["output_layer_norm"]])
def test_a_bottleneck_in_some_layers_is_ported_to_their_counterparts(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, targets: list[str] | None
) -> None:
    teacher, student = make_model("distilbert"), make_model("bert", layers=2)
    module = make_module(teacher, "bottleneck", target_modules=targets, layers_to_transform=[1, 2])
    ported = regraft.transfer(regraft.load(module), student, align="none")
    assert ported.config["layers_to_transform"] is None
    ported.save(tmp_path / "ported")
    assert regraft.transfer(regraft.load(module), student, texts=make_texts(40)).tensors.keys() == ported.tensors.keys()
    assert "import regraft" in (tmp_path / "ported" / "README.md").read_text()
    loaded = load_peft(student, tmp_path / "ported")
    assert loaded.base_model.targeted_module_names == ["encoder.layer.1.output.LayerNorm"]
    given = load_peft(teacher, module).base_model.model.transformer.layer[2].output_layer_norm
    taken = loaded.base_model.model.encoder.layer[1].output.LayerNorm
    assert torch.equal(taken.bottleneck_up["default"].weight, given.bottleneck_up["default"].weight)
