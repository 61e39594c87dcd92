"""The records of model types: what a file says, what it takes from another, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regraft.errors import ModelError
from regraft.models.families import FAMILIES, load_families
from regraft.models.sites import SITES


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
        ("like: bret\n", "unknown family 'bret', expected one of bert, .*; did you mean 'bert'?"),
        ("like: mine\n", "unknown family 'mine'"),
        ("layers: encoder\n", "sites: Field required"),
        ("like: bert\nspare_positions: some\n", "spare_positions: .* valid integer"),
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
