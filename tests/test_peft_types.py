"""PEFT types, each on an encoder and a decoder: what is copied adds what it added, PEFT being the judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from conftest import load_base, load_peft, make_texts, wordpiece_tokenizer
from peft import PeftConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import PeftType
from torch import Tensor
from twins import make_twin

import regraft
from regraft.errors import ModuleFileError, PlanError
from regraft.modules.peft_types import PEFT_TYPES

ATTENTION = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}
DOWN = {"bert": "output.dense", "llama": "down_proj"}
Make = Callable[..., Any]

# Name of a case -> the configuration, of the names of an attention's projections and that of the feed-forward's last.
CASES: dict[str, Callable[[list[str], str], PeftConfig]] = {
    "adalora": lambda at, _: peft.AdaLoraConfig(target_modules=at, init_r=4, target_r=2, total_step=10),
    "loha": lambda at, down: peft.LoHaConfig(
        target_modules=[*at, down], r=4, alpha=6, rank_pattern={at[0]: 2}, alpha_pattern={down: 3}
    ),
    "lokr": lambda at, down: peft.LoKrConfig(target_modules=[*at, down], r=2, alpha=6, alpha_pattern={at[1]: 3}),
    "lokr-both": lambda at, _: peft.LoKrConfig(target_modules=at, r=1, decompose_both=True, decompose_factor=4),
    "ia3": lambda at, down: peft.IA3Config(target_modules=[*at, down], feedforward_modules=[down]),
    "ia3-attention": lambda at, _: peft.IA3Config(target_modules=at, feedforward_modules=[]),
    "oft": lambda at, down: peft.OFTConfig(target_modules=[*at, down], oft_block_size=8),
    "oft-shared": lambda at, _: peft.OFTConfig(target_modules=at, r=4, oft_block_size=0, block_share=True),
    "boft": lambda at, _: peft.BOFTConfig(target_modules=at, boft_block_size=4, boft_n_butterfly_factor=2),
    "fourierft": lambda at, down: peft.FourierFTConfig(target_modules=[*at, down], n_frequency=50, scaling=150.0),
    "hra": lambda at, _: peft.HRAConfig(target_modules=at, r=4),
    "hra-gs": lambda at, _: peft.HRAConfig(target_modules=at, r=3, apply_GS=True),
    "miss": lambda at, down: peft.MissConfig(target_modules=[*at, down], r=4),
    "miss-bat": lambda at, _: peft.MissConfig(target_modules=at, r=4, init_weights="bat"),
    "miss-mini": lambda at, _: peft.MissConfig(target_modules=at, r=4, init_weights="mini", mini_r=4),
    "c3a": lambda at, down: peft.C3AConfig(target_modules=[*at, down], block_size=8, block_size_pattern={at[0]: 16}),
    "gralora": lambda at, _: peft.GraloraConfig(target_modules=at, r=4, gralora_k=2, hybrid_r=2),
    "hira": lambda at, down: peft.HiraConfig(target_modules=[*at, down], r=4, rank_pattern={down: 2}),
    "vera": lambda at, _: peft.VeraConfig(target_modules=at, r=4),
    "vera-unsaved": lambda at, down: peft.VeraConfig(target_modules=[*at, down], r=4, save_projection=False),
    "dora": lambda at, down: peft.LoraConfig(target_modules=[*at, down], r=4, use_dora=True),
}


def write_module(base: str, config: PeftConfig, path: Path, labels: int | None = None) -> str:
    """Write a module with noise on all that it trains, so that gains and magnitudes stay near what they were."""
    if labels:
        config.task_type, config.modules_to_save = "TOKEN_CLS", ["classifier"]
    torch.manual_seed(1)
    model = get_peft_model(load_base(base, labels), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "original_module" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def module_of(make_model: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], regraft.Module]:
    """Give the module of a case on a model type, of 4 layers."""
    made: dict[tuple[str, str], str] = {}

    def give(case: str, model_type: str) -> regraft.Module:
        if (case, model_type) not in made:
            config = CASES[case](list(ATTENTION[model_type]), DOWN[model_type])
            path = tmp_path_factory.mktemp("module") / case
            made[case, model_type] = write_module(make_model(model_type, layers=4), config, path)
        return regraft.load(made[case, model_type])

    return give


def merged(base: str, module: str | Path, **loading: Any) -> dict[str, list[Tensor]]:
    """Weights and biases that PEFT makes of the layers with a module merged into them."""
    model = load_peft(base, module, **loading)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    made = {}
    for name, layer in layers.items():
        layer.merge()
        own = layer.get_base_layer()
        made[name] = [parameter.detach().clone() for parameter in (own.weight, own.bias) if parameter is not None]
    return made


def loads_whole(base: str, module: regraft.Module, path: Path) -> dict[str, list[Tensor]]:
    """Save a module and have PEFT load it, with no missing and no unexpected key."""
    module.save(path)
    model = get_peft_model(load_base(base), PeftConfig.from_pretrained(str(path)))
    result = peft.set_peft_model_state_dict(model, dict(module.tensors))
    names = [role.suffix.removesuffix(".weight") for role in PEFT_TYPES[module.peft_type].rows["linear"]]
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if any(f".{name}." in key for name in names)]
    return merged(base, path)


def layer_of(path: str) -> int:
    return next(int(part) for part in path.split(".") if part.isdecimal())


def at_layer(path: str, layer: int) -> str:
    return ".".join(str(layer) if part.isdecimal() else part for part in path.split("."))


@pytest.mark.parametrize("model_type", ["bert", "llama"])
@pytest.mark.parametrize("case", CASES)
def test_copies_add_what_the_teachers_layers_add(
    case: str, model_type: str, module_of: Make, make_model: Make, tmp_path: Path
) -> None:
    module, teacher = module_of(case, model_type), make_model(model_type, layers=4)
    own = regraft.transfer(module, teacher)
    assert own.tensors.keys() == module.tensors.keys()
    assert all(torch.equal(own.tensors[key], module.tensors[key]) for key in module.tensors)
    before, bare = merged(teacher, module.source), load_base(teacher)
    after = loads_whole(teacher, own, tmp_path / "own")
    assert {path: len(some) for path, some in before.items()} == {path: len(some) for path, some in after.items()}
    for path, tensors in before.items():
        assert all(map(torch.equal, tensors, after[path])), path
        weight = bare.get_submodule(path.removeprefix("base_model.model.")).weight
        assert (tensors[0] - weight).abs().max() > 1e-3, path

    student = make_model(model_type, layers=2)  # has the teacher's first layers
    cut = regraft.transfer(module, student, layers=[0, 1])
    for path, tensors in loads_whole(student, cut, tmp_path / "cut").items():
        assert all(map(torch.equal, tensors, before[path])), path
    assert cut.report["relation"]["kind"] == "cut"


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_trained_rank_pattern_of_adalora_is_rewritten_for_the_student(
    model_type: str, make_model: Make, tmp_path: Path
) -> None:
    teacher, student = make_model(model_type, layers=4), make_model(model_type, layers=2)
    at = ATTENTION[model_type]
    write_module(teacher, peft.AdaLoraConfig(target_modules=at, init_r=4, total_step=10), tmp_path / "whole")
    model = load_peft(teacher, tmp_path / "whole")
    ranks = {}
    for number, (name, layer) in enumerate(model.base_model.model.named_modules()):
        if isinstance(layer, BaseTunerLayer):  # what the rank allocator leaves
            ranks[f"{name}.lora_E"] = [True, number % 2 == 0, layer_of(name) > 0, number % 3 == 0]
    model.base_model.resize_modules_by_rank_pattern(ranks, "default")
    model.peft_config["default"].rank_pattern = ranks
    model.save_pretrained(tmp_path / "pruned")

    module = regraft.load(tmp_path / "pruned")
    assert len({tuple(tensor.shape) for tensor in module.tensors.values()}) > 3
    before = merged(teacher, tmp_path / "pruned")
    own = regraft.transfer(module, teacher)
    for path, tensors in loads_whole(teacher, own, tmp_path / "own").items():
        assert all(map(torch.equal, tensors, before[path])), path
    cut = regraft.transfer(module, student, layers=[0, 1])
    for path, tensors in loads_whole(student, cut, tmp_path / "cut").items():
        assert all(map(torch.equal, tensors, before[path])), path


# The attention has an output.dense too.
_DOWN = r"layer\.\d\.output\.dense"


@pytest.mark.parametrize("prune", [False, True], ids=["permuted", "pruned"])
@pytest.mark.parametrize(
    "config",
    [
        peft.AdaLoraConfig(target_modules=["query", "value"], init_r=4, total_step=10),
        peft.LoHaConfig(target_modules=["query", "value"], r=4),
        peft.HRAConfig(target_modules=["query", "value"], r=4),
        peft.HiraConfig(target_modules=["query", "value"], r=4),
        peft.IA3Config(target_modules=rf".*(query|key|value|{_DOWN})", feedforward_modules=rf".*{_DOWN}"),
    ],
    ids=lambda config: config.peft_type.value.lower(),
)
def test_maps_to_a_permuted_twin_keep_what_the_module_does(config: PeftConfig, prune: bool, tmp_path: Path) -> None:
    twin, tokenizer = make_twin(prune=prune), wordpiece_tokenizer()
    batch = tokenizer(make_texts(4, seed=9), padding=True, return_tensors="pt")
    pruned = torch.ones(twin.teacher.config.hidden_size, dtype=torch.bool)
    pruned[twin.kept] = False
    model = get_peft_model(twin.teacher, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "ranknum" not in name:  # which PEFT does not save
                parameter.add_(torch.randn_like(parameter) * 0.3)
                if "lora_A" in name or "1_b" in name or "2_b" in name:
                    parameter[:, pruned] = 0
                elif "hra_u" in name:
                    parameter[pruned] = 0
        model.save_pretrained(tmp_path / "teacher")
        expected = model.eval()(**batch).last_hidden_state[..., twin.kept]
        bare = model.unload()(**batch).last_hidden_state[..., twin.kept]
    assert (expected - bare).abs().max() > 0.05
    ported = regraft.transfer(
        regraft.load(tmp_path / "teacher"),
        (twin.student, tokenizer),
        (twin.teacher, tokenizer),
        layers=[0, 1, 2],
        align="lsa",
        texts=make_texts(60),
        progress=False,
    )
    ported.save(tmp_path / "student")
    student = peft.PeftModel.from_pretrained(twin.student, str(tmp_path / "student")).eval()
    with torch.no_grad():
        torch.testing.assert_close(student(**batch).last_hidden_state, expected, rtol=1e-4, atol=1e-5)


def test_adalora_is_mapped_as_the_lora_of_its_matrices(make_model: Make, tmp_path: Path) -> None:
    teacher, student, at = make_model(layers=2), make_model(width=48, layers=2), ["query", "value"]
    ada = regraft.load(
        write_module(teacher, peft.AdaLoraConfig(target_modules=at, init_r=4, total_step=10), tmp_path / "ada")
    )
    lora = regraft.load(write_module(teacher, peft.LoraConfig(target_modules=at, r=4), tmp_path / "lora"))
    tensors = {key: ada.tensors[key.removesuffix(".weight")] for key in lora.tensors}
    given: dict[str, Any] = {"texts": make_texts(60), "align": "ridge", "progress": False}
    expected = regraft.transfer(regraft.Module(lora.config, tensors, "lora"), student, **given)
    ported = regraft.transfer(ada, student, **given)
    for key, tensor in expected.tensors.items():
        assert torch.equal(ported.tensors[key.removesuffix(".weight")], tensor)
    for key in ada.tensors:
        assert "lora_E" not in key or torch.equal(ported.tensors[key], ada.tensors[key])
    assert regraft.transfer(ada, student, texts=make_texts(60), progress=False).report["sequential"]


def test_gains_without_a_counterpart_are_1(make_model: Make, module_of: Make) -> None:
    module = module_of("ia3", "bert")
    ported = regraft.transfer(module, make_model(width=48, layers=2), layers=[0, 1], align="copy")
    for key, gains in ported.tensors.items():
        own = module.tensors[key].flatten()
        assert torch.equal(gains.flatten()[: len(own)], own)
        assert len(gains.flatten()) > len(own)
        assert torch.equal(gains.flatten()[len(own) :], torch.ones(len(gains.flatten()) - len(own)))


@pytest.mark.parametrize("case", [case for case in CASES if case != "dora"])
def test_a_factor_multiplies_what_a_module_adds_or_is_refused(
    case: str, make_model: Make, module_of: Make, tmp_path: Path
) -> None:
    module, teacher = module_of(case, "bert"), make_model(layers=4)
    if not PEFT_TYPES[module.peft_type].scales:
        with pytest.raises(PlanError, match=r"has no factor \(it rotates what is there\); leave out --scale, or conv"):
            regraft.transfer(module, teacher, scale=0.5)
        return
    regraft.transfer(module, teacher, scale=0.5).save(tmp_path / "half")
    whole, half, bare = merged(teacher, module.source), merged(teacher, tmp_path / "half"), load_base(teacher)
    for path, tensors in whole.items():
        own = bare.get_submodule(path.removeprefix("base_model.model."))
        for before, after, base in zip(tensors, half[path], (own.weight, own.bias), strict=False):
            torch.testing.assert_close(after - base, (before - base) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_average_of_equal_layers_is_each_of_them_or_refused(case: str, make_model: Make, module_of: Make) -> None:
    module, student = module_of(case, "bert"), make_model(layers=2)
    if case == "dora" or not PEFT_TYPES[module.peft_type].averages:
        with pytest.raises(PlanError, match=r"mean over layers means nothing|can only be copied as it is"):
            regraft.transfer(module, student, layers="avg")
        return
    equal = {key: module.tensors[at_layer(key, 0) if layered(key) else key] for key in module.tensors}
    ported = regraft.transfer(regraft.Module(module.config, equal, "equal"), student, layers="avg")
    assert {target["action"] for target in ported.report["tensors"].values()} == {"averaged"}
    assert all(torch.equal(tensor, equal[key]) for key, tensor in ported.tensors.items())


def layered(key: str) -> bool:
    return any(part.isdecimal() for part in key.split("."))


CONVERT = r"convert it to LoRA first \(regraft convert MODULE --to lora --rank R\)"


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("lokr", {"align": "random"}, rf"is of type LoKr, which no map takes to other dimensions; .*{CONVERT}"),
        ("lokr", {}, rf"query is 32 x 32 in the teacher and 48 x 48 in the student, expected the same; {CONVERT}"),
        ("fourierft", {"align": "copy"}, "is of type FourierFT, which no map takes"),
        ("oft", {}, "query is 32 x 32"),
        ("boft", {}, "query is 32 x 32"),
        ("miss", {}, "query is 32 x 32"),
        ("c3a", {}, "query is 32 x 32"),
        ("gralora", {}, "query is 32 x 32"),
        ("vera", {}, "query is 32 x 32"),
        ("ia3", {}, rf"query is 32 wide .* expected the same without a map; use --align lsa with --texts .*{CONVERT}"),
        (
            "loha",
            {"align": "zero"},
            "maps alone take to other dimensions, and zero is none; use --align lsa",
        ),
        ("hira", {}, "query is 32 wide"),
        ("hra", {"align": "zero"}, "one-to-one maps alone"),
        (
            "hra",
            {"align": "lsa", "sequential": True, "texts": make_texts(60), "quiet": True},
            "cannot be silent while another layer is fitted; fit --apart",
        ),
        ("dora", {"align": "random"}, rf"can only be copied as it is, layer by layer \(DoRA's magnitudes .*{CONVERT}"),
        ("dora", {"scale": 0.5}, "can only be copied as it is"),
        ("dora", {}, f"query is 32 wide .* expected the same without a map; {CONVERT}"),
    ],
)
def test_what_a_peft_type_does_not_allow_is_refused_with_what_to_do(
    case: str, options: dict[str, Any], message: str, make_model: Make, module_of: Make
) -> None:
    student = make_model(width=48, layers=4) if not {"scale"} & options.keys() else make_model(layers=4)
    with pytest.raises(PlanError, match=message):
        regraft.transfer(module_of(case, "bert"), student, **options)


def test_dora_is_copied_where_the_rows_of_the_weights_have_the_teachers_norms(
    make_model: Make, module_of: Make, tmp_path: Path
) -> None:
    module, teacher = module_of("dora", "bert"), make_model(layers=4)
    further = load_base(teacher)
    query = further.encoder.layer[1].attention.self.query.weight
    turn, _ = torch.linalg.qr(torch.eye(32) + 0.01 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    query.data = query.data @ turn  # keeps the norms of rows
    further.save_pretrained(tmp_path / "turned")
    assert regraft.transfer(module, str(tmp_path / "turned")).tensors.keys() == module.tensors.keys()
    query.data[3] *= 1.01
    further.save_pretrained(tmp_path / "longer")
    where = "norms of the rows of query of the student's layer 1 and the teacher's layer 1"
    message = rf"{where} are up to 0\.01 apart, expected at most 0\.001 \(DoRA's magnitudes .*; {CONVERT}"
    with pytest.raises(PlanError, match=message):
        regraft.transfer(module, str(tmp_path / "longer"))


def test_a_layer_that_peft_has_no_counterpart_of_is_refused(make_model: Make, module_of: Make) -> None:
    student = make_model("gpt2", layers=2, n_embd=32)  # whose layers are transposed
    with pytest.raises(PlanError, match=rf"PEFT cannot put LoHa on a GPT2Model \(.*Conv1D.*\); {CONVERT}"):
        regraft.transfer(module_of("loha", "bert"), student, align="copy", drop=True)


def test_shared_projections_are_no_task_head(make_model: Make, run: Make, tmp_path: Path) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    config = peft.VeraConfig(target_modules=["query", "value"], r=4)
    module = regraft.load(write_module(teacher, config, tmp_path / "vera", labels=5))
    plan = regraft.plan(module, student)
    assert plan.head == "teacher"
    assert {target.key for target in plan.targets if target.shared} == {"base_model.vera_A", "base_model.vera_B"}
    _, out, _ = run("plan", tmp_path / "vera", "--student", student)
    assert "\nshared " in out
    fresh = regraft.transfer(module, student, head="fresh")
    assert torch.equal(fresh.tensors["base_model.vera_A"], module.tensors["base_model.vera_A"])
    lacking = {key: tensor for key, tensor in module.tensors.items() if not key.endswith("vera_A")}
    with pytest.raises(
        PlanError, match=r"has nothing for base_model.vera_A, which PEFT expects; is the file complete\?"
    ):
        regraft.transfer(regraft.Module(module.config, lacking, "lacking"), student)
    other = make_model(layers=2, intermediate_size=48)
    wide = peft.VeraConfig(target_modules=rf".*(query|{_DOWN})", r=4)
    module = regraft.load(write_module(teacher, wide, tmp_path / "wide"))
    with pytest.raises(PlanError, match=r"whose sites share matrices as wide as the widest|ff_down is 32 x 64"):
        regraft.transfer(module, other)


def test_a_type_that_the_installed_peft_lacks_is_refused(
    make_model: Make, module_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of("hra", "bert")
    monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.HRA)
    with pytest.raises(
        ModuleFileError, match=r"is of type HRA, which the installed PEFT \S+ does not know; upgrade it"
    ):
        regraft.plan(module, make_model(layers=2))


def test_advice_names_what_the_type_allows(make_model: Make, module_of: Make, run: Make, tmp_path: Path) -> None:
    further = load_base(make_model(layers=4))
    with torch.no_grad():
        for parameter in further.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    further.save_pretrained(tmp_path / "further")
    said = {}
    for case in ("ia3", "lokr", "adalora"):
        _, out, _ = run("plan", module_of(case, "bert").source, "--student", tmp_path / "further")
        said[case] = " ".join(out.split())
    operation = "IA3 acts on the base weights, which differ: a copy is the same operation, not the same addition."
    assert operation in said["ia3"]
    assert not any("acts on the base weights" in said[case] for case in ("lokr", "adalora"))
    assert [case for case in said if "Maps may bring more" in said[case]] == ["adalora"]
    with pytest.raises(PlanError, match=rf"a copy means nothing; {CONVERT}, or ask for the copy by name"):
        regraft.transfer(module_of("lokr", "bert"), make_model(layers=4, seed=5))
