"""Pairs of texts, read from two columns of a table, and who takes them apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_texts
from datasets import Dataset

import regraft
from regraft.activations.batches import in_order
from regraft.activations.options import TextOptions
from regraft.errors import SamplingError
from regraft.files.texts import read_inputs, read_texts

Make = Callable[..., str]
ROWS = [("the old river", "a river"), ("a city", " "), ("light, shadow", "the garden")]
PAIRS = [ROWS[0], ROWS[2]]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write the rows in each format that has columns; a local copy in the hub's layout stands for the hub."""
    monkeypatch.chdir(tmp_path)
    data = Dataset.from_list([{"premise": one, "hypothesis": two} for one, two in ROWS])
    data.to_parquet("t.parquet")
    data.to_csv("t.csv")
    Path("t.tsv").write_text("premise\thypothesis\n" + "".join(f"{one}\t{two}\n" for one, two in ROWS))
    Path("t.jsonl").write_text("".join(json.dumps({"premise": [one], "hypothesis": two}) + "\n" for one, two in ROWS))
    (tmp_path / "org" / "name" / "data").mkdir(parents=True)
    data.to_parquet("org/name/data/train-00000-of-00001.parquet")
    return ["t.parquet", "t.csv", "t.tsv", "t.jsonl", "org/name"]


def test_two_columns_are_pairs(tables: list[str]) -> None:
    """A row of which one text is blank is no pair."""
    for source in tables:
        assert read_inputs(source, "premise,hypothesis") == PAIRS, source
        assert read_inputs(source, "premise , hypothesis", limit=1) == PAIRS[:1], source
        assert TextOptions(texts=source, column="premise,hypothesis", max_texts=1).read() == PAIRS[:1], source
        assert read_texts(source, "premise,hypothesis") == [*PAIRS[0], *PAIRS[1]], source


def test_two_columns_are_refused_where_there_are_none(tables: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a river\n")
    (tmp_path / "t.conllu").write_text("1\triver\tO\n\n")
    for source in ("t.txt", "t.conllu"):
        with pytest.raises(SamplingError, match=r"expected one: only tables hold pairs of texts \(--column\)"):
            read_inputs(source, "premise,hypothesis")
    for column in ("premise,hypothesis,label", "premise,"):
        with pytest.raises(SamplingError, match="expected one, or two whose texts belong together"):
            read_inputs(tables[0], column)
    with pytest.raises(SamplingError, match="no column 'conclusion', expected one of hypothesis, premise"):
        read_inputs(tables[0], "premise,conclusion")


def test_activations_are_compared_on_each_text_of_a_pair(make_model: Make, make_module: Make) -> None:
    first, second = make_texts(12), make_texts(12, seed=5)
    pairs = list(zip(first, second, strict=True))
    assert in_order(pairs) == in_order([*first, *second])
    module = regraft.load(make_module(make_model(), labels=2, task_type="SEQ_CLS"))
    student = make_model(layers=2)
    ports = [
        regraft.transfer(module, student, texts=texts, align="ridge", progress=False)
        for texts in (pairs, [*first, *second])
    ]
    assert ports[0].hash() == ports[1].hash()


def test_a_directory_of_anything_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text("text\nsun\n")
    assert read_texts(tmp_path) == ["sun"] * 3
    monkeypatch.setattr("regraft.files.texts._MOST_FILES", 2)
    with pytest.raises(SamplingError, match="holds more than 2 files, expected a file of texts or a data set"):
        read_texts(tmp_path)
