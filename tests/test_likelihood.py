"""Language models as teachers: likelihoods of chunks that two tokenizers share, by hand and by transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import make_texts, unigram_tokenizer
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

import regraft
from regraft.distillation.answer_kinds import ANSWERS
from regraft.distillation.answers import ask
from regraft.distillation.comparison import compare
from regraft.distillation.likelihood import bits_per_byte, chunks, encode_tokens, likelihood_distance
from regraft.distillation.refinement import refine
from regraft.errors import TaskError
from regraft.models.pretrained import resolve
from regraft.tasks.agreement import agree

Make = Callable[..., Any]


def bytes_tokenizer(bos: bool) -> Any:
    """A tokenizer of bytes, that joins two letters of a few words; with a token before each text or without."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", *letters, "th", "er"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h"), ("e", "r")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    if bos:
        fast.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return fast


def causal(folder: Path, tokenizer: Any, width: int, seed: int) -> str:
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    torch.manual_seed(seed)
    path = folder / f"{width}-{seed}-{tokenizer.bos_token_id}"
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def lora(base: str, folder: Path, seed: int, scale: float = 0.5) -> str:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str, str]:
    """A teacher with a token before each text, and a student of other words and without one; a module of each."""
    folder = tmp_path_factory.mktemp("language")
    student_tokenizer = unigram_tokenizer()
    student_tokenizer.eos_token = student_tokenizer.pad_token
    teacher, student = causal(folder, bytes_tokenizer(True), 32, 0), causal(folder, student_tokenizer, 24, 1)
    return teacher, lora(teacher, folder / "t", 2), student, lora(student, folder / "s", 3)


def test_places_are_ends_of_tokens_and_of_characters() -> None:
    text = "the \u00e9 \U0001f600er"
    batch, rows = encode_tokens(bytes_tokenizer(True), [text, "th"], 64)
    # Two bytes of an accent and four of a smile end in one place each, the last of them.
    assert rows.word[rows.text == 0].tolist() == [2, 3, 4, 5, 6, 7, 9]
    assert batch["input_ids"][0, 0] == 0
    token = dict(zip(rows.word[rows.text == 0].tolist(), rows.token[rows.text == 0].tolist(), strict=True))
    assert token[7] - token[6] == 4
    assert batch["attention_mask"].sum(1).tolist() == [1 + 1 + 1 + 1 + 2 + 1 + 4 + 1, 2]
    without, _ = encode_tokens(bytes_tokenizer(False), [text], 64)
    assert without["input_ids"][0, 0] == 1  # the end of another text, where nothing else stands before one


def test_log_likelihoods_are_those_of_transformers(pair: tuple[str, str, str, str]) -> None:
    base, module, _, _ = pair
    texts = ["the river opens", "er", "a \u00e9"]
    answers = ask(resolve(base), regraft.load(module), texts, batch_size=2, progress=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.load_adapter(module)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    nats = 0.0
    for number, text in enumerate(texts):
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            loss = model(**encoded, labels=encoded["input_ids"]).loss
        total = -float(loss) * (encoded["input_ids"].shape[1] - 1)
        nats -= total
        assert float(answers.logits[answers.text == number][-1]) == pytest.approx(total, rel=1e-5)
    bits = bits_per_byte(answers.logits, answers.text, answers.word, texts)
    assert bits == pytest.approx(nats / math.log(2) / len("".join(texts).encode()), rel=1e-5)


def test_the_loss_is_the_papers_by_hand() -> None:
    """Two chunks of one text and one of another, with tau = 100."""
    teacher = torch.tensor([[-1.0], [-4.0], [-2.0]])
    student = torch.tensor([[-2.0], [-2.5], [-2.0]])
    text = torch.tensor([0, 0, 1])
    torch.testing.assert_close(chunks(teacher, text), torch.tensor([-1.0, -3.0, -2.0]))
    expected = []
    for a, b in ((-1.0, -2.0), (-3.0, -0.5), (-2.0, -2.0)):
        p, q = math.exp(a / 100), math.exp(b / 100)
        expected.append(-(p * b / 100 + (1 - p) * math.log(1 - q)))
    torch.testing.assert_close(
        likelihood_distance(student, teacher, text), torch.tensor(expected), rtol=1e-3, atol=1e-5
    )
    # It is least where the student's likelihoods are the teacher's.
    moved = teacher.clone().requires_grad_()
    likelihood_distance(moved, teacher, text).sum().backward()
    assert moved.grad is not None
    assert float(moved.grad.abs().max()) < 1e-4


def test_overlap_is_worked_out_by_hand() -> None:
    teacher, student = np.log([[0.5], [0.25], [0.8]]), np.log([[0.25], [0.125], [0.8]])
    found = agree("CAUSAL_LM", teacher, student, np.array([0, 0, 1]))
    # The probabilities of the chunks are 0.5, 0.5, 0.8 and 0.25, 0.5, 0.8.
    assert (found.metric, found.percent) == ("likelihood overlap", pytest.approx(100 * (0.75 + 1 + 1) / 3))
    assert found.divergence == pytest.approx((0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 3, abs=1e-6)


def test_a_student_learns_what_its_teacher_says_through_another_tokenizer(
    pair: tuple[str, str, str, str], tmp_path: Path
) -> None:
    _, its, _, mine = pair
    texts = make_texts(120, seed=4)
    before = compare(regraft.load(its), regraft.load(mine), texts, progress=False)
    refined = refine(
        mine,
        its,
        texts,
        tmp_path / "out",
        answers=tmp_path / "answers",
        steps=60,
        learning_rate=1e-2,
        batch_size=8,
        progress=False,
    )
    after = compare(regraft.load(its), regraft.load(tmp_path / "out"), texts, progress=False)
    assert after.agreement.interval[0] > before.agreement.interval[1]
    assert after.agreement.divergence < before.agreement.divergence
    assert refined.provenance["refinement"]["metric"] == "likelihood overlap"
    assert refined.labels == ()


def test_a_module_compared_with_itself_says_the_same(
    pair: tuple[str, str, str, str], run: Make, tmp_path: Path
) -> None:
    _, its, _, _ = pair
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(30)))
    code, output, error = run("compare", its, its, "--texts", tmp_path / "texts.txt", "--quiet")
    assert code == 0, error
    assert "100.0" in output
    assert "Bits per byte: the student" in output
    assert "its model alone" in output
    assert "head" not in output


def test_what_is_no_text_of_a_language_model_is_refused(pair: tuple[str, str, str, str]) -> None:
    base, module, _, _ = pair
    with pytest.raises(TaskError, match="2 pairs of texts"):
        ask(resolve(base), regraft.load(module), [("a", "b"), ("c", "d")], progress=False)
    assert not ANSWERS["CAUSAL_LM"].has_head
