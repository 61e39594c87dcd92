"""Data of all tasks: what is read, what is refused, and how it is scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS, wordpiece_tokenizer
from datasets import ClassLabel, Dataset, Features, Value

import regraft
from regraft.errors import TaskError
from regraft.tasks.data import load_task
from regraft.tasks.encoding import IGNORED, encode_split, score
from regraft.tasks.options import DataOptions
from regraft.tasks.records import TASKS, Hub, Task
from regraft.tasks.sources import SPLITS
from regraft.training.evaluation import evaluate
from regraft.training.finetuning import train
from regraft.training.options import EvaluateOptions, TrainOptions

NER, PI, NLI, OWN = (TASKS[name] for name in ("ner", "pi", "nli", "classification"))


def write_rows(
    folder: Path, rows: list[dict[str, object]], ending: str, splits: tuple[str, ...] = ("dev", "test")
) -> None:
    """Write the same rows as every split, in any format."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        path = folder / f"{split}{ending}"
        if ending == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif ending == ".parquet":
            Dataset.from_list(rows).to_parquet(path)
        elif ending == ".csv":
            Dataset.from_list(rows).to_csv(path)
        else:
            lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
            path.write_text("\n".join(lines) + "\n")


PAIRS = [
    {"id": i, "premise": f'the {WORDS[i]} "opens', "hypothesis": f"a {WORDS[i + 1]} closes", "label": NLI.labels[i % 3]}
    for i in range(30)
]


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    write_rows(tmp_path / "fr", PAIRS, ending)
    loaded = load_task(NLI, tmp_path, "fr")
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 27, "validation": 3, "test": 30}
    row = {"premise": 'the river "opens', "hypothesis": "a city closes", "label": "neutral"}
    assert loaded.splits["train"][4] == row
    assert loaded.splits["validation"][0]["premise"] == PAIRS[27]["premise"]
    assert load_task(NLI, tmp_path / "fr", "xx").splits["test"][0] == loaded.splits["test"][0]


def test_words_come_from_conllu_and_from_named_columns_alike(tmp_path: Path) -> None:
    rows = [{"words": ["the", "river", "city"], "tags": ["O", "B-LOC", "I-LOC"]}, {"words": ["a"], "tags": ["O"]}]
    write_rows(tmp_path / "json", rows, ".jsonl", ("train", "val", "test"))
    (tmp_path / "conllu").mkdir()
    for split in ("train", "val", "test"):
        sentences = [
            "".join(f"{i}\t{w}\t{t}\n" for i, (w, t) in enumerate(zip(*row.values(), strict=True))) for row in rows
        ]
        (tmp_path / "conllu" / f"{split}.conllu").write_text("\n".join(sentences))
    columns = {"tokens": "words", "ner_tags": "tags"}
    one, two = load_task(NER, tmp_path / "json", columns=columns), load_task(NER, tmp_path / "conllu")
    assert one.splits["train"].to_list() == two.splits["train"].to_list()
    assert one.splits["train"][0] == {"tokens": ["the", "river", "city"], "ner_tags": ["O", "B-LOC", "I-LOC"]}


def test_labels_may_be_named_taken_from_the_data_or_numbered(tmp_path: Path) -> None:
    rows = [{"review": f"the {word}", "stars": ["good", "bad"][i % 2]} for i, word in enumerate(WORDS[:20])]
    write_rows(tmp_path / "a", rows, ".csv")
    columns = {"text": "review", "label": "stars"}
    assert load_task(OWN, tmp_path / "a", columns=columns).task.labels == ("bad", "good")
    named = load_task(OWN, tmp_path / "a", columns=columns, labels=["good", "bad"])
    assert named.task.labels == ("good", "bad")
    assert named.splits["train"]["label"][:3] == ["good", "bad", "good"]
    numbers = [{"text": f"the {word}", "label": i % 2} for i, word in enumerate(WORDS[:20])]
    write_rows(tmp_path / "b", numbers, ".jsonl")
    assert load_task(OWN, tmp_path / "b", labels=["no", "yes"]).splits["train"]["label"][:2] == ["no", "yes"]
    assert load_task(OWN, tmp_path / "b", labels=["1", "0"]).splits["train"]["label"][:2] == ["0", "1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("the city opens\tit closes\tneutral", None),
        ("the city opens\tit closes", r"dev\.tsv, line 3: no 'label', expected columns premise, hypothesis, label"),
        (
            "the city opens\tit closes\tmaybe",
            r"line 3: found label 'maybe', expected one of entailment, neut",
        ),
        ("  \tit closes\tneutral", r"line 3: 'premise' is empty"),
        ("a\tb\tneutral\tmore", r"line 3: found more fields than the 3 of the first line"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(tmp_path: Path, line: str, message: str | None) -> None:
    write_rows(tmp_path, [{key: row[key] for key in NLI.columns} for row in PAIRS[:1]], ".tsv")
    with (tmp_path / "dev.tsv").open("a") as file:
        file.write(line + "\n")
    if message is None:
        assert len(load_task(NLI, tmp_path).splits["train"]) == 1
    else:
        with pytest.raises(TaskError, match=message):
            load_task(NLI, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a"}', r"dev\.jsonl, line 2: no 'label'"),
        ('{"text": "a", "label"', r"dev\.jsonl, line 2: expected a JSON object per line"),
        ('["a", "b"]', r"line 2: found a list, expected a JSON object per line"),
        ('{"text": 3, "label": "x"}', r"line 2: 'text' is of type int, expected a text"),
        ('{"text": null, "label": "x"}', r"line 2: no 'text'"),
        ('{"text": "a", "label": ["x"]}', r"line 2: found \['x'\] for a label, expected a name or an integer"),
        ('{"text": "a", "label": ""}', r"line 2: found '' for a label"),
        ('{"text": "a", "label": true}', r"line 2: found True for a label"),
        ('{"text": "a", "label": 0.5}', r"line 2: found 0.5 for a label"),
    ],
)
def test_bad_json_is_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    write_rows(tmp_path, [{"text": "a", "label": "x"}], ".jsonl")
    with (tmp_path / "dev.jsonl").open("a") as file:
        file.write(text + "\n")
    with pytest.raises(TaskError, match=message):
        load_task(OWN, tmp_path)


def test_bad_sentences_are_refused_with_file_and_line(tmp_path: Path) -> None:
    good = "0\tthe\tO\n"
    (tmp_path / "test.conllu").write_text(good)
    broken = tmp_path / "val.conllu"
    for text, message in (
        ("0\tthe\tO\n1\triver O\n", r"val\.conllu, line 2: found 2 columns"),
        (
            "0\tthe\tO\n\n0\triver\tB-PLACE\n",
            r"val\.conllu, sentence of line 3: found label 'B-PLACE', expected one",
        ),
        ("\n\n", "has no row to use as validation"),
    ):
        broken.write_text(text)
        with pytest.raises(TaskError, match=message):
            load_task(NER, tmp_path)
    write_rows(tmp_path / "json", [{"tokens": ["a", "b"], "ner_tags": ["O"]}], ".jsonl")
    with pytest.raises(TaskError, match="line 1: expected as many 'ner_tags' as 'tokens'"):
        load_task(NER, tmp_path / "json")
    for word in ("", " ", 3):
        write_rows(tmp_path / "json", [{"tokens": ["a", word], "ner_tags": ["O", "O"]}], ".jsonl")
        with pytest.raises(TaskError, match="line 1: 'tokens' is empty or has an empty word"):
            load_task(NER, tmp_path / "json")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"has no test file, expected train, val \(or dev\) and test in one of"):
        load_task(NER, tmp_path)
    write_rows(tmp_path, PAIRS, ".tsv")
    with pytest.raises(TaskError, match="unknown column 'premiss', expected one of premise, hypothesis, label"):
        load_task(NLI, tmp_path, columns={"premiss": "x"})
    with pytest.raises(TaskError, match=r"line 2: no 'sentence1', expected columns sentence1, .* found id, premise"):
        load_task(PI, tmp_path)
    shutil.copy(tmp_path / "dev.tsv", tmp_path / "val.tsv")
    with pytest.raises(TaskError, match=r"has both val\.tsv and dev\.tsv, expected one validation file"):
        load_task(NLI, tmp_path)
    write_rows(tmp_path / "one", [{"text": "a", "label": "x"}], ".csv")
    with pytest.raises(TaskError, match="found the labels x, expected two or more, each once"):
        load_task(OWN, tmp_path / "one")
    with pytest.raises(TaskError, match="found the labels x, x, expected two or more, each once"):
        load_task(OWN, tmp_path / "one", labels=["x", "x"])
    with pytest.raises(TaskError, match="this task has no data of its own"):
        load_task(OWN)
    (tmp_path / "bin").mkdir()
    for name in ("dev.csv", "test.csv"):
        (tmp_path / "bin" / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match=r"cannot read .*\.csv"):
        load_task(OWN, tmp_path / "bin")


def in_the_hubs_layout(folder: Path, rows: Dataset, splits: list[str]) -> str:
    """Write a local copy of a data set as the hub has it."""
    (folder / "data").mkdir(parents=True)
    for split in splits:
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def test_hub_data_sets_are_read_through_the_same_checks(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"tokens": [["the", "river", "city"]], "ner_tags": [[0, 5, 6]], "lang": ["en"]})
    name = in_the_hubs_layout(tmp_path / "ner", rows, ["train_en", "val_en", "test_en", "test_de"])
    task = replace(NER, hub=Hub(name, None, NER.hub.splits))
    loaded = load_task(task)
    assert loaded.splits["train"][0] == {"tokens": ["the", "river", "city"], "ner_tags": ["O", "B-LOC", "I-LOC"]}
    assert set(loaded.splits) == set(SPLITS)
    with pytest.raises(TaskError, match=r"has the splits .*test_de.*, expected test_fr and one or both of train_fr"):
        load_task(task, language="fr")
    with pytest.raises(TaskError, match=r"cannot load nobody/nothing \(de\) from the hub, and no folder here"):
        load_task(NLI, "nobody/nothing:de")


def test_labels_of_the_hub_are_matched_by_name_not_by_number(tmp_path: Path) -> None:
    features = Features(
        {
            "premise": Value("string"),
            "hypothesis": Value("string"),
            "label": ClassLabel(names=["contradiction", "neutral", "entailment"]),
        }
    )
    rows = Dataset.from_dict({"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [0, 2]}, features=features)
    name = in_the_hubs_layout(tmp_path, rows, ["train", "test"])
    splits = load_task(replace(NLI, hub=Hub(name, None, NLI.hub.splits))).splits
    assert splits["test"]["label"] == ["contradiction", "entailment"]
    assert (len(splits["train"]), len(splits["validation"])) == (1, 1)


def test_only_the_first_piece_of_a_word_carries_its_tag() -> None:
    tokenizer = wordpiece_tokenizer()
    row = {"tokens": ["the", "grandmother", "walks"], "ner_tags": ["O", "B-PER", "O"]}
    encoded = encode_split(NER, Dataset.from_list([row]), tokenizer, 64)[0]
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    labelled = {piece: label for piece, label in zip(pieces, encoded["labels"], strict=True) if label != IGNORED}
    assert len(labelled) == 3
    assert list(labelled.values()) == [0, 1, 0]
    assert len(pieces) > 5


def test_two_texts_are_one_input_and_the_longer_is_cut() -> None:
    tokenizer = wordpiece_tokenizer()
    rows = Dataset.from_list([{"sentence1": "the old river", "sentence2": "a city " * 20, "label": "1"}])
    encoded = encode_split(PI, rows, tokenizer, 24)[0]
    first = tokenizer("the old river")["input_ids"]
    assert len(encoded["input_ids"]) == 24
    assert encoded["input_ids"][: len(first)] == first
    assert encoded["labels"] == 1


def test_span_f1_by_hand() -> None:
    names = {label: i for i, label in enumerate(NER.labels)}
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    found = [["B-PER", "O", "O", "B-LOC"], ["B-ORG", "O"]]  # the person is cut short: 2 of 3 right
    labels = np.full((2, 5), IGNORED)
    logits = np.zeros((2, 5, len(names)))
    for row, (gold, guess) in enumerate(zip(truth, found, strict=True)):
        for i, (right, guessed) in enumerate(zip(gold, guess, strict=True)):
            labels[row, i + 1] = names[right]
            logits[row, i + 1, names[guessed]] = 1
    assert score(NER, logits, labels) == pytest.approx({"precision": 200 / 3, "recall": 200 / 3, "f1": 200 / 3})


def test_accuracy_by_hand() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.1, 0.2], [1.0, 0.0, 0.0]])
    assert score(NLI, logits, np.array([0, 1, 1, 0])) == {"accuracy": 75.0}


def test_integers_are_places_in_the_tasks_list_whatever_the_order_of_a_head(
    tmp_path: Path, make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    """A head with its labels in another order scores the same on names and on integers."""
    names = [{"premise": f"the {word}", "hypothesis": "a", "label": NLI.labels[i % 3]} for i, word in enumerate(WORDS)]
    places = [{**row, "label": i % 3} for i, row in enumerate(names)]
    write_rows(tmp_path / "names", names, ".jsonl")
    write_rows(tmp_path / "places", places, ".jsonl")
    plain = regraft.load(make_module(make_model(layers=2), "lora", 3, "SEQ_CLS"))
    labels = ["contradiction", "entailment", "neutral"]
    regraft.Module(plain.config, plain.tensors, "turned", {"labels": labels}).save(tmp_path / "turned")
    scores = [
        evaluate(tmp_path / "turned", data=DataOptions(task="nli", data=tmp_path / data), progress=False)
        for data in ("names", "places")
    ]
    assert scores[0] == scores[1]
    assert load_task(NLI, tmp_path / "names").fingerprint == load_task(NLI, tmp_path / "places").fingerprint
    write_rows(tmp_path / "stars", [{"text": "a", "label": i % 3} for i in range(9)], ".jsonl")
    with pytest.raises(TaskError, match="found label '0', expected one of 1, 2, 3"):  # no place where names are numbers
        load_task(OWN, tmp_path / "stars", labels=["1", "2", "3"])


def test_rows_that_a_data_set_marks_as_missing_are_left_out_and_counted(tmp_path: Path) -> None:
    good = [{"sentence1": f"the {word}", "sentence2": "a", "label": "1"} for word in WORDS[:20]]
    good[3]["label"] = "0"
    write_rows(tmp_path / "local", [*good, {"sentence1": "NS", "sentence2": "a", "label": "0"}], ".tsv")
    loaded = load_task(PI, tmp_path / "local")
    assert (loaded.left_out, len(loaded.splits["test"])) == (2, 20)
    blank = {"sentence1": "", "sentence2": "a", "label": "0"}
    name = in_the_hubs_layout(tmp_path / "hub", Dataset.from_list([*good, blank]), ["train", "validation", "test"])
    own = load_task(replace(PI, hub=Hub(name, None, PI.hub.splits)))
    assert (own.left_out, len(own.splits["train"])) == (3, 20)
    write_rows(tmp_path / "blank", [*good, blank], ".jsonl")
    with pytest.raises(TaskError, match=r"dev\.jsonl, line 21: 'sentence1' is empty"):
        load_task(PI, tmp_path / "blank")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize(("teacher", "student"), [("bert", "bert"), ("roberta", "distilbert")])
def test_texts_train_port_and_keep_what_they_learnt(
    tmp_path: Path, make_model: Callable[..., str], teacher: str, student: str, kind: str
) -> None:
    """A word gives the label away, so that a tiny model learns it."""
    dice = np.random.default_rng(0)
    rows = []
    for i in range(160):
        words = [*dice.choice(WORDS[:20], size=5), ["paints", "reads"][i % 2]]
        rows.append({"text": " ".join(dice.permutation(words)), "label": ["art", "books"][i % 2]})
    write_rows(tmp_path / "data", rows, ".jsonl")
    learns = kind == "lora"  # a bottleneck cannot turn what a model of random weights says into labels
    settings = TrainOptions(epochs=12 if learns else 2, batch_size=8, learning_rate=3e-2, rank=4, bottleneck_size=16)
    base = make_model(teacher, layers=2, initializer_range=0.05)
    options = {"data": DataOptions(task="classification", data=tmp_path / "data"), "progress": False}
    trained = train(base, tmp_path / "teacher", peft=kind, options=settings, **options)
    assert trained.labels == ("art", "books")
    scores = trained.provenance["training"]["scores"]
    if learns:
        assert scores["test"]["accuracy"] > 75
    assert evaluate(tmp_path / "teacher", **options) == scores["test"]
    ported = regraft.transfer(trained, make_model(student, layers=2, initializer_range=0.05), align="none")
    ported.save(tmp_path / "ported")
    if teacher == student:  # the same weights: it knows already
        assert evaluate(tmp_path / "ported", **options) == scores["test"]
    again = train(ported.base_model, tmp_path / "again", init=tmp_path / "ported", options=settings, **options)
    if learns:
        assert again.provenance["training"]["scores"]["test"]["accuracy"] > 75
    assert evaluate(tmp_path / "again", **options) == again.provenance["training"]["scores"]["test"]


def test_a_checkpoint_without_the_pooler_that_its_head_reads_is_refused(
    tmp_path: Path, make_model: Callable[..., str]
) -> None:
    from transformers import AutoModelForMaskedLM

    base = make_model(layers=2)
    AutoModelForMaskedLM.from_pretrained(base).save_pretrained(tmp_path / "bare")
    wordpiece_tokenizer().save_pretrained(tmp_path / "bare")
    write_rows(tmp_path / "data", PAIRS, ".tsv")
    with pytest.raises(regraft.RegraftError, match=r"lacks bert\.pooler\.dense\.bias, a pretrained weight"):
        train(
            str(tmp_path / "bare"),
            tmp_path / "out",
            data=DataOptions(task="nli", data=tmp_path / "data"),
            progress=False,
        )
    assert not (tmp_path / "out.training").exists()


def test_a_task_is_one_record() -> None:
    for name, task in TASKS.items():
        assert isinstance(task, Task), name
        assert len(task.columns) == len(set(task.columns)) >= 2
        percent = {"precision", "recall", "f1", "accuracy"}
        assert set(task.metrics) <= (percent if task.target else {"loss", "perplexity", "bits_per_byte"})
        assert task.metric.less_is_better is (not task.target)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "folder", "languages"),
    [
        ("ner", "wikineural", ("de", "en", "es", "ru")),
        ("pi", "pawsx", ("de", "en", "fr", "zh")),
        ("nli", "xnli", ("de", "en", "fr", "ru", "zh")),
    ],
)
def test_all_real_files_read_without_a_bad_row(data: Path, name: str, folder: str, languages: tuple[str, ...]) -> None:
    for language in languages:
        splits = load_task(TASKS[name], data / folder, language).splits
        assert len(splits["train"]) > 1700
        assert len(splits["validation"]) == pytest.approx(len(splits["train"]) / 9, rel=0.01)
        assert set(splits["test"].features) == set(TASKS[name].columns)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("name", "folder", "language"), [("pi", "pawsx", "en"), ("nli", "xnli", "fr")])
def test_pairs_of_real_texts_train_port_and_score(
    minilm: str, data: Path, tmp_path: Path, name: str, folder: str, language: str
) -> None:
    """The whole walk on real rows, too few of them to learn the task: a port onto the same model changes no answer."""
    settings = TrainOptions(epochs=2, max_train=32, max_eval=16, max_length=32)
    options = {"data": DataOptions(task=name, data=data / folder, lang=language), "progress": False}
    trained = train(minilm, tmp_path / "teacher", options=settings, **options)
    curve = [json.loads(line) for line in (tmp_path / "teacher" / "curve.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in curve if "accuracy" in row] == [0, 1, 2]
    regraft.transfer(trained, minilm).save(tmp_path / "ported")
    scoring = EvaluateOptions(max_eval=16, max_length=32)
    assert evaluate(tmp_path / "ported", options=scoring, **options) == trained.provenance["training"]["scores"]["test"]
