"""AdapterHub's directories are PEFT's modules by other names: the same outputs, the same bits, or a refusal."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import FIXTURES, load_peft
from fake_hub import fake_hub
from peft import LoHaConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import regraft
from regraft.errors import ModuleFileError
from regraft.models.families import FAMILIES
from regraft.models.pretrained import HEAD_CLASSES
from regraft.modules.adapterhub.methods import reduction_factor

HUB = FIXTURES / "adapterhub"
ENCODERS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
LABELS = ("no", "maybe", "yes")
ALL_SITES = ("query", "key", "value", "ff_up", "ff_down")


def targets(model_type: str, *sites: str) -> list[str]:
    return [FAMILIES[model_type].sites[site].rpartition(".")[2] for site in sites]


def trained(base: str, config: Any, task: str = "") -> regraft.Module:
    """Return a module as PEFT saves it, with random weights, for a model with three labels."""
    auto_class = getattr(transformers, f"AutoModel{HEAD_CLASSES.get(task, '')}")
    model = auto_class.from_pretrained(base, **({"num_labels": 3} if task in ("TOKEN_CLS", "SEQ_CLS") else {}))
    config.task_type = task or None
    if task == "SEQ_CLS" and model.config.model_type == "distilbert":
        config.modules_to_save = ["pre_classifier"]
    model = get_peft_model(model, config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return regraft.load(folder)


def targeted(module: regraft.Module, base: str) -> set[str]:
    """Return the paths of the layers that PEFT wraps for a module."""
    model = transformers.AutoModel.from_pretrained(base)
    config = {**module.config, "task_type": None, "modules_to_save": None}
    peft_config = LoraConfig if module.peft_type == "LORA" else regraft.BottleneckConfig
    return set(get_peft_model(model, peft_config(**config)).base_model.targeted_module_names)


def files(kind: str, **changes: Any) -> Callable[[Path], Path]:
    """Copy the BERT fixture, with changed fields of the adapter's configuration."""

    def write(to: Path) -> Path:
        to.mkdir()
        for file in (HUB / "bert" / kind).iterdir():
            (to / file.name).write_bytes(file.read_bytes())
        change(to / "adapter_config.json", config=changes)
        return to

    return write


def change(path: Path, config: dict[str, Any] | None = None, **outside: Any) -> None:
    """Change fields of a configuration file; None removes a field."""
    content = json.loads(path.read_text()) | outside
    content = {key: value for key, value in content.items() if value is not None}
    if config:
        content["config"] |= config
    path.write_text(json.dumps(content))


def add_head(directory: Path, fields: dict[str, Any] | None, tensors: dict[str, torch.Tensor], **outside: Any) -> None:
    common = {"model_type": "bert", "model_class": "BertAdapterModel", "name": "lora", "hidden_size": 48}
    (directory / "head_config.json").write_text(json.dumps({**common, "config": fields, **outside}))
    torch.save(tensors, directory / "pytorch_model_head.bin")


def linear(key: str, rows: int, columns: int = 48) -> dict[str, torch.Tensor]:
    return {f"{key}.weight": torch.randn(rows, columns), f"{key}.bias": torch.randn(rows)}


@pytest.mark.parametrize("kind", ["pfeiffer", "lora"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "xlm-roberta"])
def test_outputs_equal_those_of_the_adapters_library(family: str, kind: str, tmp_path: Path) -> None:
    regraft.load(HUB / family / kind).save(tmp_path / "peft")
    expected = load_file(HUB / family / "expected.safetensors")
    with torch.no_grad():
        output = load_peft(str(HUB / family / "base"), tmp_path / "peft")(expected["input_ids"]).last_hidden_state
    torch.testing.assert_close(output, expected[f"hidden.{kind}"], atol=1e-5, rtol=1e-5)
    assert (output - expected["hidden.none"]).abs().max() > 1e-2


def test_what_a_converted_module_says_of_itself() -> None:
    module = regraft.load(HUB / "bert" / "lora")
    assert (module.peft_type, module.config["r"], module.config["lora_alpha"]) == ("LORA", 8, 16)
    assert module.config["target_modules"] == ["query", "value"]
    assert module.config["task_type"] is None
    assert module.base_model == ""
    assert module.provenance["converted"] == {
        "format": "adapterhub",
        "source": str(HUB / "bert" / "lora"),
        "name": "lora",
        "version": "adapters.1.3.0",
    }


@pytest.mark.parametrize("task", ["", "TOKEN_CLS", "SEQ_CLS", "QUESTION_ANS"])
@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_round_trip_is_bit_for_bit(
    make_model: Callable[..., str], tmp_path: Path, model_type: str, kind: str, task: str
) -> None:
    base = make_model(model_type, layers=2)
    lora = LoraConfig(r=3, lora_alpha=7, lora_dropout=0.1, target_modules=targets(model_type, "query", "key"))
    bottleneck = regraft.BottleneckConfig(bottleneck_size=5, non_linearity="gelu", scaling=0.5)
    module = trained(base, lora if kind == "lora" else bottleneck, task)
    if task in ("TOKEN_CLS", "SEQ_CLS"):
        module = regraft.Module(module.config, module.tensors, module.source, {"labels": LABELS})
    module.save_adapterhub(tmp_path / "hub", name="ner")
    again = regraft.load(tmp_path / "hub")
    assert again.hash() == module.hash()
    assert again.labels == module.labels
    assert targeted(again, base) == targeted(module, base)
    kept = ("r", "lora_alpha", "lora_dropout") if kind == "lora" else ("bottleneck_size", "scaling", "non_linearity")
    for option in ("peft_type", "task_type", "base_model_name_or_path", *kept):
        assert again.config[option] == module.config[option], option
    assert set(again.config["modules_to_save"] or ()) == set(module.config["modules_to_save"] or ())
    hub = torch.load(tmp_path / "hub" / "pytorch_adapter.bin", weights_only=True)
    assert all(key.split(".")[0] == ("roberta" if "roberta" in model_type else model_type) for key in hub)
    again.save(tmp_path / "peft")
    assert regraft.load(tmp_path / "peft").hash() == module.hash()


@pytest.mark.parametrize("model_type", ENCODERS)
def test_layers_may_be_left_out(make_model: Callable[..., str], tmp_path: Path, model_type: str) -> None:
    base = make_model(model_type, layers=4)
    family = FAMILIES[model_type]
    lora = LoraConfig(target_modules=family.pattern_of((layer, site) for layer in (0, 2) for site in ALL_SITES))
    bottleneck = regraft.BottleneckConfig(target_modules=family.pattern_of([(1, "output_norm"), (2, "output_norm")]))
    for name, config, left_out in (("lora", lora, [1, 3]), ("bottleneck", bottleneck, [0, 3])):
        module = trained(base, config)
        module.save_adapterhub(tmp_path / name)
        written = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert written["config"]["leave_out"] == left_out
        again = regraft.load(tmp_path / name)
        assert again.hash() == module.hash()
        assert targeted(again, base) == targeted(module, base)
        model = load_peft(base, again.save(tmp_path / f"{name}-peft"))
        assert set(model.base_model.targeted_module_names) == targeted(module, base)


def test_lora_is_scaled_by_alpha_over_r(tmp_path: Path) -> None:
    directory = files("lora", alpha=24)(tmp_path / "hub")  # r is 8
    tensors = torch.load(directory / "pytorch_adapter.bin", weights_only=True)
    up, down = (tensors[f"encoder.layer.1.attention.self.query.loras.lora.lora_{side}"] for side in "BA")
    regraft.load(directory).save(tmp_path / "peft")
    base = str(HUB / "bert" / "base")
    before = load_file(HUB / "bert" / "base" / "model.safetensors")["encoder.layer.1.attention.self.query.weight"]
    after = load_peft(base, tmp_path / "peft").merge_and_unload().encoder.layer[1].attention.self.query.weight
    torch.testing.assert_close(after, before + 3 * up @ down)


def test_versions_before_1_1_ignored_alpha(tmp_path: Path) -> None:
    for version, alpha in (("adapters.1.0.1", 8), ("adapters.1.1.0", 16), ("3.2.1", 16)):
        directory = files("lora")(tmp_path / version)
        change(directory / "adapter_config.json", version=version)
        assert regraft.load(directory).config["lora_alpha"] == alpha, version


def test_bottleneck_is_scaled_by_its_factor(tmp_path: Path) -> None:
    directory = files("pfeiffer", scaling=4.0, non_linearity="silu")(tmp_path / "hub")
    tensors = torch.load(directory / "pytorch_adapter.bin", weights_only=True)
    regraft.load(directory).save(tmp_path / "peft")
    layer = load_peft(str(HUB / "bert" / "base"), tmp_path / "peft").base_model.model.encoder.layer[2].output.LayerNorm
    key = "encoder.layer.2.output.adapters.pfeiffer.adapter"
    z = torch.randn(3, 48)
    hidden = layer.base_layer(z) @ tensors[f"{key}_down.0.weight"].T + tensors[f"{key}_down.0.bias"]
    up = torch.nn.functional.silu(hidden) @ tensors[f"{key}_up.weight"].T + tensors[f"{key}_up.bias"]
    torch.testing.assert_close(layer(z), layer.base_layer(z + 4 * up))


@pytest.mark.parametrize("width", [48, 312, 768, 1024])
def test_the_library_computes_our_size_from_the_reduction_factor(width: int) -> None:
    for size in range(1, width + 100):
        factor = json.loads(json.dumps(reduction_factor(width, size)))
        assert int(width // factor) == size
    assert reduction_factor(768, 48) == 16


def test_keys_may_have_the_prefix_or_old_names_and_files_may_be_safetensors(tmp_path: Path) -> None:
    expected = regraft.load(HUB / "bert" / "pfeiffer").hash()
    directory = files("pfeiffer")(tmp_path / "hub")
    tensors = torch.load(directory / "pytorch_adapter.bin", weights_only=True)
    (directory / "pytorch_adapter.bin").unlink()
    for old in ("adapters", "layer_text_task_adapters", "layer_text_lang_adapters"):
        renamed = {f"bert.{key.replace('adapters', old)}": tensor for key, tensor in tensors.items()}
        save_file(renamed, directory / "adapter.safetensors")
        assert regraft.load(directory).hash() == expected
    # Task adapters of the first version name invertible adapters that they do not have.
    change(directory / "adapter_config.json", {"invertible_adapter": {"block_type": "nice"}}, type="text_task")
    assert regraft.load(directory).hash() == expected
    change(directory / "adapter_config.json", type="text_lang")
    with pytest.raises(ModuleFileError, match="inv_adapter='nice'"):
        regraft.load(directory)


def test_activations_of_old_versions_have_their_meaning(tmp_path: Path) -> None:
    directory = files("pfeiffer", non_linearity="gelu_orig")(tmp_path / "hub")
    change(directory / "adapter_config.json", version=None)
    assert regraft.load(directory).config["non_linearity"] == "gelu"
    change(directory / "adapter_config.json", {"non_linearity": "gelu"})
    with pytest.raises(ModuleFileError, match="unknown non_linearity 'gelu_new'"):
        regraft.load(directory)


def test_fields_of_old_versions_have_the_librarys_defaults(tmp_path: Path) -> None:
    directory = files("lora")(tmp_path / "lora")
    content = json.loads((directory / "adapter_config.json").read_text())
    content["config"] = {"architecture": "lora"}
    (directory / "adapter_config.json").write_text(json.dumps(content))
    module = regraft.load(directory)
    assert (module.config["r"], module.config["lora_alpha"], module.config["lora_dropout"]) == (8, 8, 0.0)
    directory = files("pfeiffer")(tmp_path / "pfeiffer")
    required = {"mh_adapter": False, "output_adapter": True, "reduction_factor": 4, "non_linearity": "relu"}
    content["config"] = {**required, "original_ln_before": True}
    (directory / "adapter_config.json").write_text(json.dumps({**content, "name": "pfeiffer"}))
    assert regraft.load(directory).hash() == regraft.load(HUB / "bert" / "pfeiffer").hash()
    content["config"] = required  # by default, the norm comes after the adapter alone
    (directory / "adapter_config.json").write_text(json.dumps({**content, "name": "pfeiffer"}))
    with pytest.raises(ModuleFileError, match="original_ln_before=False, expected True"):
        regraft.load(directory)


FLEXIBLE = {
    "TOKEN_CLS": {"head_type": "tagging", "layers": 1, "activation_function": "tanh"},
    "SEQ_CLS": {"head_type": "classification", "layers": 1, "activation_function": None, "use_pooler": True},
    "QUESTION_ANS": {"head_type": "question_answering", "layers": 1},
}


@pytest.mark.parametrize("task", FLEXIBLE)
def test_flexible_and_static_heads_are_those_of_the_transformers_class(task: str, tmp_path: Path) -> None:
    rows, path = (2, "qa_outputs") if task == "QUESTION_ANS" else (3, "classifier")
    label2id = None if task == "QUESTION_ANS" else {"yes": 2, "no": 0, "maybe": 1}
    flexible, static = files("lora")(tmp_path / "flexible"), files("lora")(tmp_path / "static")
    tensors = linear("heads.lora.1", rows)
    add_head(flexible, {**FLEXIBLE[task], "num_labels": rows, "label2id": label2id}, tensors)
    renamed = {key.replace("heads.lora.1", path): tensor for key, tensor in tensors.items()}
    add_head(static, None, renamed, model_class=f"Bert{HEAD_CLASSES[task]}", name=None, label2id=label2id)
    for directory in (flexible, static):
        module = regraft.load(directory)
        assert module.config["task_type"] == task
        assert module.labels == (LABELS if label2id else ())
        torch.testing.assert_close(
            module.tensors[f"base_model.model.{path}.weight"], tensors["heads.lora.1.weight"], rtol=0, atol=0
        )
        assert "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight" in module.tensors
    assert regraft.load(static).hash() == regraft.load(flexible).hash()


def test_names_that_transformers_made_up_are_no_labels(tmp_path: Path) -> None:
    directory = files("lora")(tmp_path / "hub")
    add_head(directory, {**FLEXIBLE["TOKEN_CLS"], "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, linear("heads.lora.1", 3))
    assert regraft.load(directory).labels == ()


@pytest.mark.parametrize(
    ("fields", "tensors", "message"),
    [
        ({"head_type": "masked_lm"}, {}, "unknown head_type 'masked_lm', expected one of classification, "),
        ({"head_type": "multilabel_classification"}, {}, "unknown head_type 'multilabel_classification'"),
        ({"layers": 2}, {}, "head with layers=2, expected 1"),
        ({**FLEXIBLE["SEQ_CLS"], "use_pooler": False}, {}, "classification head with use_pooler=False, expected True"),
        ({**FLEXIBLE["SEQ_CLS"], "bias": False}, {}, "classification head with bias=False, expected True"),
        ({"head_type": "classification"}, {}, "classification head with use_pooler=False"),  # the library's default
        ({}, {"heads.other.1.weight": torch.ones(3, 48)}, r"has no heads\.lora\.1\.bias in the head's file"),
        ({"label2id": {"a": "x"}}, None, r"label2id={'a': 'x'}, expected the row of each label"),
        ({"label2id": {"a": 0, "b": 1}}, None, "names 2 labels in label2id, expected one for each of 3 rows"),
        (None, {}, "unknown model class with a head 'BertAdapterModel', expected one of BertForQuestionAnswering"),
    ],
)
def test_heads_without_counterpart_are_refused_by_name(
    fields: dict | None, tensors: dict | None, message: str, tmp_path: Path
) -> None:
    directory = files("lora")(tmp_path / "hub")
    merged = None if fields is None else {**FLEXIBLE["TOKEN_CLS"], **fields}
    add_head(directory, merged, linear("heads.lora.1", 3) if tensors is None else tensors)
    with pytest.raises(ModuleFileError, match=message):
        regraft.load(directory)


def test_the_activation_within_a_head_has_to_be_that_of_the_class(tmp_path: Path) -> None:
    directory = files("lora")(tmp_path / "hub")
    change(directory / "adapter_config.json", model_type="electra")
    tensors = {**linear("heads.lora.1", 48), **linear("heads.lora.4", 3)}
    fields = {"head_type": "classification", "activation_function": "gelu"}
    add_head(directory, fields, tensors, model_type="electra")
    assert "base_model.model.classifier.out_proj.weight" in regraft.load(directory).tensors
    add_head(directory, {"head_type": "classification"}, tensors, model_type="electra")
    with pytest.raises(ModuleFileError, match="activation_function='tanh', expected 'gelu'"):
        regraft.load(directory)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("pfeiffer", {"mh_adapter": True}, "a bottleneck adapter with mh_adapter=True, expected False"),
        ("pfeiffer", {"output_adapter": False}, "output_adapter=False, expected True"),
        ("pfeiffer", {"original_ln_before": False}, "original_ln_before=False, expected True"),
        ("pfeiffer", {"original_ln_after": False}, "original_ln_after=False, expected True"),
        ("pfeiffer", {"residual_before_ln": "post_add"}, "residual_before_ln='post_add', expected True"),
        ("pfeiffer", {"adapter_residual_before_ln": True}, "adapter_residual_before_ln=True, expected False"),
        ("pfeiffer", {"ln_before": True}, "ln_before=True, expected False"),
        ("pfeiffer", {"ln_after": True}, "ln_after=True, expected False"),
        ("pfeiffer", {"is_parallel": True}, "is_parallel=True, expected False"),
        ("pfeiffer", {"phm_layer": True}, "phm_layer=True, expected False"),
        ("pfeiffer", {"use_gating": True}, "use_gating=True, expected False"),
        ("pfeiffer", {"inv_adapter": "nice"}, "inv_adapter='nice', expected None"),
        ("pfeiffer", {"cross_adapter": True}, "cross_adapter=True, expected False"),
        ("pfeiffer", {"stochastic_depth": 0.1}, "stochastic_depth=0.1, expected 0.0"),
        ("pfeiffer", {"dropout": 0.1}, "dropout=0.1, expected 0.0"),
        ("pfeiffer", {"scaling": "learned"}, "scaling='learned', expected a constant factor"),
        ("pfeiffer", {"non_linearity": "leakyrelu"}, "unknown non_linearity 'leakyrelu', expected one of gelu, relu"),
        ("pfeiffer", {"architecture": "prefix_tuning"}, "architecture='prefix_tuning', expected 'lora', or none"),
        ("pfeiffer", {"leave_out": [1]}, r"has encoder\.layer\.1\..* in the adapter's file, which .* not ask for"),
        ("lora", {"architecture": "mtl_lora"}, "architecture='mtl_lora'"),
        ("lora", {"composition_mode": "scale"}, "a LoRA with composition_mode='scale', expected 'add'"),
        ("lora", {"use_gating": True}, "a LoRA with use_gating=True, expected False"),
        ("lora", {"use_dora": True}, "use_dora=True, expected False"),
        ("lora", {"leave_out": 5}, "config.leave_out is 5, expected a list"),
        ("lora", {"vera_d": 0.1}, "vera_d=0.1, expected None"),
        ("lora", {"vera_b": 0.0}, "vera_b=0.0, expected None"),
        ("lora", {"r": 4}, "matrices of rank 8, expected 4"),
        ("lora", {"attn_matrices": ["q", "o"]}, "unknown attn_matrices 'o', expected one of k, q, v"),
        ("lora", {"attn_matrices": ["q", "k"]}, r"has no encoder\.layer\.0\.attention\.self\.key\.loras\.lora\.lora_A"),
        ("lora", {"output_lora": True}, r"has no encoder\.layer\.0\.output\.dense\.loras\.lora\.lora_A"),
    ],
)
def test_adapters_without_counterpart_are_refused_by_name(
    kind: str, changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModuleFileError, match=message):
        regraft.load(files(kind, **changes)(tmp_path / "hub"))


def test_directories_that_are_not_whole_are_refused_in_words(tmp_path: Path) -> None:
    directory = files("pfeiffer")(tmp_path / "hub")
    tensors = torch.load(directory / "pytorch_adapter.bin", weights_only=True)
    key = "encoder.layer.1.output.adapters.pfeiffer.adapter_down.0.weight"
    torch.save({**tensors, key: tensors[key][:4]}, directory / "pytorch_adapter.bin")
    with pytest.raises(ModuleFileError, match=r"of sizes \[4, 12\] \(reduction_factor\), expected one size"):
        regraft.load(directory)
    torch.save({**tensors, key: torch.full_like(tensors[key], float("nan"))}, directory / "pytorch_adapter.bin")
    with pytest.raises(ModuleFileError, match="NaN or infinity"):
        regraft.load(directory)
    torch.save({}, directory / "pytorch_adapter.bin")
    with pytest.raises(ModuleFileError, match="has no tensor of a layer"):
        regraft.load(directory)
    torch.save([tensors[key]], directory / "pytorch_adapter.bin")
    with pytest.raises(ModuleFileError, match="holds more than tensors by name"):
        regraft.load(directory)
    (directory / "pytorch_adapter.bin").unlink()
    with pytest.raises(ModuleFileError, match=r"neither adapter\.safetensors nor pytorch_adapter\.bin"):
        regraft.load(directory)
    directory = files("lora")(tmp_path / "headless")
    torch.save({}, directory / "pytorch_model_head.bin")
    with pytest.raises(ModuleFileError, match=r"cannot read .*head_config\.json"):
        regraft.load(directory)
    (directory / "head_config.json").write_text("[]")
    with pytest.raises(ModuleFileError, match=r"head_config\.json holds no object"):
        regraft.load(directory)
    change(directory / "adapter_config.json", model_type="gpt2")
    (directory / "head_config.json").unlink()
    (directory / "pytorch_model_head.bin").unlink()
    with pytest.raises(ModuleFileError, match="unknown model type for AdapterHub 'gpt2', expected one of bert"):
        regraft.load(directory)
    (directory / "adapter_config.json").write_text('{"config": "pfeiffer"}')
    with pytest.raises(ModuleFileError, match=r"adapter_config\.json: config is 'pfeiffer', expected an object"):
        regraft.load(directory)


@pytest.mark.parametrize("file", ["pytorch_adapter.bin", "pytorch_model_head.bin"])
def test_code_in_pickled_files_is_not_run(file: str, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "evil"),)

    directory = files("lora")(tmp_path / "hub")
    add_head(directory, FLEXIBLE["TOKEN_CLS"], linear("heads.lora.1", 3))
    torch.save({"key": Evil()}, directory / file)
    with pytest.raises(ModuleFileError, match="hold more than tensors"):
        regraft.load(directory)
    assert not (tmp_path / "evil").exists()


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": ["query", "value"], **options})


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # PEFT takes the bias of a LoRA for a shard
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lora(use_rslora=True), "uses use_rslora, which AdapterHub's LoRA has no counterpart of"),
        (lora(lora_bias=True), "uses lora_bias"),
        (lora(use_dora=True), "uses use_dora"),
        (LoHaConfig(target_modules=["query"]), "is of type LOHA, which AdapterHub's library reads otherwise"),
        (lora(bias="lora_only"), r"bias='lora_only'"),
        (lora(rank_pattern={"query": 2}), r"of sizes \[2, 4\] \(rank_pattern\), expected one size"),
        (lora(alpha_pattern={"query": 3}), r"has alphas \[3, 8\] \(alpha_pattern\), expected one"),
        (
            lora(target_modules=["query", "attention.output.dense"]),
            r"has .*\.attention\.output\.dense\.lora_A\.weight, which AdapterHub has no place for, "
            "expected LORA on query, key, value, ff_up, ff_down",
        ),
        (
            lora(target_modules=r".*\.(0\.attention\.self\.query|1\.attention\.self\.value)"),
            "has no LORA on value of layer 0, expected the same sites in each layer",
        ),
        (
            lora(modules_to_save=["pooler"]),
            r"has base_model\.model\.pooler\.dense\.bias, which AdapterHub has no place",
        ),
        (
            regraft.BottleneckConfig(target_modules=["intermediate.dense"]),
            "no place for, expected BOTTLENECK on output_norm",
        ),
    ],
)
def test_modules_without_counterpart_are_refused_by_name(
    make_model: Callable[..., str], config: Any, message: str, tmp_path: Path
) -> None:
    module = trained(make_model(layers=2), config)
    with pytest.raises(ModuleFileError, match=message):
        module.save_adapterhub(tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_other_mistakes_in_writing_are_refused_in_words(make_model: Callable[..., str], tmp_path: Path) -> None:
    module = trained(make_model(layers=2), lora())
    with pytest.raises(ModuleFileError, match=r"has tensors in layers \[0, 1\], expected some of the 1 layers"):
        module.save_adapterhub(tmp_path / "hub", make_model(layers=1))
    with pytest.raises(ModuleFileError, match=r"reads 32 dimensions on query of layer 0, expected .* 16"):
        module.save_adapterhub(tmp_path / "hub", make_model(width=16, layers=2))
    with pytest.raises(ModuleFileError, match="unknown model type for AdapterHub 'camembert', expected one of bert"):
        module.save_adapterhub(tmp_path / "hub", make_model("camembert", layers=2))
    for name in ("", "a.b", "train"):
        with pytest.raises(ModuleFileError, match="cannot name an adapter"):
            module.save_adapterhub(tmp_path / "hub", name=name)
    nameless = regraft.Module({**module.config, "base_model_name_or_path": None}, module.tensors, "mine")
    with pytest.raises(ModuleFileError, match="mine names no base model"):
        nameless.save_adapterhub(tmp_path / "hub")
    prefixed = trained(
        make_model(layers=2), lora(alpha_pattern={"bert.encoder.layer.1.attention.self.query": 3}), "TOKEN_CLS"
    )
    with pytest.raises(ModuleFileError, match=r"alphas \[3, 8\]"):
        prefixed.save_adapterhub(tmp_path / "hub")
    wrong = regraft.Module(prefixed.config | {"alpha_pattern": {}}, prefixed.tensors, "mine", {"labels": ["a"]})
    with pytest.raises(ModuleFileError, match="names 1 labels for a head of 3 rows"):
        wrong.save_adapterhub(tmp_path / "hub")
    base = make_model("distilbert", layers=2)
    sentences = trained(base, lora(target_modules=["q_lin"]), "SEQ_CLS")
    tensors = {key: tensor for key, tensor in sentences.tensors.items() if "pre_classifier" not in key}
    with pytest.raises(ModuleFileError, match=r"has no pre_classifier\.bias, .* modules_to_save=\['pre_classifier'\]"):
        regraft.Module(sentences.config, tensors, "mine").save_adapterhub(tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_all_its_files_are_fetched_from_the_hub(tmp_path: Path) -> None:
    directory = files("lora")(tmp_path / "hub")
    add_head(
        directory, {**FLEXIBLE["TOKEN_CLS"], "label2id": {"no": 0, "maybe": 1, "yes": 2}}, linear("heads.lora.1", 3)
    )
    (directory / "pytorch_model.bin").write_text("the base model")

    with fake_hub(tmp_path / "cache") as hub:
        hub.add("someone/ner", directory)
        assert regraft.load("someone/ner").hash() == regraft.load(directory).hash()
        assert any(asked.endswith("/pytorch_adapter.bin") for asked in hub.requests)
        assert not any(asked.endswith("/pytorch_model.bin") for asked in hub.requests)


def test_a_directory_of_either_format_is_replaced_by_the_other(make_model: Callable[..., str], tmp_path: Path) -> None:
    module = trained(make_model(layers=2), lora(), "TOKEN_CLS")
    module.save(tmp_path / "out")
    with pytest.raises(ModuleFileError, match="exists; choose another name"):
        module.save_adapterhub(tmp_path / "out")
    module.save_adapterhub(tmp_path / "out", replace=True)
    names = {"adapter_config.json", "pytorch_adapter.bin", "head_config.json", "pytorch_model_head.bin"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names | {"regraft.json", "README.md"}
    assert "AutoAdapterModel" in (tmp_path / "out" / "README.md").read_text()
    before = (tmp_path / "out" / "pytorch_adapter.bin").read_bytes()
    module.save_adapterhub(tmp_path / "out", replace=True)
    assert (tmp_path / "out" / "pytorch_adapter.bin").read_bytes() == before
    module.save(tmp_path / "out", replace=True)
    assert "PeftModel" in (tmp_path / "out" / "README.md").read_text()


def test_a_ported_module_is_converted_with_its_report(make_model: Callable[..., str], tmp_path: Path) -> None:
    teacher, student = make_model("bert", layers=4), make_model("distilbert", layers=2)
    for kind in ("lora", "bottleneck"):
        config = lora() if kind == "lora" else regraft.BottleneckConfig(bottleneck_size=5)
        ported = regraft.transfer(trained(teacher, config, "TOKEN_CLS"), student, align="none")
        ported.save_adapterhub(tmp_path / kind)
        again = regraft.load(tmp_path / kind)
        assert again.hash() == ported.hash()
        assert again.report["teacher"] == teacher
        assert again.base_model == student
    from_hub = regraft.load(HUB / "bert" / "lora")
    ported = regraft.transfer(from_hub, str(HUB / "distilbert" / "base"), str(HUB / "bert" / "base"), align="none")
    assert {key.split(".")[2] for key in ported.tensors} == {"transformer"}


def test_convert_both_ways_and_what_it_prints(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    module = make_module(make_model(layers=2), "bottleneck", labels=3)
    code, out, _ = run("convert", module, "--to", "adapterhub", "--out", tmp_path / "hub", "--name", "ner")
    assert code == 0
    assert f"model.load_adapter({str(tmp_path / 'hub')!r}, set_active=True) loads it" in out.replace("\n", "")
    assert json.loads((tmp_path / "hub" / "adapter_config.json").read_text())["name"] == "ner"
    code, out, _ = run("convert", tmp_path / "hub", "--to", "peft", "--out", tmp_path / "peft", "--model", "other")
    assert code == 0
    assert f"PeftModel.from_pretrained(model, {str(tmp_path / 'peft')!r}) loads it" in out.replace("\n", "")
    assert regraft.load(tmp_path / "peft").hash() == regraft.load(module).hash()
    assert regraft.load(tmp_path / "peft").base_model == "other"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{module}", "--to", "onnx"), "unknown format 'onnx', expected one of adapterhub, gguf, lora, merged, peft"),
        (("{module}", "--to", "adapterhub", "--model", "{bert1}"), "expected some of the 1 layers of the base model"),
        (("{module}", "--to", "adapterhub", "--name", "a.b"), "'a.b' cannot name an adapter"),
        (("{hub}", "--to", "adapterhub"), "names no base model, expected one; name it (--model)"),
        (("nowhere", "--to", "peft"), "'nowhere' is no local directory"),
    ],
)
def test_mistakes_in_converting_are_one_sentence_and_exit_2(
    run: Callable,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    places = {"bert1": make_model(layers=1), "hub": str(HUB / "bert" / "lora")}
    places["module"] = make_module(make_model(layers=2))
    code, _, err = run("convert", *(text.format(**places) for text in arguments), "--out", tmp_path / "out")
    assert code == 2
    assert message in err.replace("\n", " ")
    assert err.count("error:") == 1
    assert not (tmp_path / "out").exists()
