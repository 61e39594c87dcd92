"""The records of model types: what a file says, what it takes from another, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import tiny_config
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

import regraft
from regraft.errors import ModelError, PlanError, SamplingError
from regraft.models.families import FAMILIES, load_families
from regraft.models.pretrained import Pretrained, resolve
from regraft.models.sites import SITES, find_sites, site_of


def test_sites_outside_the_table_are_those_of_one_family_alone() -> None:
    names = {name.rpartition(".")[2] for family in FAMILIES.values() for name in family.places}
    assert names - SITES.keys() == {"ff_wi"}


def test_a_family_states_only_what_differs_from_the_one_it_is_like(tmp_path: Path) -> None:
    path = tmp_path / "modern.yaml"
    path.write_text("like: roberta\nsites: {ff_up: mlp.up}\ntask_heads: {ForTokenClassification: {linears: [score]}}\n")
    families = load_families(path, FAMILIES)
    modern, roberta = families["modern"], FAMILIES["roberta"]
    assert list(families) == ["modern"]
    assert dict(modern.sites) == {**roberta.sites, "ff_up": "mlp.up"}
    assert modern.task_heads["ForTokenClassification"].linears == ("score",)
    assert modern.task_heads["ForSequenceClassification"] == roberta.task_heads["ForSequenceClassification"]
    assert (modern.layers, modern.spare_positions, modern.pooler) == ("encoder.layer", 2, "")
    assert dict(modern.word_options) == {"add_prefix_space": True}


def test_a_family_may_be_like_one_that_comes_later(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("like: b\ncausal: true\n")
    (tmp_path / "b.yaml").write_text("like: c\n")
    (tmp_path / "c.yaml").write_text("like: bert\n")
    families = load_families(tmp_path, FAMILIES)
    assert families["a"].sites == FAMILIES["bert"].sites
    assert (families["a"].causal, families["b"].causal) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("like: bert\npoler: none\n", "unknown key 'poler', expected one of causal, .*; did you mean 'pooler'?"),
        ("like: bret\n", "unknown family 'bret', expected one of albert, .*; did you mean 'bert'?"),
        ("like: mine\n", "unknown family 'mine'"),
        ("layers: encoder\n", "sites: Field required"),
        ("like: bert\nspare_positions: some\n", "spare_positions is 'some', expected a whole number"),
        ("like: bert\ntask_heads: {ForTokenClassification: {linear: [score]}}\n", "did you mean 'linears'?"),
        ("- bert\n", "holds no record"),
        ("like: [\n", "cannot be read as YAML"),
    ],
)
def test_records_that_do_not_serve_are_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=message) as refused:
        load_families(path, FAMILIES)
    assert re.match(rf"{re.escape(str(path))}: ", str(refused.value))


def write_config(model_type: str, path: Path, **sizes: object) -> str:
    tiny_config(model_type, **sizes).save_pretrained(path)
    return str(path)


def lora_on(base: str, pattern: str, **fields: object) -> regraft.Module:
    """Give a module with tensors on every linear layer that a regular expression matches."""
    skeleton = resolve(base).skeleton()
    config = LoraConfig(r=2, target_modules=pattern, **fields)
    with torch.device("meta"):
        state = get_peft_model_state_dict(get_peft_model(skeleton, config), save_embedding_layers=False)
    torch.manual_seed(0)
    tensors = {key: torch.randn(tensor.shape) for key, tensor in state.items()}
    return regraft.Module({**config.to_dict(), "peft_type": "LORA", "base_model_name_or_path": base}, tensors, "m")


def test_layers_of_one_kind_are_paired(tmp_path: Path) -> None:
    """Of a model with linear attention in most layers, and full attention in some."""
    linear, full = "linear_attention", "full_attention"
    teacher = write_config("qwen3_5_text", tmp_path / "t", layers=6, layer_types=[linear, linear, full] * 2)
    student = write_config("qwen3_5_text", tmp_path / "s", layers=3, layer_types=[full, linear, full])
    plan = regraft.plan(lora_on(teacher, r".*(q_proj|in_proj_qkv|up_proj)"), student, align="none")
    assert not plan.problems
    assert [[share.layer for share in group] for group in plan.groups[""]] == [[2], [0], [5]]
    assert {target.place for target in plan.targets} == {
        *((layer, site) for layer in (0, 2) for site in ("query", "ff_up")),
        (1, "linear_attn/in_proj_qkv"),
        (1, "ff_up"),
    }


@pytest.mark.parametrize(
    ("model_type", "task_type"),
    [
        ("t5", "SEQ_2_SEQ_LM"),
        ("bart", "SEQ_2_SEQ_LM"),
        ("whisper", None),
        ("gemma3", "CAUSAL_LM"),
        ("gpt2", "CAUSAL_LM"),
    ],
)
def test_every_stack_is_ported_from_classes_with_a_language_model_head(
    model_type: str, task_type: str | None, tmp_path: Path
) -> None:
    teacher = write_config(model_type, tmp_path / "t", layers=4)
    student = write_config(model_type, tmp_path / "s", layers=2)
    family = FAMILIES[model_type]
    places = [name for name in family.places if not site_of(name).is_norm]
    auto = {"SEQ_2_SEQ_LM": "ForSeq2SeqLM", "CAUSAL_LM": "ForCausalLM", None: ""}[task_type]
    config = LoraConfig(r=2, target_modules="|".join(map(family.pattern, places)), task_type=task_type)
    with torch.device("meta"):
        state = get_peft_model_state_dict(get_peft_model(resolve(teacher).skeleton(auto), config))
    tensors = {key: torch.full(tensor.shape, float(number)) for number, (key, tensor) in enumerate(state.items())}
    fields = {**config.to_dict(), "peft_type": "LORA", "base_model_name_or_path": teacher}
    ported = regraft.transfer(regraft.Module(fields, tensors, "m"), student, align="none")
    assert len(ported.tensors) * 2 == len(tensors)
    for key, made in ported.report["tensors"].items():
        (source,) = made["from"]
        numbers = [int(part) for part in key.split(".") if part.isdecimal()]
        assert [int(part) for part in source.split(".") if part.isdecimal()] == [2 * numbers[0], *numbers[1:]]
    assert ported.report["groups"].keys() == {"", *family.stacks}


def test_a_stack_that_the_student_lacks_would_be_lost(tmp_path: Path) -> None:
    teacher = write_config("bart", tmp_path / "t", layers=2)
    student = write_config("bert", tmp_path / "s", layers=2)
    module = lora_on(teacher, r".*self_attn.q_proj")
    with pytest.raises(PlanError, match=r"decoder.layers.0.self_attn.q_proj.lora_A.weight, .*: .* has no decoder"):
        regraft.transfer(module, student, align="none")
    assert len(regraft.transfer(module, student, align="none", drop=True).tensors) == 4


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            "{like: gpt2, sites: {ff_up: mlp.up}}",
            r"has no module at h\.N\.mlp\.up, where its family's record has ff_up",
        ),
        (
            "{like: gpt2, sites: {qkv: mlp.c_proj, ff_down: attn.c_attn}}",
            r"mlp.c_proj has 32 rows, expected those of 4 queries of 8 and",
        ),
        ("{like: gpt2, final_norm: norm}", r"has no module at norm, which its family's record names"),
    ],
)
def test_records_that_the_model_contradicts_are_refused(
    record: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpt2.yaml").write_text(record)
    monkeypatch.setattr("regraft.models.pretrained.FAMILIES", load_families(tmp_path / "gpt2.yaml", FAMILIES))
    base = write_config("gpt2", tmp_path / "base", layers=2)
    with pytest.raises(ModelError, match=message):
        find_sites(resolve(base).skeleton(), resolve(base).family)


def test_sizes_that_a_configuration_lacks_are_no_error(tmp_path: Path) -> None:
    for model_type in ("bloom", "vit", "t5", "mt5", "whisper"):
        base = resolve(write_config(model_type, tmp_path / model_type))
        assert base.longest > 0


def test_models_that_read_no_texts_are_not_sampled(tmp_path: Path) -> None:
    base = write_config("vit", tmp_path / "vit", layers=2)
    module = lora_on(base, ".*q_proj")
    with pytest.raises(PlanError, match=r"query reads images, which cannot be sampled; copy the module"):
        regraft.transfer(module, base, align="ridge", texts=["a", "b"])
    with pytest.raises(SamplingError, match=r"reads images, expected a model that reads texts"):
        regraft.forecast(module, base, align="none", texts=["a", "b"])


def test_a_record_of_ones_own_and_one_that_is_derived(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    run: Callable[..., tuple],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher, student = make_model("gpt2", layers=4), make_model("gpt2", layers=2)
    module = make_module(teacher, "lora")
    shipped = FAMILIES["gpt2"]
    monkeypatch.delitem(FAMILIES, "gpt2")
    code, planned, _ = run("plan", module, "--student", student)
    assert code == 0
    said = " ".join(planned.split())
    assert "(gpt2) has no record, so its sites were derived from its modules: h.N: attn.c_attn, attn.c_proj" in said
    code, record, _ = run("family", teacher)
    assert code == 0
    assert record.startswith("# gpt2, derived from its modules")
    (tmp_path / "gpt2.yaml").write_text(record.replace("attn/c_attn", "attention"))
    code, planned, error = run("plan", module, "--student", student, "--families", tmp_path / "gpt2.yaml")
    assert code == 0, error
    assert re.search(r"(?m)^ *0 +attention +0 ", planned)
    assert "has no record" not in planned
    (tmp_path / "gpt2.yaml").write_text("like: gpt3")
    code, _, error = run("plan", module, "--student", student, "--families", tmp_path / "gpt2.yaml")
    assert code == 2
    assert "unknown family 'gpt3'" in error
    monkeypatch.setitem(FAMILIES, "gpt2", shipped)
    assert run("family", teacher)[1].startswith("# gpt2, as it ships")


def test_what_a_model_reads_is_derived_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model_type in ("vit", "whisper", "gemma3", "bert"):
        shipped = FAMILIES[model_type]
        monkeypatch.delitem(FAMILIES, model_type)
        derived = resolve(write_config(model_type, tmp_path / model_type)).family
        assert derived.inputs == shipped.inputs
        assert [stack.inputs for stack in derived.stacks.values()] == [
            stack.inputs for stack in shipped.stacks.values()
        ]


def test_a_configuration_without_a_size_is_refused_in_a_sentence(tmp_path: Path) -> None:
    write_config("esm", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": None}))
    with pytest.raises(ModelError, match=r"\(esm\) cannot be built as AutoModel: "):
        resolve(tmp_path).skeleton()


@pytest.mark.parametrize("model_type", ["roberta-prelayernorm", "mpt", "xmod", "electra", "cohere", "glm"])
def test_records_are_derived_of_types_that_nobody_wrote_one_for(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FAMILIES, model_type, raising=False)
    config = transformers.AutoConfig.for_model(model_type)
    config.num_hidden_layers = 2
    base = Pretrained("base", config)
    sites = find_sites(base.skeleton(), base.family)
    assert {layer for layer, _ in sites} == {0, 1}
    assert {"attention_output", "ff_down"} <= {name for _, name in sites} or "mpt" in model_type
    if base.family.final_norm:
        norm = sites[1, "final_norm"]
        assert norm.in_width == norm.out_width == config.hidden_size
