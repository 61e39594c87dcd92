from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import make_texts, peft_config
from peft import get_peft_model

import regraft
from regraft.errors import ModelError, ModuleFileError, PlanError, SamplingError
from regraft.models.pretrained import resolve


@pytest.fixture
def configs_only(make_model: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """Write models without any weights."""

    def make(model_type: str = "bert", **sizes: object) -> str:
        source = Path(make_model(model_type, **sizes))
        path = tmp_path / f"{source.name}-bare"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_bytes((source / "config.json").read_bytes())
        return str(path)

    return make


def test_plan_reads_no_weights_and_accounts_for_every_tensor(
    make_model: Callable[..., str], make_module: Callable[..., str], configs_only: Callable[..., str]
) -> None:
    module = regraft.load(make_module(make_model(layers=4), "lora", labels=3))
    plan = regraft.plan(
        module, configs_only("distilbert", width=48, layers=2), configs_only(layers=4), align="lsa", spaces="measured"
    )
    assert not plan.problems
    actions = [target.action for target in plan.targets]
    assert actions.count("mapped") == 9  # four LoRA tensors in each layer, and the head's weight
    assert actions.count("copied") == 1  # its bias
    assert set(plan.widths.values()) == {(48, 32)}
    names = {"attention_input", "query_output", "value_output", "final_hidden"}
    assert {space.name for space in plan.widths} == names
    used = {part.tensor for target in plan.targets for part in target.parts}
    assert used | set(plan.left) == set(module.tensors)


def test_a_plan_refuses_before_any_work_when_widths_differ(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    module = regraft.load(make_module(make_model(width=48, layers=2), "bottleneck"))
    plan = regraft.plan(module, make_model(width=32, layers=2))
    assert len(plan.problems) == 2  # one per space: what it reads and what it writes
    with pytest.raises(PlanError, match=r"output_norm is 48 wide .* and 32 in .* use --align auto"):
        plan.check()
    with pytest.raises(PlanError, match="use --align auto"):
        regraft.transfer(module, make_model(width=32, layers=2))


def test_a_module_whose_base_differs_from_the_named_teacher_is_refused(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    module = regraft.load(make_module(make_model(width=48, layers=2), "lora"))
    with pytest.raises(ModuleFileError, match=r"of shape \(4, 48\), but on .* it would be \(4, 32\).*--teacher"):
        regraft.plan(module, make_model(layers=2), teacher=make_model(layers=2))
    shallow = regraft.load(make_module(make_model(layers=4), "lora"))
    with pytest.raises(ModuleFileError, match=r"tensors on query of layer 2, which .* lacks"):
        regraft.plan(shallow, make_model(layers=2), teacher=make_model(layers=2))


def test_depth_and_widths_come_from_any_name_a_user_may_have(make_model: Callable[..., str]) -> None:
    path = make_model(layers=2)
    model = transformers.AutoModel.from_pretrained(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    for name in (path, Path(path), model, (model, tokenizer), (path, tokenizer)):
        assert resolve(name).config.num_hidden_layers == 2
    with pytest.raises(ModelError, match="got a int for a model, expected a model id, a directory"):
        resolve(3)
    with pytest.raises(ModelError, match=r"pass the pair \(model, tokenizer\)"):
        resolve(model).tokenizer()


def test_models_that_cannot_be_understood_are_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"is a directory without config\.json"):
        resolve(str(tmp_path))
    transformers.ResNetConfig().save_pretrained(tmp_path / "resnet")
    with pytest.raises(ModelError, match=r"ResNetModel has no list of layers with linear layers in them"):
        _ = resolve(str(tmp_path / "resnet")).family
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot read the configuration of model 'someone/nothing'"):
        resolve("someone/nothing")


def test_a_module_that_names_no_base_needs_a_teacher(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora"))
    nameless = regraft.Module({**module.config, "base_model_name_or_path": None}, module.tensors, "m")
    with pytest.raises(ModuleFileError, match=r"names no base model, .*--teacher"):
        regraft.plan(nameless, base)
    assert not regraft.plan(nameless, base, teacher=base).problems


def test_target_modules_are_short_where_they_can_be_and_exact_always(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    teacher = make_model(layers=4)
    lora = regraft.load(make_module(teacher, "lora"))
    assert regraft.plan(lora, make_model("distilbert", layers=2)).config["target_modules"] == ["q_lin", "v_lin"]
    # "dense" alone would also match the feed-forward block.
    output = regraft.load(make_module(teacher, "lora", target_modules=r".*attention\.output\.dense"))
    plan = regraft.plan(output, make_model(layers=2))
    assert plan.config["target_modules"] == r"(?:.*\.)?encoder\.layer\.(?:(?:0|1)\.attention\.output\.dense)"
    assert {target.place for target in plan.targets} == {(0, "attention_output"), (1, "attention_output")}


def test_tensors_of_no_known_site_are_refused_by_name(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    both = regraft.load(make_module(base, "lora", target_modules=["query", "word_embeddings"]))
    plan = regraft.plan(both, base)
    strange = {key for key in plan.left if "lora_embedding" in key}
    assert len(strange) == 2
    only = regraft.load(make_module(base, "lora", target_modules=["word_embeddings"]))
    with pytest.raises(ModuleFileError, match=r"no tensor on a known site \(found .*lora_embedding_A"):
        regraft.plan(only, base)


def test_explicit_layers_and_unknown_choices(make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    module = regraft.load(make_module(teacher, "lora"))
    plan = regraft.plan(module, student, layers=[3, 1])
    assert [[share.layer for share in group] for group in plan.groups[""]] == [[3], [1]]
    with pytest.raises(PlanError, match=r"unknown spaces 'measurd'.*did you mean 'measured'"):
        regraft.plan(module, student, spaces="measurd")
    with pytest.raises(PlanError, match="unknown alignment"):
        regraft.plan(module, student, align="lisa")


def test_a_model_far_larger_than_memory_is_planned(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8192, "num_attention_heads": 64, "intermediate_size": 28672, "num_key_value_heads": 8}
    for name, layers in (("teacher", 80), ("student", 40)):
        transformers.LlamaConfig(num_hidden_layers=layers, **sizes).save_pretrained(tmp_path / name)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    tensors = {}
    for layer in range(80):
        key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        tensors |= {f"{key}A.weight": torch.zeros(2, 8192), f"{key}B.weight": torch.zeros(8192, 2)}
    plan = regraft.plan(
        regraft.Module(config, tensors, "lora"), str(tmp_path / "student"), teacher=str(tmp_path / "teacher")
    )
    assert not plan.problems
    assert len(plan.targets) == 80


def test_a_module_that_lacks_one_of_its_tensors_is_refused(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora"))
    kept = {key: tensor for key, tensor in module.tensors.items() if "layer.1.attention.self.value.lora_B" not in key}
    with pytest.raises(PlanError, match=r"has nothing for .*layer\.1\.attention\.self\.value\.lora_B.* complete\?"):
        regraft.transfer(regraft.Module(module.config, kept, "m"), base)


def test_a_port_of_which_nothing_is_left_says_why(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    module = regraft.load(make_module(make_model("llama", layers=2), "lora", target_modules=["gate_proj"]))
    with pytest.raises(PlanError, match=r"nothing of .* lands on .*: .* has no ff_gate"):
        regraft.plan(module, make_model(layers=2))
    last = regraft.load(make_module(make_model(layers=4), "lora", layers_to_transform=[3], layers_pattern="layer"))
    with pytest.raises(PlanError, match="its layers are not taken over"):
        regraft.plan(last, make_model(layers=2))


@pytest.mark.parametrize("whole", ["pooler", "word_embeddings"])
def test_pretrained_parts_saved_whole_are_refused(
    make_model: Callable[..., str], make_module: Callable[..., str], whole: str
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    for labels in (3, None):
        module = regraft.load(make_module(teacher, "lora", labels, modules_to_save=[whole]))
        if whole == "pooler" and labels:
            continue  # token classification models have none
        with pytest.raises(PlanError, match=f"holds .*{whole}.* whole .* train the module without it"):
            regraft.transfer(module, student)


def test_language_model_heads_saved_whole_are_refused(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model("llama", layers=2)
    module = regraft.load(make_module(base, "lora"))
    tensors = {key.replace("model.layers", "model.model.layers"): tensor for key, tensor in module.tensors.items()}
    head = {"base_model.model.lm_head.weight": torch.zeros(150, 32)}
    config = {**module.config, "task_type": "CAUSAL_LM", "auto_mapping": None}
    assert not regraft.plan(regraft.Module(config, tensors, "m"), base).problems
    saved = regraft.Module({**config, "modules_to_save": ["lm_head"]}, {**tensors, **head}, "m")
    with pytest.raises(PlanError, match=r"holds lm_head\.weight whole"):
        regraft.transfer(saved, base)


@pytest.mark.filterwarnings("ignore:Adapter")  # PEFT takes the bias for a torn matrix
def test_tensors_that_the_configuration_does_not_provide_for_are_refused(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora", lora_bias=True))
    assert not regraft.plan(module, base).problems
    with pytest.raises(PlanError, match=r"leads to .*lora_B\.bias, which its own configuration does not provide for"):
        regraft.transfer(regraft.Module({**module.config, "lora_bias": False}, module.tensors, "m"), base)


def test_the_class_of_the_base_model_survives(make_model: Callable[..., str], tmp_path: Path) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    model = transformers.AutoModelForMaskedLM.from_pretrained(teacher)
    get_peft_model(model, peft_config("lora", "bert")).save_pretrained(tmp_path / "mlm")
    plan = regraft.plan(regraft.load(tmp_path / "mlm"), student)
    assert all(target.key.startswith("base_model.model.bert.encoder") for target in plan.targets)
    assert plan.config["auto_mapping"]["base_model_class"] == "BertForMaskedLM"


def test_defaults_that_a_configuration_leaves_out_are_pefts(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora", r=8, lora_alpha=8))
    short = {key: value for key, value in module.config.items() if key not in ("r", "lora_alpha")}
    assert regraft.transfer(regraft.Module(short, module.tensors, "m"), base).hash() == module.hash()


def test_what_transfer_does_not_understand_is_refused_in_words(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora", labels=3))
    with pytest.raises(PlanError, match="scale: found None, expected a number or auto"):
        regraft.transfer(module, base, scale=None)
    with pytest.raises(SamplingError, match="found an empty list of moments"):
        regraft.transfer(module, base, align="lsa", moments=[])
    with pytest.raises(PlanError, match=r"found a judge beside scale 1\.0"):
        regraft.transfer(module, base, judge=lambda _: 0)
    with pytest.raises(PlanError, match=r"scores with a head drawn at random; use --head teacher"):
        regraft.transfer(
            module, base, head="fresh", texts=make_texts(40), scale="auto", judge=lambda _: 0, progress=False
        )


def test_a_plan_takes_none_for_the_default_alignment(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora"))
    assert regraft.plan(module, base, align=None) == regraft.plan(module, base, align="none")
