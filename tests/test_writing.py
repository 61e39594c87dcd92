"""Texts that a teacher writes itself: from its beginning of a text or from prompts, the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from test_likeliest import unigrams
from test_likelihood import bytes_tokenizer, causal, lora

import regraft
from regraft.distillation import writing
from regraft.distillation.comparison import compare
from regraft.distillation.refinement import refine
from regraft.distillation.writing import Writing, written_texts
from regraft.errors import ModuleFileError, SamplingError, TaskError
from regraft.files.texts import read_texts

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A module on a model of few words, so that what it writes is likely."""
    folder = tmp_path_factory.mktemp("writer")
    return lora(causal(folder, unigrams(), 32, 0), folder / "t", 2, scale=2.0)


def write(module: str, *given: Any, **options: Any) -> list[str]:
    return written_texts(Writing(*given), regraft.load(module), max_length=24, progress=False, **options).texts


def test_the_same_seed_writes_the_same_texts(writer: str, tmp_path: Path) -> None:
    first = write(writer, 40, directory=tmp_path / "a")
    assert write(writer, 40, directory=tmp_path / "b") == first
    assert write(writer, 40, directory=tmp_path / "b", seed=1) != first
    assert write(writer, 36, directory=tmp_path / "c")[:32] == first[:32]
    assert len({*first}) > 30


def test_texts_are_kept_and_read_again(writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = regraft.load(writer)
    found = written_texts(Writing(5), module, max_length=24, progress=False)
    assert read_texts(found.file) == found.texts
    said = json.loads((found.file.parent / "regraft.json").read_text())["written"]
    assert (said["by"], said["asked"], said["seed"]) == (module.source, 5, 0)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "attach", None)
        assert written_texts(Writing(5), module, max_length=24, progress=False) == found
    found.file.write_text(json.dumps({"text": "mine"}) + "\n")
    assert written_texts(Writing(5), module, max_length=24, progress=False) == found


def test_texts_go_on_from_prompts_in_turn(writer: str) -> None:
    prompts = ("the old", "a young river", "never")
    texts = write(writer, 7, prompts)
    assert [text.startswith(prompts[number % 3]) for number, text in enumerate(texts)] == [True] * 7
    assert all(len(text) > len(prompts[number % 3]) for number, text in enumerate(texts))


def test_tokens_are_drawn_as_likely_as_the_module_has_them(tmp_path: Path) -> None:
    """Whatever the model's own settings for generation are: 640 first tokens of texts beside their probabilities."""
    tokenizer = bytes_tokenizer(True)
    base = causal(tmp_path, tokenizer, 32, 0)
    module = lora(base, tmp_path / "t", 2)
    own = {"temperature": 0.1, "top_k": 1, "top_p": 0.5, "repetition_penalty": 3.0, "do_sample": False}
    (Path(base) / "generation_config.json").write_text(json.dumps({**own, "eos_token_id": 1}))
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.load_adapter(module)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[0]])).logits[0, -1].softmax(-1)
    expected[1] = 0  # a text has a token at least
    expected = expected / expected.sum()
    found = written_texts(Writing(640), regraft.load(module), tmp_path / "kept", max_length=8, progress=False)
    assert max(map(len, found.texts)) <= 2 * 7  # tokens of two letters at most, behind the one before a text
    counts = torch.zeros(len(expected))
    letters = {number: tokenizer.decode([number]) for number in range(len(expected))}
    alone = [number for number, letter in letters.items() if letter.isascii() and letter.isalpha() and len(letter) == 1]
    likeliest = sorted(alone, key=lambda number: -float(expected[number]))[:3]
    for number in likeliest:
        counts[number] = sum(text.startswith(letters[number]) for text in found.texts)
    for number in likeliest:
        share = float(expected[number])
        assert share > 0.01
        assert float(counts[number]) / 640 == pytest.approx(share, abs=4 * (share / 640) ** 0.5)


def test_what_is_written_is_refined_and_compared_on(writer: str, tmp_path: Path, run: Make) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the old\n\nnever\n")
    some = ("--generate", 45, "--prompts", prompts, "--max-length", 24, "--json")
    code, out, error = run("compare", writer, writer, *some)
    assert code == 0, error
    compared = json.loads(out)
    assert compared["written"] in error
    texts = read_texts(compared["written"])
    assert len(texts) == compared["texts"] == 45
    assert compared["agreement"]["percent"] == pytest.approx(100)
    options = ("--teacher", writer, "--out", tmp_path / "out", "--steps", 5)
    code, out, error = run("refine", writer, *options, *some)
    assert code == 0, error
    said = json.loads(out)["texts"]
    assert said["written"] == {"asked": 45, "prompts": 2, "file": compared["written"]}  # of one seed
    assert "The teacher wrote the" in error
    assert regraft.load(tmp_path / "out").provenance["refinement"]["texts"] == said
    again = compare(regraft.load(writer), regraft.load(writer), texts, progress=False)
    assert (again.written, again.texts) == (None, 45)


def test_what_cannot_be_written_is_refused_in_a_sentence(
    writer: str, make_model: Make, make_module: Make, tmp_path: Path, run: Make
) -> None:
    tokenizer = bytes_tokenizer(False)
    tokenizer.bos_token = None
    beginless = lora(causal(tmp_path, tokenizer, 24, 0), tmp_path / "b", 2)
    with pytest.raises(TaskError, match=r"no token for the beginning of a text.* give --prompts FILE"):
        write(beginless, 5)
    assert write(beginless, 2, ("the",))[0].startswith("the")
    with pytest.raises(TaskError, match=r"prompt 2 has .* tokens, expected fewer than the 24"):
        write(writer, 5, ("the", "the old river " * 9))
    tagger = make_module(make_model(layers=2), labels=3)
    with pytest.raises(ModuleFileError, match="is for TOKEN_CLS and writes no texts"):
        write(tagger, 5)
    with pytest.raises(SamplingError, match="found 39 texts"):
        refine(writer, writer, Writing(39))
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    for given, message in (
        (("--generate", 0), "--generate is '0', expected 1 or more"),
        (("--generate", 50, "--prompts", empty), "empty.txt holds no prompt, expected beginnings of texts"),
        (("--generate", 50, "--prompts", tmp_path / "none.txt"), "cannot read texts from"),
        (("--prompts", empty), "found --prompts without --generate"),
        (("--generate", 50, "--texts", empty), "found --generate beside --texts, expected one of them"),
    ):
        for command in (("compare", writer, writer), ("refine", writer, "--teacher", writer, "--out", tmp_path / "x")):
            code, _, error = run(*command, *given)
            assert code == 2, error
            assert message in error
    assert not (tmp_path / "x").exists()
