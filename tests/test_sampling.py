from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import make_texts

from regraft.activations.batches import held_out_texts
from regraft.activations.options import RunOptions, SampleOptions
from regraft.activations.sampling import FOLDS, load_sample, sample
from regraft.errors import ModelError, PlanError, SamplingError
from regraft.files.fingerprints import may_be_same
from regraft.models.pretrained import resolve
from regraft.models.sites import SpacePair
from regraft.port.spaces import space_pairs


def hidden_states(path: str, texts: list[str], layer: int) -> list[np.ndarray]:
    """Return the input of a layer for each text, special tokens left out, one text at a time, without hooks."""
    model = transformers.AutoModel.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        rows.append(states[layer][0, 1:-1].numpy())
    return rows


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_moments_are_those_of_the_activations(make_model: Callable[..., str], model_type: str) -> None:
    teacher, student = make_model(layers=4), make_model(model_type, width=48, layers=2)
    texts = make_texts(100)
    spaces = [SpacePair(1, 2, "attention_input"), SpacePair(0, 0, "layer_output")]
    options, run = SampleOptions(batch_size=4), RunOptions(quiet=True)
    taken = sample(resolve(teacher), resolve(student), spaces, texts, options, run, folded=spaces[:1])
    ordered = sorted(texts, key=lambda text: (len(text), text))
    held_out = held_out_texts(len(ordered), 4)
    for space, layers in zip(spaces, ((1, 2), (1, 1)), strict=True):
        x_s, x_t = (hidden_states(name, ordered, layer) for name, layer in zip((student, teacher), layers, strict=True))
        for is_held_out, moments in ((False, taken.moments[space].fit), (True, taken.moments[space].held_out)):
            chosen = np.isin(np.arange(len(ordered)), held_out) == is_held_out
            one, two = (
                np.concatenate([x for x, take in zip(side, chosen, strict=True) if take]) for side in (x_s, x_t)
            )
            assert moments.n == len(one)
            np.testing.assert_allclose(moments.mean_s, one.mean(0), rtol=1e-4, atol=1e-5)
            expected = np.corrcoef(np.hstack([one, two]), rowvar=False)[: one.shape[1], one.shape[1] :]
            np.testing.assert_allclose(moments.correlation(), expected, atol=1e-5)
    assert taken.pairs == taken.paired_tokens == taken.student_tokens
    x_s = hidden_states(student, ordered, 1)
    for fold, moments in enumerate(taken.moments[spaces[0]].folds):  # whole texts, in turn
        one = np.concatenate([x_s[text] for text in held_out[fold::FOLDS]])
        assert moments.n == len(one)
        np.testing.assert_allclose(moments.mean_s, one.mean(0), rtol=1e-4, atol=1e-5)
    assert len(taken.moments[spaces[0]].folds) == FOLDS
    assert taken.moments[spaces[1]].folds == ()
    assert taken.held_out_texts == len(held_out)


def test_covariances_are_taken_unless_they_are_not_wanted(make_model: Callable[..., str]) -> None:
    teacher, student = resolve(make_model(layers=2)), resolve(make_model("distilbert", width=48, layers=2))
    space = SpacePair(0, 0, "attention_input")
    full, alone = (
        sample(teacher, student, [space], make_texts(40), run=RunOptions(quiet=True), covariances=covariances).moments[
            space
        ]
        for covariances in (True, False)
    )
    assert full.fit.scatter_s.shape == full.held_out.scatter_s.shape == (48, 48)
    assert alone.fit.scatter_t.shape == alone.held_out.scatter_t.shape == (32,)
    torch.testing.assert_close(full.fit.squares_t, alone.fit.squares_t, rtol=1e-12, atol=0)
    assert torch.equal(full.fit.cross, alone.fit.cross)


def test_a_tenth_of_the_texts_is_held_out(make_model: Callable[..., str]) -> None:
    model = resolve(make_model(layers=1))
    space = SpacePair(0, 0, "layer_output")
    texts = ["the old river city walks"] * 120
    counts = [
        sample(model, model, [space], texts[:count], SampleOptions(batch_size=4), RunOptions(quiet=True)).moments[space]
        for count in (40, 80, 120)
    ]
    tokens = counts[0].held_out.n // 4
    assert [split.held_out.n for split in counts] == [4 * tokens, 8 * tokens, 12 * tokens]
    assert [len(held_out_texts(count, fewest)) for count, fewest in ((1, 1), (2, 1), (40, 10), (1000, 32))] == [
        0,
        1,
        10,
        100,
    ]
    assert held_out_texts(300, 30).tolist() == [*range(5, 300, 10)]  # over all lengths of text
    assert [split.fit.n for split in counts] == [36 * tokens, 72 * tokens, 108 * tokens]


def test_batches_padding_and_order_change_nothing(make_model: Callable[..., str]) -> None:
    teacher, student = resolve(make_model(layers=4)), resolve(make_model("distilbert", width=48, layers=2))
    spaces = space_pairs(teacher, student, "skip")
    texts = make_texts(80)
    one = sample(teacher, student, spaces, texts, SampleOptions(batch_size=80), RunOptions(quiet=True))
    many = sample(teacher, student, spaces, texts[::-1], SampleOptions(batch_size=7), RunOptions(quiet=True))
    assert one.source.texts == many.source.texts
    for space in spaces:
        total = [split.fit + split.held_out for split in (one.moments[space], many.moments[space])]
        torch.testing.assert_close(total[0].cross, total[1].cross, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(total[0].correlation(), total[1].correlation(), rtol=0, atol=1e-4)


def test_loaded_models_and_half_precision(make_model: Callable[..., str]) -> None:
    path = make_model(layers=2)
    loaded = (transformers.AutoModel.from_pretrained(path), transformers.AutoTokenizer.from_pretrained(path))
    space = [SpacePair(0, 0, "attention_input")]
    exact = sample(resolve(path), resolve(loaded), space, make_texts(40), run=RunOptions(quiet=True))
    rough = sample(resolve(path), resolve(path), space, make_texts(40), run=RunOptions(dtype="bfloat16", quiet=True))
    diagonal = [taken.moments[space[0]].fit.correlation().diagonal() for taken in (exact, rough)]
    assert diagonal[0].min() > 0.999999
    assert diagonal[1].min() > 0.999
    assert exact.moments[space[0]].fit.cross.dtype == rough.moments[space[0]].fit.cross.dtype == torch.float64


def test_loaded_models_stay_as_they_were(make_model: Callable[..., str]) -> None:
    path = make_model("llama", layers=2)
    model, tokenizer = transformers.AutoModel.from_pretrained(path), transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = None
    tokenizer.eos_token = "[SEP]"
    model.train()
    base = resolve((model, tokenizer))
    for dtype in (None, "bfloat16"):
        sample(
            base,
            resolve(path),
            [SpacePair(0, 0, "attention_input")],
            make_texts(40),
            run=RunOptions(dtype=dtype, quiet=True),
        )
    assert model.training
    assert model.dtype == torch.float32
    assert tokenizer.pad_token is None


def test_the_side_of_the_padding_changes_nothing(make_model: Callable[..., str]) -> None:
    path = make_model(layers=2)
    pairs = []
    for side in ("left", "right"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        tokenizer.padding_side = side
        base = resolve((transformers.AutoModel.from_pretrained(path), tokenizer))
        other = resolve(make_model(layers=2, unigram=True))
        taken = sample(
            base,
            resolve(path),
            [SpacePair(0, 0, "layer_output")],
            make_texts(40),
            SampleOptions(pairing="position"),
            RunOptions(quiet=True),
        )
        assert taken.paired_tokens == taken.student_tokens
        taken = sample(base, other, [SpacePair(0, 0, "layer_output")], make_texts(40), run=RunOptions(quiet=True))
        pairs.append(taken.pairs)
    assert pairs[0] == pairs[1]


def test_a_model_without_its_tokenizer_is_refused(make_model: Callable[..., str], tmp_path: Path) -> None:
    transformers.AutoModel.from_pretrained(make_model(layers=2)).save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match="holds no tokenizer, expected one beside the model"):
        resolve(str(tmp_path / "bare")).tokenizer()


def test_weights_are_told_apart_without_loading_them(make_model: Callable[..., str], tmp_path: Path) -> None:
    path = make_model(layers=2)
    first, second = resolve(path), resolve(make_model(layers=2, seed=5))
    assert first.config_hash == second.config_hash
    assert first.weights_id != second.weights_id
    shutil.copytree(path, tmp_path / "copy")
    assert resolve(str(tmp_path / "copy")).weights_id == first.weights_id
    loaded = [resolve(transformers.AutoModel.from_pretrained(base.name)) for base in (first, first, second)]
    assert loaded[0].weights_id == loaded[1].weights_id != loaded[2].weights_id
    assert may_be_same(first.weights_id, loaded[2].weights_id)  # not comparable
    assert not may_be_same(first.weights_id, second.weights_id)


def test_causal_models_take_the_last_piece(make_model: Callable[..., str]) -> None:
    teacher, student = make_model("llama", layers=2), make_model("llama", layers=2, seed=1, unigram=True)
    space = SpacePair(0, 0, "attention_input")
    taken = sample(resolve(teacher), resolve(student), [space], make_texts(60), run=RunOptions(quiet=True))
    assert 0 < taken.pairs < taken.paired_tokens


def test_mistakes_are_refused_in_words(make_model: Callable[..., str]) -> None:
    teacher, student = resolve(make_model(layers=2)), resolve(make_model(layers=2, unigram=True))
    space = [SpacePair(0, 0, "layer_output")]
    for texts in ([], [" "], ["one line only"]):
        with pytest.raises(SamplingError, match="non-empty texts, expected at least 2"):
            sample(teacher, student, space, texts, run=RunOptions(quiet=True))
    with pytest.raises(SamplingError, match="got one string for texts"):
        sample(teacher, student, space, "the old river", run=RunOptions(quiet=True))
    with pytest.raises(SamplingError, match=r"paired \d+ tokens .* give more texts or use pairing 'offsets'"):
        sample(teacher, student, space, make_texts(9), SampleOptions(pairing="position"), RunOptions(quiet=True))
    with pytest.raises(SamplingError, match=r"the teacher has no gate_output in layer 0"):
        sample(teacher, student, [SpacePair(0, 0, "gate_output")], make_texts(9), run=RunOptions(quiet=True))
    with pytest.raises(PlanError, match="unknown site 'ff_gate'"):
        space_pairs(teacher, student, "skip", ["ff_gate"])


def test_spaces_of_covers_both_conventions(make_model: Callable[..., str]) -> None:
    teacher, student = resolve(make_model(layers=4)), resolve(make_model("distilbert", layers=2))
    names = {space.name for space in space_pairs(teacher, student, "avg", ["query"])}
    assert names == {"attention_input", "query_output", "ff_output", "final_hidden"}
    spaces = space_pairs(teacher, student, "avg")
    assert {(space.student_layer, space.teacher_layer) for space in spaces} == {(0, 0), (0, 1), (1, 2), (1, 3)}
    assert [space for space in spaces if space.name == "final_hidden"] == [SpacePair(1, 3, "final_hidden")]
    assert SpacePair(3, 3, "pooled") in space_pairs(teacher, teacher, "skip")
    decoders = resolve(make_model("llama", layers=2)), resolve(make_model("llama", layers=2))
    assert "layer_output" not in {space.name for space in space_pairs(*decoders, "skip")}


def test_few_texts_leave_folds_without_rows_which_are_written_and_read(
    make_model: Callable[..., str], tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(5)))
    models = ("--teacher", make_model(), "--student", make_model(width=48))
    code, _, err = run("sample", *models, "--texts", tmp_path / "texts.txt", "--out", tmp_path / "few")
    assert code == 0, err
    read = load_sample(tmp_path / "few")
    folds = next(split.folds for split in read.moments.values() if split.folds)
    assert [bool(fold.n) for fold in folds].count(False) > 1
