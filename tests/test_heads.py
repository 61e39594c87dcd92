"""The task head: ported where the models' heads are alike and the labels agree, and fresh elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import DECODERS, ENCODERS, load_peft, make_texts, tiny_config, wordpiece_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from twins import make_twin

import regraft
from regraft.errors import PlanError

CLASSIFIER = "base_model.model.classifier.weight"
IDS = torch.tensor([[2, 7, 11, 9, 3], [2, 8, 30, 3, 0]])


def actions(module: regraft.Module) -> dict[str, str]:
    """Return what happened to each tensor of the head."""
    made = module.report["tensors"]
    return {key.removeprefix("base_model.model."): made[key]["action"] for key in made if ".layer" not in key}


@pytest.mark.parametrize("task_type", ["TOKEN_CLS", "SEQ_CLS", "QUESTION_ANS"])
@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
def test_a_copy_of_a_model_answers_like_its_teacher(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, model_type: str, task_type: str
) -> None:
    """Every family's record of its heads names every tensor that PEFT expects, in the right place."""
    base = make_model(model_type, layers=2)
    labels = 2 if task_type == "QUESTION_ANS" else 3
    module = make_module(base, "lora", labels, task_type)
    ported = regraft.transfer(regraft.load(module), base)
    assert set(actions(ported).values()) == {"copied"}
    ported.save(tmp_path / "ported")
    models = [load_peft(base, path, labels, task_type) for path in (module, tmp_path / "ported")]
    for model in models:
        model.config.pad_token_id = 0
    with torch.no_grad():
        first, second = (model(input_ids=IDS) for model in models)
    key = "start_logits" if task_type == "QUESTION_ANS" else "logits"
    assert torch.equal(first[key], second[key])


def test_lsa_takes_the_input_of_the_head_through_the_final_hidden_states(tmp_path: Path) -> None:
    """On a permuted and pruned twin the ported logits equal the teacher's."""
    twin, tokenizer = make_twin(prune=True), wordpiece_tokenizer()
    model = transformers.BertForTokenClassification(tiny_config("bert", 64, layers=3, num_labels=3)).double()
    model.bert = twin.teacher
    adapted = get_peft_model(model, LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["query"])).eval()
    head = adapted.base_model.model.classifier.modules_to_save["default"]
    pruned = torch.ones(64, dtype=torch.bool)
    pruned[twin.kept] = False
    with torch.no_grad():
        head.weight[:, pruned] = 0  # nothing of the student's can stand for these
    adapted.save_pretrained(tmp_path / "teacher")
    batch = tokenizer(make_texts(4, seed=9), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = adapted(**batch).logits
    ported = regraft.transfer(
        regraft.load(tmp_path / "teacher"),
        student=(twin.student, tokenizer),
        teacher=(adapted.unload(), tokenizer),
        align="lsa",
        spaces="measured",
        texts=make_texts(60),
        progress=False,
    )
    assert actions(ported) == {"classifier.weight": "mapped", "classifier.bias": "copied"}
    scored = {score["space"] for score in ported.report["scores"]}
    assert "2.2.final_hidden" in scored
    ported.save(tmp_path / "student")
    student = transformers.BertForTokenClassification(tiny_config("bert", 32, layers=3, num_labels=3)).double()
    student.bert = twin.student
    with torch.no_grad():
        got = PeftModel.from_pretrained(student, str(tmp_path / "student")).eval()(**batch).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_a_head_on_the_pooler_goes_through_what_the_poolers_say_of_whole_texts(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    teacher, student = make_model(layers=4), make_model(width=48, layers=2)
    module = regraft.load(make_module(teacher, "lora", 3, "SEQ_CLS"))
    ported = regraft.transfer(module, student, align="lsa", texts=make_texts(120), spaces="measured", progress=False)
    score = next(score for score in ported.report["scores"] if score["space"] == "1.3.pooled")
    assert score["matched"] == 32
    assert ported.report["sample"]["pairing"] == "offsets"
    weight, source = ported.tensors[CLASSIFIER], module.tensors[CLASSIFIER]
    matched = weight.abs().sum(0) > 0
    assert matched.sum() == 32  # the wider student leaves 16 dimensions without a counterpart
    assert {tuple(column.tolist()) for column in weight.T[matched]} == {tuple(c.tolist()) for c in source.T}
    few = {"texts": make_texts(20), "batch_size": 1, "progress": False}
    message = r"has 18 texts to fit 1\.3\.pooled .* a fresh head \(--head fresh\)"
    with pytest.raises(regraft.RegraftError, match=message):
        regraft.transfer(module, student, align="lsa", spaces="measured", **few)


@pytest.mark.parametrize("sequential", [False, True])
def test_a_pooler_that_a_checkpoint_lacks_is_not_drawn_at_random(
    make_model: Callable[..., str], make_module: Callable[..., str], sequential: bool, tmp_path: Path
) -> None:
    module = regraft.load(make_module(make_model(layers=4), "lora", 3, "SEQ_CLS"))
    transformers.AutoModelForMaskedLM.from_pretrained(make_model(layers=2, seed=5)).save_pretrained(tmp_path / "bare")
    wordpiece_tokenizer().save_pretrained(tmp_path / "bare")
    options = {"align": "lsa", "spaces": "measured", "texts": make_texts(120), "progress": False}
    options |= {"sequential": sequential}
    with pytest.raises(regraft.RegraftError, match=r"lack pooled for student layer 1 .* a fresh head \(--head fresh\)"):
        regraft.transfer(module, tmp_path / "bare", **options)
    hashes = {regraft.transfer(module, tmp_path / "bare", head="fresh", **options).hash() for _ in range(2)}
    assert len(hashes) == 1


def test_labels_are_put_in_order_by_name(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    plain = regraft.load(make_module(base, "lora", 3))
    module = regraft.Module(plain.config, plain.tensors, "named", {"labels": ["a", "b", "c"]})
    ported = regraft.transfer(module, base, labels=["c", "a", "b"])
    assert ported.labels == ("c", "a", "b")
    assert torch.equal(ported.tensors[CLASSIFIER], plain.tensors[CLASSIFIER][[2, 0, 1]])
    bias = "base_model.model.classifier.bias"
    assert torch.equal(ported.tensors[bias], plain.tensors[bias][[2, 0, 1]])
    assert set(actions(ported).values()) == {"reordered"}
    assert regraft.transfer(ported, base, labels=["a", "b", "c"]).hash() == module.hash()
    ported.save(tmp_path / "ported")
    with torch.no_grad():
        before = load_peft(base, module.save(tmp_path / "named"), 3)(input_ids=IDS).logits
        after = load_peft(base, tmp_path / "ported", 3)(input_ids=IDS).logits
    assert torch.equal(after, before[..., [2, 0, 1]])


def test_without_agreement_the_head_is_fresh_and_the_report_says_why(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(layers=2)
    plain = regraft.load(make_module(base, "lora", 3))
    named = regraft.Module(plain.config, plain.tensors, "named", {"labels": ["a", "b", "c"]})
    for module, message in (
        (named, "the label sets do not agree: the teacher's are a, b, c, the student's a, b, d, e"),
        (plain, "the teacher's are not known"),
    ):
        ported = regraft.transfer(module, base, labels=["a", "b", "d", "e"])
        assert ported.tensors[CLASSIFIER].shape == (4, 32)
        assert set(actions(ported).values()) == {"fresh"}
        assert message in ported.report["left"][CLASSIFIER]
        with pytest.raises(PlanError, match=f"head of .* cannot be ported: .*{message}.*use --head fresh"):
            regraft.transfer(module, base, labels=["a", "b", "d", "e"], head="teacher")
    assert set(actions(regraft.transfer(named, base, head="fresh")).values()) == {"fresh"}
    with pytest.raises(PlanError, match="unknown head 'taecher', expected one of fresh, teacher; did you mean"):
        regraft.transfer(named, base, head="taecher")
    with pytest.raises(PlanError, match="the labels a, b, b name one twice"):
        regraft.transfer(named, base, labels=["a", "b", "b"])
    bare = regraft.load(make_module(base, "lora"))
    with pytest.raises(PlanError, match="has no task head that could be ported"):
        regraft.transfer(bare, base, head="teacher")
    with pytest.raises(PlanError, match="has no task head whose labels could be named; leave out --labels"):
        regraft.transfer(bare, base, labels=["a", "b"])
    torn = regraft.Module(plain.config, plain.tensors, "torn", {"labels": ["a", "b"]})
    with pytest.raises(PlanError, match="names 2 labels for a head of 3 rows"):
        regraft.transfer(torn, base, head="teacher")


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ({}, {"model_type": "distilbert"}, "one linear layer on the pooled vector and 2 linear layers .relu."),
        ({"model_type": "roberta"}, {"model_type": "electra"}, "2 linear layers .tanh. .* and 2 linear layers .gelu."),
        (
            {"model_type": "roberta"},
            {"model_type": "roberta", "width": 48},
            "a hidden layer of its own, 32 wide in the teacher and 48",
        ),
    ],
)
def test_heads_that_differ_are_not_forced_upon_each_other(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    teacher: dict[str, object],
    student: dict[str, object],
    message: str,
) -> None:
    module = regraft.load(make_module(make_model(layers=2, **teacher), "lora", 3, "SEQ_CLS"))
    plan = regraft.plan(module, make_model(layers=2, **student), align="lsa")
    assert not plan.problems
    heads = {target.action for target in plan.targets if target.place is None}
    assert heads == {"fresh"}
    refused = regraft.plan(module, make_model(layers=2, **student), align="lsa", head="teacher")
    with pytest.raises(PlanError, match=message):
        refused.check()


def test_the_first_layer_of_distilberts_head_is_saved_too(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    """PEFT's own list of heads lacks it: the module would answer otherwise after each loading."""
    student = make_model("distilbert", layers=2)
    module = regraft.load(make_module(make_model(layers=4), "lora", 3, "SEQ_CLS"))
    ported = regraft.transfer(module, student, align="none")
    assert "base_model.model.pre_classifier.weight" in ported.tensors
    assert {"classifier", "pre_classifier"} <= set(ported.config["modules_to_save"])
    ported.save(tmp_path / "ported")
    with torch.no_grad():
        torch.manual_seed(5)
        first = load_peft(student, tmp_path / "ported", 3, "SEQ_CLS")(input_ids=IDS).logits
        second = load_peft(student, tmp_path / "ported", 3, "SEQ_CLS")(input_ids=IDS).logits
    assert torch.equal(first, second)
