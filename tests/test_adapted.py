"""A model with a module in place does what PEFT makes of the two, and is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from conftest import load_base, load_peft, make_texts
from torch import Tensor

import regraft
from regraft.activations.options import RunOptions, SampleOptions
from regraft.activations.sampling import sample
from regraft.models.pretrained import Pretrained, resolve
from regraft.models.sites import SpacePair
from regraft.modules.adapted import AdaptedModel

TEXTS = make_texts(30)
LORA = {
    "plain": {},
    "patterns": {
        "rank_pattern": {"layer.1.attention.self.query": 2, "layer.2.attention.self.value": 7},
        "alpha_pattern": {"layer.0.attention.self.value": 1, "layer.1.attention.self.query": 40},
    },
    "rslora on two layers": {"use_rslora": True, "layers_to_transform": [0, 2]},
}


def observed(
    teacher: Pretrained, student: Pretrained, spaces: list[SpacePair]
) -> dict[SpacePair, tuple[Tensor, Tensor]]:
    """Sample and return the mean and the squares of the teacher's activations."""
    taken = sample(
        teacher, student, spaces, TEXTS, SampleOptions(batch_size=8), RunOptions(quiet=True), covariances=False
    )
    assert taken.pairs == taken.student_tokens
    totals = {space: split.fit + split.held_out for space, split in taken.moments.items()}
    return {space: (total.mean_t, total.squares_t) for space, total in totals.items()}


def real(path: str, model: Any, watched: dict[SpacePair, Callable[[list[Tensor], dict[str, Tensor]], Tensor]]) -> Any:
    """Run PEFT's model, one text at a time, and return the same of what `watched` makes of what it computes."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    entered: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith(("query", "output.LayerNorm", "q_proj")):
            module.register_forward_pre_hook(lambda _, args, name=name: entered.update({name: args[0]}))
    rows: dict[SpacePair, list[Tensor]] = {space: [] for space in watched}
    with torch.no_grad():
        for text in TEXTS:
            states = list(model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states)
            for space, pick in watched.items():
                rows[space].append(pick(states, entered)[0, 1:-1].double())
    found = {space: torch.cat(parts) for space, parts in rows.items()}
    return {space: (x.mean(0), (x - x.mean(0)).square().sum(0)) for space, x in found.items()}


@pytest.mark.parametrize("labels", [None, 3])
@pytest.mark.parametrize("extra", LORA.values(), ids=LORA.keys())
def test_activations_are_those_of_pefts_model_with_lora(
    make_model: Callable[..., str], make_module: Callable[..., str], extra: dict[str, Any], labels: int | None
) -> None:
    base = make_model(layers=3)
    module = make_module(base, "lora", labels, **extra)
    model = load_peft(base, module, labels)
    prefix = "base_model.model.bert." if labels else "base_model.model."
    query = dict(model.named_modules())[f"{prefix}encoder.layer.1.attention.self.query"]
    watched = {
        SpacePair(2, 1, "attention_input"): lambda states, _: states[1],
        SpacePair(2, 2, "attention_input"): lambda states, _: states[2],
        SpacePair(2, 2, "final_hidden"): lambda states, _: states[3],
        # What LoRA adds to: without what it adds itself.
        SpacePair(2, 1, "query_output"): lambda states, _: getattr(query, "base_layer", query)(states[1]),
    }
    found = observed(AdaptedModel.of(resolve(base), regraft.load(module)), resolve(base), list(watched))
    torch.testing.assert_close(found, real(base, model, watched), rtol=1e-4, atol=1e-4)
    bare = observed(resolve(base), resolve(base), list(watched))
    assert (bare[SpacePair(2, 2, "final_hidden")][0] - found[SpacePair(2, 2, "final_hidden")][0]).abs().max() > 0.01


def test_a_bottleneck_reads_what_leaves_the_normalisation_without_it(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=3)
    module = make_module(base, "bottleneck", scaling=1.5, non_linearity="tanh")
    model = load_peft(base, module)
    name = "base_model.model.encoder.layer.{}.output.LayerNorm"
    norms = dict(model.named_modules())
    watched = {
        SpacePair(2, 0, "residual_sum"): lambda _, entered: entered[name.format(0)],
        SpacePair(2, 0, "layer_output"): lambda _, entered: norms[f"{name.format(0)}.base_layer"](
            entered[name.format(0)]
        ),
        SpacePair(2, 1, "attention_input"): lambda states, _: states[1],
        SpacePair(2, 2, "layer_output"): lambda _, entered: norms[f"{name.format(2)}.base_layer"](
            entered[name.format(2)]
        ),
        SpacePair(2, 2, "final_hidden"): lambda states, _: states[3],
    }
    found = observed(AdaptedModel.of(resolve(base), regraft.load(module)), resolve(base), list(watched))
    torch.testing.assert_close(found, real(base, model, watched), rtol=1e-4, atol=1e-4)
    without, behind = (found[SpacePair(2, layer, of)][0] for layer, of in ((0, "layer_output"), (1, "attention_input")))
    assert (without - behind).abs().max() > 0.01
    without, behind = (found[SpacePair(2, 2, of)][0] for of in ("layer_output", "final_hidden"))
    assert (without - behind).abs().max() > 0.01


def test_activations_are_those_of_pefts_decoder(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model("llama", layers=2, num_key_value_heads=2)
    module = make_module(base, "lora")
    watched = {
        SpacePair(1, 1, "attention_input"): lambda _, entered: entered["base_model.model.layers.1.self_attn.q_proj"],
        SpacePair(1, 1, "final_hidden"): lambda states, _: states[2],
    }
    found = observed(AdaptedModel.of(resolve(base), regraft.load(module)), resolve(base), list(watched))
    torch.testing.assert_close(found, real(base, load_peft(base, module), watched), rtol=1e-4, atol=1e-4)


def state(model: Any) -> tuple[object, ...]:
    """Describe all of a model that running it with a module might change."""
    return (
        repr(model),
        [(name, id(module), module.training) for name, module in model.named_modules()],
        [(name, id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        hasattr(model, "peft_config"),
        model.config.to_dict(),
        [(name, len(module._forward_hooks), len(module._forward_pre_hooks)) for name, module in model.named_modules()],
    )


def assert_same(before: tuple[object, ...], after: tuple[object, ...]) -> None:
    assert before[:3] == after[:3]
    torch.testing.assert_close(after[3], before[3], rtol=0, atol=0)
    assert before[4:] == after[4:]


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("labels", [None, 3])
def test_a_loaded_model_is_left_as_it_was(
    make_model: Callable[..., str], make_module: Callable[..., str], kind: str, labels: int | None
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, kind))
    model = load_base(base, labels).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layer.1" in name)
    before = state(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    adapted = AdaptedModel.of(resolve((model, tokenizer)), module)
    with adapted.running(None, None) as running:
        assert not running.training
        assert any("default" in name for name, _ in running.named_parameters())
    assert_same(before, state(model))
    with pytest.raises(KeyboardInterrupt), adapted.running(None, None):
        raise KeyboardInterrupt
    assert_same(before, state(model))
    wrong = {key: torch.cat([tensor, tensor]) for key, tensor in adapted.tensors.items()}
    broken = AdaptedModel(**{**vars(adapted), "tensors": wrong})
    with pytest.raises(RuntimeError, match="size mismatch"), broken.running(None, None):
        pass
    assert_same(before, state(model))


def test_a_model_that_saves_memory_by_checkpoints_is_left_as_it_was(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    model = load_base(base)
    model.gradient_checkpointing_enable()
    before = state(model)
    with AdaptedModel.of(resolve(model), regraft.load(make_module(base))).running(None, None):
        pass
    assert_same(before, state(model))
