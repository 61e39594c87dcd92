"""Language modelling: every number against transformers, PEFT or a sum done by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import load_base, load_peft, make_texts, unigram_tokenizer, wordpiece_tokenizer
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import regraft
from regraft import report
from regraft.errors import ModuleFileError, TaskError
from regraft.experiment.executors import Local
from regraft.experiment.grid import make_grid
from regraft.experiment.preflight import check
from regraft.experiment.run import Ended
from regraft.experiment.run import run as run_experiment
from regraft.experiment.spec import Experiment
from regraft.experiment.store import Store
from regraft.files.fingerprints import data_identity
from regraft.report.collect import collect
from regraft.tasks.data import load_task
from regraft.tasks.encoding import IGNORED
from regraft.tasks.kinds import KINDS
from regraft.tasks.language import Reader, encode_windows, language_collator, pack, score_language
from regraft.tasks.options import DataOptions
from regraft.tasks.records import TASKS
from regraft.training import finetuning
from regraft.training.evaluation import Rows, evaluate
from regraft.training.finetuning import train
from regraft.training.options import EvaluateOptions, TrainOptions
from regraft.training.runs import best_of
from regraft.training.trainer import make_trainer

LM = TASKS["lm"]
FAST = TrainOptions(epochs=3, batch_size=4, learning_rate=2e-2, rank=4, max_length=32)

CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def bytes_tokenizer(bos: bool = False, template: str | None = CHAT) -> Any:
    """Return a tokenizer with a token per byte, so that everything can be counted by hand."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", additional_special_tokens=special
    )
    made.chat_template = template
    if bos:
        made.add_special_tokens({"bos_token": "<bos>"})
        from tokenizers import processors

        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", made.bos_token_id)]
        )
    return made


def of_texts(*texts: str) -> Dataset:
    return Dataset.from_list([{"text": text, "messages": None} for text in texts])


def of_chat(*turns: tuple[str, str]) -> Dataset:
    return Dataset.from_list(
        [{"text": None, "messages": [{"role": role, "content": content} for role, content in turns]}]
    )


@pytest.fixture(scope="module")
def llama(make_model: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny language model that reads bytes."""
    base = load_base(make_model("llama", layers=2, tie_word_embeddings=True, vocab_size=300, initializer_range=0.1))
    path = tmp_path_factory.mktemp("bytes")
    base.save_pretrained(path)
    bytes_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    for seed, (split, count) in enumerate((("train", 60), ("val", 10), ("test", 10))):
        (path / f"{split}.txt").write_text("\n".join(make_texts(count, seed)) + "\n\n")
    return path


def own_loss(model: Any, tokens: list[int]) -> float:
    """transformers' own loss of a text, a sum in nats."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss) * (len(tokens) - 1)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_are_those_of_transformers_own_loss(llama: str, folder: Path, batch_size: int, tmp_path: Path) -> None:
    module = train(llama, tmp_path / "lora", data=DataOptions(task="lm", data=folder), options=FAST, progress=False)
    found = evaluate(
        tmp_path / "lora",
        data=DataOptions(task="lm", data=folder),
        options=EvaluateOptions(batch_size=batch_size, max_length=120),
        progress=False,
    )
    model = load_peft(llama, tmp_path / "lora", task_type="CAUSAL_LM", labels=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    texts = [line for line in (folder / "test.txt").read_text().split("\n") if line]
    rows = [[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]] for text in texts]
    total = sum(own_loss(model, row) for row in rows)
    assert found["loss"] == pytest.approx(total / sum(len(row) - 1 for row in rows), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["bits_per_byte"] == pytest.approx(total / math.log(2) / sum(len(text.encode()) for text in texts))
    assert module.config["modules_to_save"] is None
    assert module.labels == ()


def test_scores_need_no_logits_of_all_rows(llama: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows there are at a time, the scores are the same."""
    from regraft.training import language

    options, data = EvaluateOptions(max_length=120), DataOptions(task="lm", data=folder)
    module = regraft.load(train_once(llama, folder))
    rows = Rows(data, options)
    at_once = rows.scores(module).scores
    seen = []
    losses = language.token_losses
    monkeypatch.setattr(language, "_LOGITS", 2 * 120 * 300)
    monkeypatch.setattr(language, "token_losses", lambda logits, own: seen.append(logits.shape) or losses(logits, own))
    assert rows.scores(module).scores == pytest.approx(at_once)
    assert max(shape.numel() for shape in seen) <= 2 * 120 * 300


_TRAINED: dict[str, str] = {}


def train_once(llama: str, folder: Path) -> str:
    if llama not in _TRAINED:
        out = folder.with_name("trained")
        train(llama, out, data=DataOptions(task="lm", data=folder), options=FAST, progress=False)
        _TRAINED[llama] = str(out)
    return _TRAINED[llama]


def test_bits_per_byte_count_the_bytes_of_characters() -> None:
    """3 tokens of 2 ln 2 nats each for an e with an accent and an emoji: 6 bits for 2 + 4 bytes."""
    text = "\u00e9\U0001f600"
    encoded = encode_windows(LM, of_texts(text), bytes_tokenizer(), 32)
    assert encoded["bytes"] == [6]
    nats = np.array([3 * 2 * math.log(2)], np.float32)
    scores = score_language(LM, nats, np.array([[3, encoded[0]["bytes"]]]))
    assert scores == pytest.approx({"loss": 2 * math.log(2), "perplexity": 4, "bits_per_byte": 1})


@pytest.mark.parametrize("bos", [False, True])
def test_every_token_of_a_text_is_scored_once_however_long(bos: bool) -> None:
    tokenizer = bytes_tokenizer(bos)
    text = "grüße an alle " * 5
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    encoded = encode_windows(LM, of_texts("kurz", text), tokenizer, 16)
    windows = list(encoded)[1:]
    before = tokenizer.bos_token_id if bos else tokenizer.eos_token_id
    assert len(windows) == math.ceil(len(tokens) / 15)
    assert all(len(row["input_ids"]) <= 16 and row["input_ids"][0] == before for row in windows)
    assert all(row["labels"][0] == IGNORED and row["labels"][1:] == row["input_ids"][1:] for row in windows)
    assert [token for row in windows for token in row["labels"][1:]] == tokens
    assert encoded["bytes"][:] == [4, len(text.encode()), *[0] * (len(windows) - 1)]


@pytest.mark.parametrize("bos", [False, True])
def test_packed_blocks_hold_each_token_once(bos: bool) -> None:
    tokenizer, texts = bytes_tokenizer(bos), make_texts(21)
    blocks = pack(LM, of_texts(*texts), tokenizer, 50)
    stream = [token for text in texts for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    assert [token for block in blocks["input_ids"] for token in block] == stream
    assert {len(block) for block in blocks["input_ids"][:-1]} == {50}
    labels = [token for block in blocks["labels"] for token in block]
    assert labels == [IGNORED if token == tokenizer.bos_token_id and bos else token for token in stream]


def test_only_answers_are_predicted() -> None:
    tokenizer = bytes_tokenizer()
    system, user, assistant, end = tokenizer.convert_tokens_to_ids(
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    )
    a, b, c, d, e = (tokenizer(letter)["input_ids"][0] for letter in "abcde")
    turns = (("system", "a"), ("user", "b"), ("assistant", "cc"), ("user", "d"), ("assistant", "e "))
    tokens = [system, a, end, user, b, end, assistant, c, c, end, user, d, end, assistant, e, end]
    mask = [0] * 7 + [1, 1, 1] + [0] * 4 + [1, 1]
    labels = [token if kept else IGNORED for token, kept in zip(tokens, mask, strict=True)]
    (block,) = pack(LM, of_chat(*turns), tokenizer, 50)
    assert (block["input_ids"], block["labels"]) == (tokens, labels)
    (row,) = encode_windows(LM, of_chat(*turns), tokenizer, 50)
    assert (row["input_ids"], row["labels"], row["bytes"]) == (tokens, labels, 3)
    windows = encode_windows(LM, of_chat(*turns), tokenizer, 7)
    kept = [token for row in windows for token in row["labels"] if token != IGNORED]
    assert kept == [c, c, end, e, end]
    assert sum(windows["bytes"]) == 3
    assert all(row["labels"][0] == IGNORED for row in windows)


TEMPLATES = {
    "plain": (CHAT, ["Then no<|end|>", "Yes<|end|>"]),
    # Asks with more than it keeps, as templates that open a thought do.
    "asks": (
        CHAT.replace("<|assistant|>{% endif %}", "<|assistant|>Think{% endif %}"),
        ["Then no<|end|>", "Yes<|end|>"],
    ),
    # Opens the last answer with more, as Qwen3's does.
    "opens": (
        "{% for m in messages %}<|{{ m.role }}|>{% if loop.last and m.role == 'assistant' %}<<>>{% endif %}"
        "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ["Then no<|end|>", "<<>>Yes<|end|>"],
    ),
    # Puts what the system says before the last question, as Mistral's does, so that no rendering is a beginning of the
    # next one.
    "moves": (
        "{% for m in messages %}{% if m.role == 'user' %}"
        "[{% if loop.revindex0 < 2 %}{{ messages[0].content }}{% endif %}{{ m.content }}]"
        "{% elif m.role == 'assistant' %}{{ m.content }}<|end|>{% endif %}{% endfor %}",
        ["Then no<|end|>", "Yes<|end|>"],
    ),
    # Ends the last answer otherwise, as Phi's does.
    "ends": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% else %}<eos>{% endif %}",
        ["Then no<|end|>", "Yes<|end|><eos>"],
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_found_whatever_the_template(name: str) -> None:
    template, expected = TEMPLATES[name]
    turns = (("system", "Then"), ("user", "Th"), ("assistant", "Then no"), ("user", "Yes"), ("assistant", "Yes"))
    tokenizer = bytes_tokenizer(template=template)
    (row,) = encode_windows(LM, of_chat(*turns), tokenizer, 99)
    runs = groupby(row["labels"], key=lambda label: label != IGNORED)
    assert [tokenizer.decode(list(run)) for kept, run in runs if kept] == expected
    assert row["bytes"] == len("Then no") + len("Yes")


def test_an_answer_that_the_template_leaves_out_is_refused() -> None:
    silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(TaskError, match="leaves an answer out, such as 'no'"):
        encode_windows(LM, of_chat(("user", "b"), ("assistant", "no")), bytes_tokenizer(template=silent), 9)


def test_what_begins_an_answer_is_padded_on_the_right() -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.padding_side = "left"
    batch = language_collator(tokenizer)([dict(row) for row in encode_windows(LM, of_texts("ab", "c"), tokenizer, 9)])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"][1].tolist()[::2] == [IGNORED, IGNORED]
    assert batch["bytes"].tolist() == [2, 1]


def test_what_stands_between_texts_is_asked_of_the_tokenizer() -> None:
    unigram, wordpiece = Reader.of(unigram_tokenizer()), Reader.of(wordpiece_tokenizer())
    assert (unigram.begin, unigram.end) == ([unigram.tokenizer.bos_token_id], unigram.tokenizer.eos_token_id)
    assert (wordpiece.begin, wordpiece.end) == ([wordpiece.tokenizer.cls_token_id], wordpiece.tokenizer.sep_token_id)
    endless = bytes_tokenizer()
    endless.eos_token = None
    with pytest.raises(TaskError, match="no token for the end of a text"):
        Reader.of(endless)


def test_training_lowers_bits_per_byte_and_keeps_the_lowest(llama: str, folder: Path) -> None:
    module = Path(train_once(llama, folder))
    training = json.loads((module / "regraft.json").read_text())["training"]
    scores = training["scores"]
    kept = scores["validation"]["bits_per_byte"]
    assert f"| validation | bits_per_byte | {kept:.4f} |" in (module / "README.md").read_text()
    curve = [json.loads(line) for line in (module / "curve.jsonl").read_text().splitlines()]
    validated = [row["bits_per_byte"] for row in curve if "split" in row]
    assert scores["validation"]["bits_per_byte"] < scores["before training"]["bits_per_byte"] - 0.5
    assert scores["validation"]["bits_per_byte"] == min(validated[1:])
    data, options = DataOptions(task="lm", data=folder), EvaluateOptions(max_length=FAST.max_length)
    for split in ("validation", "test"):
        again = evaluate(module, data=data, split=split, options=options, progress=False)
        assert again == pytest.approx(scores[split])


def test_what_is_kept_is_the_lowest() -> None:
    rows = [(0, 2.0), (1, 3.0), (2, 2.5)]
    curve = [{"step": step, "split": "validation", "bits_per_byte": score} for step, score in rows]
    assert best_of(curve, ["bits_per_byte"], start_competes=False).step == 2
    assert best_of(curve, ["bits_per_byte"], start_competes=True).step == 0
    up = [{**row, "f1": row["bits_per_byte"]} for row in curve]
    assert best_of(up, ["f1"], start_competes=True).step == 1


def test_a_start_that_is_better_than_all_that_follows_is_kept(llama: str, folder: Path, tmp_path: Path) -> None:
    module = train_once(llama, folder)
    wild = FAST.model_copy(update={"epochs": 1, "learning_rate": 5.0})
    again = train(
        llama, tmp_path / "again", init=module, data=DataOptions(task="lm", data=folder), options=wild, progress=False
    )
    assert again.provenance["training"]["step"] == 0
    key = next(iter(again.tensors))
    assert torch.equal(again.tensors[key], regraft.load(module).tensors[key])


def test_a_judge_prefers_what_needs_fewer_bits(llama: str, folder: Path) -> None:
    judge = Rows(DataOptions(task="lm", data=folder), EvaluateOptions()).judge()
    trained = regraft.load(train_once(llama, folder))
    worse = regraft.Module(
        trained.config,
        {key: -tensor if "lora_B" in key else tensor for key, tensor in trained.tensors.items()},
        "worse",
    )
    assert judge(trained) > judge(worse)


def test_files_of_texts_and_of_conversations(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / "val.jsonl").write_text(
        "\n".join([json.dumps({"messages": [{"role": "assistant", "content": "ja", "name": "x"}]})] * 3)
    )
    (tmp_path / "de" / "test.txt").write_text("ein Text\r\n\nnoch\u2028einer\n", encoding="utf-8")
    loaded = load_task(LM, tmp_path, "de")
    assert loaded.splits["test"]["text"][:] == ["ein Text", "noch\u2028einer"]
    assert [len(loaded.splits[split]) for split in ("train", "validation")] == [2, 1]
    assert loaded.splits["train"][0] == {"text": None, "messages": [{"role": "assistant", "content": "ja"}]}
    assert loaded.task.labels == ()
    kind = KINDS["CAUSAL_LM"]
    assert [kind.texts(LM, row) for row in loaded.splits["test"]] == [["ein Text"], ["noch\u2028einer"]]
    assert kind.texts(LM, loaded.splits["train"][0]) == ["ja"]


def test_a_cell_goes_by_the_plain_texts_that_it_is_trained_on(llama: str, tmp_path: Path) -> None:
    content = {
        "name": "lm",
        "pairs": {"same": {"teacher": llama, "student": llama, "starts": ["student"]}},
        "tasks": {"lm": {"languages": ["en"], "data": str(tmp_path)}},
        "modules": ["lora"],
    }
    keys = []
    for text in ("one", "two"):
        (tmp_path / "train.txt").write_text(text)
        keys.append({number.key for number in make_grid(Experiment.model_validate(content)).numbers})
    assert not keys[0] & keys[1]
    assert data_identity(str(tmp_path), "en") == data_identity(str(tmp_path), "de")  # of tasks that read none of it


USER, ANSWER = {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"body": "x"}, "no 'text' and no 'messages', found body"),
        ({"text": " "}, "'text' is empty"),
        ({"text": 3}, "'text' is of type int, expected a text"),
        ({"messages": [USER]}, "'messages' has no answer"),
        ({"messages": []}, "'messages' has no answer"),
        ({"messages": [USER, {**ANSWER, "content": ""}]}, "'messages' has an empty answer"),
        ({"messages": [USER, {"role": "assistant"}]}, "something else than messages"),
        ({"messages": "b"}, "something else than messages"),
    ],
)
def test_rows_that_do_not_serve(
    row: dict[str, Any], expected: str, llama: str, tmp_path: Path, run: Callable[..., Any]
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row))
    code, _, error = run("train", "--model", llama, "--task", "lm", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert expected in error
    assert "train.jsonl, line 1" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_chats_and_models_that_do_not_serve(
    llama: str, folder: Path, make_model: Callable[..., str], tmp_path: Path, run: Callable[..., Any]
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join([json.dumps({"messages": [USER, ANSWER]})] * 2))
    plain = make_model("llama", layers=2, tie_word_embeddings=True)  # its tokenizer has no template
    bare = make_model("llama", layers=2)  # without the weights of its head
    strict = tmp_path / "strict"
    load_base(llama).save_pretrained(strict)
    bytes_tokenizer(template="{{ raise_exception('after the user the user') }}").save_pretrained(strict)
    for model, data, expected in (
        (plain, tmp_path, "has no chat template for messages"),
        (str(strict), tmp_path, "refuses a conversation of the roles user, assistant: after the user the user"),
        (bare, folder, "lacks lm_head.weight"),
        (make_model("bert", layers=2), folder, "(bert) is no causal language model"),
        (make_model("t5", layers=2), folder, "is no causal language model"),
    ):
        out = tmp_path / "out"
        code, _, error = run("train", "--model", model, "--task", "lm", "--data", data, "--out", out, "--replace")
        assert code == 2, error
        assert expected in error
        assert error.strip().splitlines()[-1].startswith("error: ")
        assert not list(tmp_path.glob("out*"))


def test_labels_have_no_place_here(folder: Path) -> None:
    with pytest.raises(TaskError, match="--labels"):
        load_task(LM, folder, labels=["a", "b"])


def test_a_module_that_names_no_task_type_is_taken_by_the_class_of_its_model(
    llama: str, folder: Path, tmp_path: Path
) -> None:
    trained = regraft.load(train_once(llama, folder))
    untold = {**trained.config, "task_type": None}
    noted = {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama.modeling_llama"}
    data, options = DataOptions(task="lm", data=folder), EvaluateOptions(max_length=FAST.max_length)
    regraft.Module({**untold, "auto_mapping": noted}, trained.tensors, "noted").save(tmp_path / "noted")
    scores = evaluate(tmp_path / "noted", data=data, options=options, progress=False)
    assert scores == pytest.approx(trained.provenance["training"]["scores"]["test"])
    regraft.Module(untold, trained.tensors, "untold").save(tmp_path / "untold")
    with pytest.raises(ModuleFileError, match="has task type None, expected CAUSAL_LM"):
        evaluate(tmp_path / "untold", data=data, options=options, progress=False)


def test_the_command_line(llama: str, folder: Path, run: Callable[..., Any]) -> None:
    module = train_once(llama, folder)
    code, output, _ = run("evaluate", module, "--task", "lm", "--data", folder, "--max-length", 120)
    assert code == 0
    assert "bits_per_byte" in output
    assert "labels" not in output
    code, _, error = run("evaluate", module, "--task", "nli", "--data", folder)
    assert code == 2
    assert "has task type CAUSAL_LM, expected SEQ_CLS" in error


def test_a_killed_training_goes_on(llama: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened` says of other tasks."""
    stopped: list[int] = []

    class Stop(transformers.TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if not stopped and state.epoch >= 1:
                stopped.append(state.global_step)
                raise KeyboardInterrupt

    def with_stop(*arguments: Any, **options: Any) -> Any:
        trainer = make_trainer(*arguments, **options)
        trainer.add_callback(Stop())
        return trainer

    monkeypatch.setattr(finetuning, "make_trainer", with_stop)
    data = DataOptions(task="lm", data=folder)
    with pytest.raises(KeyboardInterrupt):
        train(llama, tmp_path / "out", data=data, options=FAST, progress=False)
    assert stopped
    assert list((tmp_path / "out.training").glob("checkpoint-*"))
    resumed = train(llama, tmp_path / "out", data=data, options=FAST, progress=False)
    assert resumed.hash() == regraft.load(train_once(llama, folder)).hash()
    curves = [(Path(where) / "curve.jsonl").read_text() for where in (tmp_path / "out", train_once(llama, folder))]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_port_is_planned_scored_and_scaled_by_bits_per_byte(
    llama: str, folder: Path, tmp_path: Path, make_model: Callable[..., str], run: Callable[..., Any]
) -> None:
    module, student = train_once(llama, folder), tmp_path / "student"
    narrow = make_model("qwen2", width=16, layers=2, tie_word_embeddings=True, vocab_size=300, initializer_range=0.1)
    load_base(narrow).save_pretrained(student)
    bytes_tokenizer(bos=True).save_pretrained(student)
    here = (module, "--student", student, "--texts", folder / "train.txt", "--task", "lm", "--data", folder)
    here = (*here, "--max-eval", 5, "--scale", "auto")
    code, output, error = run("plan", *here)
    assert code == 0, error
    assert "on the validation split:" in output
    assert "bits_per_byte" in output
    assert "labels" not in output
    code, output, error = run("transfer", *here, "--out", tmp_path / "ported")
    assert code == 0, error
    port = regraft.load(tmp_path / "ported").report
    data = DataOptions(task="lm", data=folder)
    scored = evaluate(
        tmp_path / "ported", data=data, split="validation", options=EvaluateOptions(max_eval=5), progress=False
    )
    best = max(port["scales"].values())
    assert best == pytest.approx(-scored["bits_per_byte"], rel=1e-4)
    assert min(port["scales"].values()) < best


@pytest.mark.slow
def test_an_experiment_of_language_models(llama: str, folder: Path, tmp_path: Path) -> None:
    content = {
        "name": "lm",
        "pairs": {"same": {"teacher": llama, "student": llama, "starts": ["student", "tm-skip", "tm-skip+ridge"]}},
        "tasks": {"lm": {"languages": ["en"], "data": str(folder)}},
        "modules": ["lora"],
        "training": {"epochs": 1, "batch_size": 8, "rank": 2, "learning_rate": 1e-2, "max_length": 64},
    }
    experiment = Experiment.model_validate(content)
    grid = make_grid(experiment)
    check(grid)
    store = Store(tmp_path)
    assert run_experiment(experiment, grid, store, Local()) == Ended(len(grid.cells), {}, ())
    results = {result.row: result for result in collect(tmp_path)[1]}
    assert results["tm-skip"].before == pytest.approx(min(point.score for point in results["teacher"].curve), rel=1e-4)
    assert results["tm-skip"].score <= results["teacher"].score
    assert report.write(results.values(), tmp_path / "report").is_file()
