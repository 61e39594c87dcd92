"""Body and head chosen apart, by what the ported module answers."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import load_peft, make_texts, peft_config, wordpiece_tokenizer
from peft import LoraConfig, get_peft_model
from test_sequential import tagger
from twins import make_twin

import regraft
from regraft.activations.batches import held_out_texts, in_order
from regraft.activations.observation import recording, run_on, watch
from regraft.activations.pairing import encode
from regraft.activations.walk import Walk
from regraft.cli import app
from regraft.distillation.answers import ask
from regraft.models.families import FAMILIES
from regraft.models.pretrained import HEAD_CLASSES, resolve
from regraft.models.sites import PER_TEXT, depth, find_sites
from regraft.modules.adapted import AdaptedModel
from regraft.port.answers import ANSWERING, TaskHead
from regraft.port.candidates import Candidate, Figure, Fit, choose
from regraft.tasks.agreement import agree

# ALBERT's pooler is seen before its tanh; a tiny NomicBERT has no pooler.
QUICK = ("bert", "distilbert", "xlm-roberta", "modernbert", "deberta-v2", "llama", "gpt2", "gemma3", "t5")
UNSEEN = [("albert", "SEQ_CLS"), ("nomic_bert", "SEQ_CLS")]


def has_class(model_type: str, task_type: str) -> bool:
    auto = getattr(transformers, f"AutoModel{HEAD_CLASSES[task_type]}")
    return transformers.CONFIG_MAPPING[model_type] in auto._model_mapping


HEADS = [
    pytest.param(model_type, task_type, marks=() if model_type in QUICK else pytest.mark.slow)
    for (model_type, family), task_type in product(sorted(FAMILIES.items()), ANSWERING)
    if HEAD_CLASSES[task_type] in family.task_heads
    and has_class(model_type, task_type)
    and (model_type, task_type) not in UNSEEN
]


@pytest.mark.parametrize(("model_type", "task_type"), HEADS)
def test_a_head_answers_from_final_hidden_states_as_the_whole_model_does(
    make_model: Callable[..., str], make_module: Callable[..., str], model_type: str, task_type: str
) -> None:
    base = resolve(make_model(model_type, layers=2))
    module = regraft.load(make_module(base.name, "lora", 3, task_type))
    tokenizer = base.tokenizer()
    encoding = encode(tokenizer, make_texts(3), 32)
    space = base.family.task_heads[HEAD_CLASSES[task_type]].reads
    adapted = AdaptedModel.of(base, module)
    with adapted.running(None, "cpu") as model:
        last = depth(find_sites(model, base.family)) - 1
        with recording(watch(model, base.family, "it", {(last, space)})) as seen:
            run_on(model, encoding)
    head = TaskHead(base, HEAD_CLASSES[task_type], 3)
    found = head(module.tensors, encoding, seen[last, space], space in PER_TEXT)
    whole = load_peft(base.name, module.source, 3, task_type)
    whole.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        inputs = {"input_ids": encoding.ids, "attention_mask": encoding.attention}
        expected = whole(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=1e-4, atol=1e-5)


TEXTS = make_texts(60)


def port(module: str | regraft.Module, teacher: str, student: str, **options: Any) -> regraft.Module:
    loaded = regraft.load(module) if isinstance(module, str) else module
    return regraft.transfer(loaded, student, teacher, texts=TEXTS, progress=False, **options)


def judged(ported: regraft.Module) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(one["body"], one["head"]): one for one in ported.report["candidates"] if one["scale"] in (0, 1)}


def chosen(ported: regraft.Module) -> tuple[str, str | None]:
    (one,) = (one for one in ported.report["candidates"] if one["chosen"])
    return one["body"], one["head"]


def edited(model: str, tmp_path: Path, edit: Callable[[Any], None]) -> str:
    """Write a model anew with other weights."""
    loaded = transformers.AutoModel.from_pretrained(model)
    with torch.no_grad():
        edit(loaded)
    loaded.save_pretrained(tmp_path / "edited")
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "edited")
    return str(tmp_path / "edited")


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("scale", [1, "auto"])
def test_a_module_ported_to_its_own_model_is_copied_bit_for_bit(
    make_model: Callable[..., str], make_module: Callable[..., str], kind: str, scale: float | str
) -> None:
    base = make_model(layers=2)
    module = make_module(base, kind, labels=3)
    ported = port(module, base, base, align="auto", scale=scale)
    tensors = regraft.load(module).tensors
    assert all(torch.equal(ported.tensors[key], tensor) for key, tensor in tensors.items())
    assert chosen(ported) == ("copied", "copied")
    assert ported.report["scale"] == 1
    found = judged(ported)
    assert found.keys() == {("copied", "copied"), ("silent", "copied"), ("silent", "mapped")}
    assert (found["copied", "copied"]["value"], found["copied", "copied"]["divergence"]) == (100, 0)
    assert found["silent", "copied"]["value"] < 100
    assert {made["action"] for made in ported.report["tensors"].values()} == {"copied"}


def test_where_the_final_states_differ_alone_the_body_is_copied_and_the_head_mapped(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    signs = torch.tensor([1.0, -2.0]).repeat(16)
    student = edited(base, tmp_path, lambda model: model.encoder.layer[-1].output.LayerNorm.weight.mul_(signs))
    ported = port(make_module(base, "lora", labels=3), base, student, align="auto")
    assert chosen(ported) == ("copied", "mapped")
    found = judged(ported)
    assert found["copied", "mapped"]["value"] == 100 > found["copied", "copied"]["value"]
    actions = {key: made["action"] for key, made in ported.report["tensors"].items()}
    assert {action for key, action in actions.items() if ".layer." in key} == {"copied"}
    assert actions["base_model.model.classifier.weight"] == "mapped"


def test_in_a_permuted_student_the_mapped_body_wins(tmp_path: Path) -> None:
    twin, tokenizer = make_twin(prune=False), wordpiece_tokenizer()
    adapted = get_peft_model(
        tagger(copy.deepcopy(twin.teacher)),
        peft_config("lora", "bert", task_type="TOKEN_CLS", modules_to_save=["classifier"]),
    )
    torch.manual_seed(3)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "module")
    given = {"teacher": (twin.teacher, tokenizer), "student": (twin.student, tokenizer)}
    ported = regraft.transfer(regraft.load(tmp_path / "module"), texts=TEXTS, progress=False, **given)
    assert chosen(ported) == ("mapped", "mapped")
    found = judged(ported)
    assert found["mapped", "mapped"]["value"] == 100
    assert len(found) == 6
    assert max(one["value"] for parts, one in found.items() if parts != ("mapped", "mapped")) < 100


def test_in_a_student_that_does_already_what_the_module_would_it_is_silent(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher = make_model(layers=2)
    module = make_module(teacher, "lora", labels=3)
    load_peft(teacher, module, 3).merge_and_unload().bert.save_pretrained(tmp_path / "merged")
    transformers.AutoTokenizer.from_pretrained(teacher).save_pretrained(tmp_path / "merged")
    ported = port(module, teacher, str(tmp_path / "merged"))
    assert chosen(ported) == ("silent", "copied")
    assert ported.report["scale"] == 0
    assert not ported.tensors["base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.weight"].any()
    found = judged(ported)
    assert found["silent", "copied"]["value"] == 100
    assert found["silent", "copied"]["divergence"] == pytest.approx(0, abs=1e-6)
    assert max(one["value"] for (body, _), one in found.items() if body != "silent") < 100


@pytest.mark.parametrize("task_type", ["TOKEN_CLS", "SEQ_CLS"])
def test_the_figures_are_of_the_ports_own_answers_on_held_out_texts_alone(
    make_model: Callable[..., str], make_module: Callable[..., str], task_type: str
) -> None:
    teacher, student = make_model("xlm-roberta"), make_model("distilbert", width=48, layers=2)
    if task_type == "SEQ_CLS":
        student = make_model("xlm-roberta", layers=2, seed=5)
    module = regraft.load(make_module(teacher, "lora", 3, task_type))
    ported = port(module, teacher, student)
    ordered = in_order(TEXTS)
    held_out = [ordered[number] for number in held_out_texts(len(ordered), len(ordered) // 4)]
    its, mine = (
        ask(resolve(base), one, held_out, progress=False) for base, one in ((teacher, module), (student, ported))
    )
    right, found, texts = its.beside(mine)
    expected = agree(task_type, right.numpy(), found.numpy(), texts)
    one = judged(ported)[chosen(ported)]
    assert (one["metric"], one["value"]) == (expected.metric, pytest.approx(expected.percent))
    assert one["divergence"] == pytest.approx(expected.divergence, rel=1e-4)
    low, high = expected.interval
    assert 1.96 * 2 * one["error"] == pytest.approx(high - low)


def test_labels_in_another_order_are_judged_by_name(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    plain = regraft.load(make_module(base, "lora", 3))
    module = regraft.Module(plain.config, plain.tensors, "named", {"labels": ["a", "b", "c"]})
    ported = port(module, base, base, align="auto", labels=["c", "a", "b"])
    assert judged(ported)["copied", "copied"]["value"] == 100
    head = {made["action"] for key, made in ported.report["tensors"].items() if "classifier" in key}
    assert head == {"reordered"}


@pytest.mark.parametrize(("labels", "head"), [(None, None), (3, "fresh")], ids=["no head", "fresh"])
def test_without_a_head_the_final_hidden_states_decide(
    make_model: Callable[..., str], make_module: Callable[..., str], labels: int | None, head: str | None
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    ported = port(make_module(teacher, "lora", labels), teacher, student, head=head)
    found = judged(ported)
    assert found.keys() == {(body, None) for body in ("copied", "mapped", "silent")}
    assert {one["metric"] for one in found.values()} == {"R2"}
    assert found[chosen(ported)]["value"] == max(one["value"] for one in found.values())


def test_whole_passes_choose_the_same(
    make_model: Callable[..., str], make_module: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    module = make_module(teacher, "lora", labels=3)
    walked = port(module, teacher, student, scale="auto")
    monkeypatch.setattr(Walk, "_can_skip", lambda _: False)
    with pytest.warns(UserWarning, match="cannot be run one layer at a time"):
        whole = port(module, teacher, student, scale="auto")
    assert walked.hash() == whole.hash()
    assert walked.report["candidates"] == whole.report["candidates"]


def test_there_is_no_choice_by_name_apart_or_with_a_decoder_beside(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    module = make_module(teacher, "lora", labels=3)
    for options in ({"align": "ridge", "sequential": True}, {"sequential": False}, {"scale": 0}):
        assert port(module, teacher, student, **options).report["candidates"] == []
    searched = port(module, teacher, student, align="ridge", sequential=True, scale="auto").report
    assert (searched["candidates"], len(searched["scales"])) == ([], 5)
    assert searched["tensors"]["base_model.model.classifier.weight"]["action"] == "mapped"
    assert max(searched["scales"].values()) > 1  # percent of agreement
    beside = make_model("bart", layers=2)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(transformers.AutoModel.from_pretrained(beside), config).save_pretrained(tmp_path)
    assert port(str(tmp_path), beside, beside, align="auto").report["candidates"] == []


def candidate(value: float, divergence: float, body: str, head: str = "mapped", scale: float = 1) -> Candidate:
    fits = Fit(body), Fit(head)
    return Candidate(*fits, scale, Figure("accuracy", value, 4.0, divergence))


def test_of_candidates_within_a_standard_error_the_least_divergent_is_chosen() -> None:
    best, near, far = candidate(90, 0.3, "mapped"), candidate(87, 0.2, "copied"), candidate(85, 0.1, "copied")
    assert choose([best, near, far]) is near
    assert choose([best, far]) is best


def test_of_equals_the_nearest_to_the_teachers_module_is_chosen() -> None:
    silent, mapped = candidate(90, 0.1, "mapped", scale=0), candidate(90, 0.1, "mapped")
    headed, copied = candidate(90, 0.1, "copied"), candidate(90, 0.1, "copied", "copied")
    assert choose([silent, mapped]) is mapped
    assert choose([silent, mapped, headed]) is headed
    assert choose([silent, mapped, headed, copied]) is copied


def test_the_command_says_what_it_chose_from(
    run: Callable[..., tuple[int, str, str]],
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    module, student = make_module(make_model(layers=4), labels=3), make_model(layers=2)
    monkeypatch.setattr(app.console, "width", 80)
    code, out, error = run("plan", module, "--student", student, "--texts", texts)
    assert code == 0, error
    table = out[out.index("Chosen by accuracy with the teacher") :].splitlines()[:11]
    rows = [row for row in table if re.match("(copied|mapped|silent) .*±", row)]
    assert (len(rows), sum("chosen" in row for row in rows)) == (6, 1)
    assert max(map(len, table)) <= 80
    # There are two figures on the screen, on other texts and words: it says which of them is the port's.
    whole = " ".join(out.split())
    said = "These figures choose, and no more: how often the port gives its teacher's answers is said last"
    assert 0 < whole.index(said) < whole.index("held-out texts the port gives the teacher's answers with")
