"""The micro world: its sentences, its tasks' data and its models."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from micro import data
from micro.data import SIZES, TASKS, nli_rows, pi_rows, pretraining_texts, write_tasks
from micro.facts import RELATIONS, Fact, Mention
from micro.language import Language
from micro.languages import LANGUAGES
from micro.sentences import put
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from regraft.demo import shipped
from regraft.demo.shipped import MODELS, model_path
from regraft.files.rows import read_sentences
from regraft.models.pretrained import resolve
from regraft.tasks.data import load_task
from regraft.tasks.records import task_named

ANN = Mention("PER", ("Ann", "Lee"), named=True)
TOWN = Mention("LOC", ("a", "quiet", "town"), named=False)
Said = tuple[str, str, str, int | None, bool]
"""(relation, a, b, time, denied)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("micro")
    write_tasks(path)
    return path


@cache
def tiny(code: str) -> Language:
    """A language with so few names that all of its sentences can be listed."""
    language = LANGUAGES[code]
    return replace(
        language,
        openings=("Ka", "Lo"),
        middles=("",),
        closings={kind: endings[:1] for kind, endings in language.closings.items()},
        patterns=dict.fromkeys(language.patterns, ("{}",)),
        nouns={kind: nouns[:1] for kind, nouns in language.nouns.items()},
    )


@cache
def meanings(code: str) -> dict[str, set[Said]]:
    """Every sentence of the tiny language -> all that it may mean."""
    language = tiny(code)
    names = [start + end for start, (end,) in product(language.openings, language.closings.values())]
    times = [(None, ""), *((time, way) for time, ways in enumerate(language.times) for way in ways)]
    found: dict[str, set[Said]] = {}
    for relation, (first, second) in RELATIONS.items():
        wordings = language.relations[relation]
        ways = [(way, *time, False) for way, time in product(wordings.holds, times)]
        ways += [(way, None, "", True) for way in wordings.never]
        for a, b in product([*names, *language.nouns[first]], [*names, *language.nouns[second]]):
            for way, time, when, denied in ways:
                words = " ".join(way.format(a=a, b=b, t=when).split())
                text = words[0].upper() + words[1:]
                found.setdefault(text, set()).add((relation, a, b, time, denied))
    return found


def meaning(code: str, text: str) -> Said:
    (said,) = meanings(code)[text]
    return said


def test_known_sentences() -> None:
    fact = Fact("visit", ANN, TOWN, time=1)
    sentences = {put(fact, LANGUAGES["en"], Random(seed)) for seed in range(50)}
    assert {sentence.text: " ".join(sentence.tags) for sentence in sentences} == {
        "Ann Lee visited a quiet town in May .": "B-PER I-PER O O O O O O O",
        "A quiet town was visited by Ann Lee in May .": "O O O O O O B-PER I-PER O O O",
        "In May Ann Lee paid a quiet town a visit .": "O O B-PER I-PER O O O O O O O",
    }
    never = replace(fact, time=None, denied=True)
    assert {put(never, LANGUAGES["de"], Random(seed)).text for seed in range(50)} == {
        "Ann Lee besuchte nie a quiet town .",
        "A quiet town wurde nie durch Ann Lee besucht .",
    }


@pytest.mark.parametrize("code", LANGUAGES)
def test_languages_are_complete_and_no_sentence_means_two_things(code: str) -> None:
    language = LANGUAGES[code]
    kinds = {kind for kinds in RELATIONS.values() for kind in kinds}
    assert set(language.closings) == set(language.patterns) == set(language.nouns) == kinds
    assert set(language.relations) == set(RELATIONS)
    assert all(len(said) == 1 for said in meanings(code).values())


@pytest.mark.parametrize("code", LANGUAGES)
def test_paraphrases_mean_the_same_and_others_do_not(code: str) -> None:
    rows = pi_rows(tiny(code), 400, Random(0))
    for first, second, label in rows:
        assert first != second
        assert (meaning(code, first) == meaning(code, second)) == (label == "1")
    assert Counter(label for *_, label in rows) == {"0": 200, "1": 200}


@pytest.mark.parametrize("code", LANGUAGES)
def test_inferences_are_right(code: str) -> None:
    rows = nli_rows(tiny(code), 600, Random(0))
    for premise, hypothesis, label in rows:
        *what, time, denied = meaning(code, premise)
        *other, when, denied_there = meaning(code, hypothesis)
        expected = "neutral"
        if what == other and denied != denied_there:
            expected = "contradiction"
        elif what == other and when in (time, None):
            expected = "entailment"
        assert label == expected, (premise, hypothesis)
    assert set(Counter(label for *_, label in rows).values()) == {200}


def test_what_follows_is_about_the_same_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.LANGUAGES, "en", tiny("en"))
    texts = pretraining_texts(800, seed=0, languages=["en"])
    for text in texts:
        said = [meaning("en", sentence)[:3] for sentence in text.sentences]
        assert str(text) == " </s> ".join(text.sentences)
        assert text.follows is None if len(said) == 1 else not text.follows or said[0] == said[1]
    shares = Counter(text.follows for text in texts)
    assert 0.2 < shares[None] / 800 < 0.3
    assert 0.9 < shares[True] / shares[False] < 1.1


def test_the_same_seed_gives_the_same_data(folder: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path, tasks=["pi"], languages=["de"], sizes={"test": SIZES["test"]})
    assert (tmp_path / "pi/de/test.tsv").read_bytes() == (folder / "pi/de/test.tsv").read_bytes()
    write_tasks(tmp_path, seed=1, tasks=["pi"], languages=["de"], sizes={"test": SIZES["test"]})
    assert (tmp_path / "pi/de/test.tsv").read_bytes() != (folder / "pi/de/test.tsv").read_bytes()
    assert pretraining_texts(50, seed=3) == pretraining_texts(60, seed=3)[:50] != pretraining_texts(50, seed=4)


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("name", TASKS)
def test_regraft_reads_every_row(folder: Path, name: str, code: str) -> None:
    loaded = load_task(task_named(name), folder / name, code)
    assert loaded.left_out == 0
    assert [len(loaded.splits[split]) for split in ("train", "validation", "test")] == list(SIZES.values())


@pytest.mark.parametrize("code", LANGUAGES)
def test_spans_are_whole_and_test_names_partly_new(folder: Path, code: str) -> None:
    names: dict[str, set[tuple[str, ...]]] = {}
    for split in ("train", "test"):
        names[split] = set()
        for _, words, tags in read_sentences(folder / "ner" / code / f"{split}.conllu"):
            assert words[-1] == "."
            for before, word, tag in zip(["O", *tags], words, tags, strict=False):
                assert tag == "O" or word[0].isupper() or word in ("and", "und", "y", "et", "am", "de", "sur")
                assert not tag.startswith("I-") or before[2:] == tag[2:]
            starts = [place for place, tag in enumerate(tags) if tag.startswith("B-")]
            for start in starts:
                end = next(place for place in range(start + 1, len(tags)) if not tags[place].startswith("I-"))
                names[split].add(tuple(words[start:end]))
    share = len(names["test"] - names["train"]) / len(names["test"])
    assert 0.3 < share < 0.95


@pytest.mark.parametrize("name", MODELS)
def test_models_are_small_complete_and_load_in_single_precision(name: str) -> None:
    base = resolve(model_path(name))
    assert base.config.num_hidden_layers == (2 if "student" in name else 4)
    assert sum(file.stat().st_size for file in model_path(name).iterdir()) < 1_000_000
    for auto_class in (AutoModelForTokenClassification, AutoModelForSequenceClassification):
        model, loading = base.load(auto_class)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert all(key.startswith("classifier.") for key in loading["missing_keys"])


def test_the_student_is_a_distillation_of_the_teacher() -> None:
    report = json.loads((model_path("student") / "regraft.json").read_text())["distillation"]
    assert report["layers"] == [0, 2]
    assert report["teacher_weights"] == resolve(model_path("teacher")).weights_id
    assert report["losses"]["after"]["loss"] < report["losses"]["before"]["loss"]


def test_tokenizers_know_every_character_and_differ_between_the_models_pretrained_apart() -> None:
    texts = [str(text) for text in pretraining_texts(200, seed=9, languages=shipped.LANGUAGES)]
    tokenizers = {name: resolve(model_path(name)).tokenizer() for name in MODELS}
    for tokenizer in tokenizers.values():
        pieces = tokenizer(texts)["input_ids"]
        assert not any(tokenizer.unk_token_id in row for row in pieces)
    assert tokenizers["teacher"].get_vocab() == tokenizers["student"].get_vocab()
    assert tokenizers["wide-teacher"].get_vocab() != tokenizers["apart-student"].get_vocab()


def test_the_shipped_data_are_the_generator_s(tmp_path: Path) -> None:
    write_tasks(tmp_path, shipped.SEED, shipped.TASKS, shipped.LANGUAGES)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.*")}
    assert len(made) == 12
    there = shipped.task_path("ner").parent
    assert {path.relative_to(there): path.read_text() for path in there.rglob("*.*")} == made
