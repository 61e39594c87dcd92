"""lm-evaluation-harness on a module and its base; what needs the extra `eval` is skipped without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import checked_json, load_base, load_peft, make_texts
from peft import LoraConfig, get_peft_model
from test_language import bytes_tokenizer

from regraft.errors import TaskError
from regraft.training.harness import compare_on_harness
from regraft.training.options import EvaluateOptions

TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""

needs_it = pytest.mark.skipif(find_spec("lm_eval") is None, reason="pip install 'regraft[eval]' for the harness")


@pytest.fixture(scope="module")
def module(make_model: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    base = tmp_path_factory.mktemp("base")
    load_base(make_model("llama", layers=2, tie_word_embeddings=True, vocab_size=300)).save_pretrained(base)
    bytes_tokenizer().save_pretrained(base)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    path = tmp_path_factory.mktemp("module")
    model.save_pretrained(path)
    return str(path)


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="it is installed")
def test_without_the_extra_it_says_what_to_install(module: str, run: Callable[..., Any]) -> None:
    code, _, error = run("evaluate", module, "--harness", "arc_easy")
    assert code == 2
    assert error.strip().endswith("install it with: pip install 'regraft[eval]'")


def test_its_tasks_have_their_own_data(module: str, tmp_path: Path, run: Callable[..., Any]) -> None:
    code, _, error = run("evaluate", module, "--harness", "arc_easy", "--data", tmp_path)
    assert code == 2
    assert "got --data beside --harness" in error


@needs_it
@pytest.mark.slow
def test_scores_of_base_and_module_are_those_of_their_likelihoods(
    module: str, tmp_path: Path, run: Callable[..., Any]
) -> None:
    """Accuracy is the share of questions whose right answer is the likeliest, worked out here with PEFT alone.

    The right answers are those that the base model gives.
    """
    base = json.loads((Path(module) / "adapter_config.json").read_text())["base_model_name_or_path"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    adapted = load_peft(base, module, labels=2, task_type="CAUSAL_LM")
    choices = [" doctor", " bridge", " garden", " window"]

    def answer(text: str) -> int:
        question, sums = tokenizer(text)["input_ids"], []
        for choice in choices:
            tokens = tokenizer(choice)["input_ids"]
            with torch.no_grad():
                logits = adapted(torch.tensor([[*question, *tokens]])).logits[0].log_softmax(-1)
            sums.append(sum(float(logits[len(question) + i - 1, token]) for i, token in enumerate(tokens)))
        return sums.index(max(sums))

    texts = make_texts(24)
    with adapted.disable_adapter():
        right = [answer(text) for text in texts]
    accuracy = sum(answer(text) == its for text, its in zip(texts, right, strict=True)) / len(texts)
    assert accuracy < 1
    rows = [{"question": text, "choices": choices, "answer": its} for text, its in zip(texts, right, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.yaml").write_text(TASK.format(name="mine", rows=tmp_path / "rows.jsonl"))
    (score,) = compare_on_harness(module, [str(tmp_path / "mine.yaml")], options=EvaluateOptions(batch_size=4))
    assert (score.task, score.metric, score.more_is_better) == ("mine", "acc,none", True)
    assert (score.base, score.module) == pytest.approx((1, accuracy))
    assert score.error is not None
    code, output, error = run("evaluate", module, "--harness", tmp_path / "mine.yaml", "--max-eval", 8)
    assert code == 0, error
    assert "mine" in output
    assert "acc,none" in output
    assert error == ""  # no bars of the harness where the output is no terminal
    code, output, error = run("evaluate", module, "--harness", tmp_path / "mine.yaml", "--max-eval", 8, "--json")
    assert code == 0, error
    (line,) = checked_json("evaluate --harness", output)["harness"]
    assert (line["task"], line["metric"]) == ("mine", "acc,none")


@needs_it
@pytest.mark.slow
def test_tasks_that_do_not_serve(module: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"unknown harness task 'arc_esy', .*; did you mean 'arc_easy'\?$"):
        compare_on_harness(module, ["arc_esy"])
    (tmp_path / "lost.yaml").write_text(TASK.format(name="lost", rows=tmp_path / "nowhere.jsonl"))
    with pytest.raises(TaskError, match="lm-evaluation-harness cannot run lost: "):
        compare_on_harness(module, [str(tmp_path / "lost.yaml")])
