"""What a language model answers in conversations, beside what transformers alone makes of it, one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from rouge_score.rouge_scorer import RougeScorer
from test_language import bytes_tokenizer
from test_likelihood import causal, lora

from regraft.errors import TaskError
from regraft.tasks.options import DataOptions
from regraft.training.answering import compare_answers
from regraft.training.evaluation import evaluate
from regraft.training.options import EvaluateOptions

Run = Callable[..., tuple[int, str, str]]
QUESTIONS = ["who", "where is the old city", "why", "when do the doctors walk", "what", "how many"]
LENGTH = 12


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A module on a model with a chat template, whose ends it does not name as ends of texts."""
    folder = tmp_path_factory.mktemp("answering")
    return lora(causal(folder, bytes_tokenizer(), 32, 0), folder / "lora", 1)


@pytest.fixture(scope="module")
def answers(module: str) -> list[str]:
    """The likeliest token at a time until the template's own end of an answer, by transformers and PEFT alone."""
    base = json.loads((Path(module) / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), module).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    said = []
    for question in QUESTIONS:
        asked = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids, do_sample=False, max_new_tokens=LENGTH, min_new_tokens=1, eos_token_id=ends
            )
        said.append(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return said


def conversations(folder: Path, answers: list[str], more: str = "") -> Path:
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
    for split in ("train", "val", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + more)
    return folder


def test_answers_are_those_that_transformers_gives_one_at_a_time(
    module: str, answers: list[str], tmp_path: Path, run: Run
) -> None:
    assert all(answers)
    assert len({*answers}) > 3
    given = [answers[0], "something else", *answers[2:5], "nothing"]
    data = conversations(tmp_path, given, '\n{"text": "a text has no answer"}')
    options = EvaluateOptions(batch_size=4, max_length=LENGTH)
    found = evaluate(module, data=DataOptions(task="lm", data=data), options=options, generate=100, progress=False)
    assert found["exact_match"] == pytest.approx(100 * 4 / 6)
    assert list(found) == ["exact_match", "rouge_l", "loss", "perplexity", "bits_per_byte"]
    command = ("evaluate", module, "--task", "lm", "--data", data, "--generate", 2, "--max-length", LENGTH, "--json")
    code, output, _ = run(*command)
    assert code == 0
    assert json.loads(output)["scores"]["exact_match"] == 50


def test_overlap_is_the_originals_where_that_knows_the_letters() -> None:
    said = ["the cat sat on the mat", "Where? In London!", "no", " yes\n"]
    expected = ["the cat lay on a mat", "in london, 1852", "yes", "yes"]
    own = RougeScorer(["rougeL"])
    pairs = zip(said, expected, strict=True)
    original = [own.score(other, one)["rougeL"].fmeasure for one, other in pairs]
    found = compare_answers(said, expected)
    assert found == {"exact_match": 25.0, "rouge_l": pytest.approx(25 * sum(original))}
    assert compare_answers(["die Straße ist grün"], ["die straße war rot"])["rouge_l"] == pytest.approx(50)


def test_what_cannot_be_answered_is_refused_in_a_sentence(
    module: str, answers: list[str], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = conversations(tmp_path, answers)
    (tmp_path / "texts").mkdir()
    (tmp_path / "first").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "texts" / f"{split}.txt").write_text("a text\nanother\n")
        row = {"messages": [{"role": "assistant", "content": "welcome"}, {"role": "user", "content": "thanks"}]}
        (tmp_path / "first" / f"{split}.jsonl").write_text(json.dumps(row))
    for words, expected in (
        (("--task", "lm", "--data", tmp_path / "texts", "--generate", 2), "the data have no 'messages'"),
        (("--task", "lm", "--data", tmp_path / "first", "--generate", 2), "begins with its answer, 'welcome'"),
        (("--task", "lm", "--data", data, "--generate", 0), "generate is 0, expected 1 or more"),
        (("--task", "classification", "--data", data, "--generate", 2), "expected --task lm"),
        (("--harness", "arc_easy", "--generate", 2), "got --generate beside --harness"),
    ):
        code, _, error = run("evaluate", module, *words)
        assert (code, error.count("error: ")) == (2, 1)
        assert expected in error
    monkeypatch.setattr("regraft.training.answering.find_spec", lambda _: None)
    with pytest.raises(TaskError, match=r"pip install 'regraft\[eval\]'"):
        evaluate(module, data=DataOptions(task="lm", data=data), generate=2)
