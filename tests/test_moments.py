from __future__ import annotations

import json
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.activations.sampling import Sample, Source, load_sample, save_sample
from regraft.alignment.moments import Moments, SplitMoments
from regraft.errors import ModuleFileError, SamplingError
from regraft.models.sites import SpacePair


def rows(n: int, seed: int = 0, dtype: torch.dtype = torch.float64, offset: float = 3.0) -> tuple:
    dice = torch.Generator().manual_seed(seed)
    x_s = torch.randn(n, 4, generator=dice, dtype=torch.float64) * torch.tensor([1.0, 5, 0.1, 2]) + offset
    x_t = torch.randn(n, 6, generator=dice, dtype=torch.float64) - offset
    x_t[:, :4] += 0.5 * x_s
    return x_s.to(dtype), x_t.to(dtype)


def assert_equal_to_numpy(moments: Moments, x_s: torch.Tensor, x_t: torch.Tensor, rtol: float = 1e-9) -> None:
    whole = np.hstack([x_s.double().numpy(), x_t.double().numpy()])
    covariance = np.cov(whole, rowvar=False) * (len(whole) - 1)
    close = {"rtol": rtol, "atol": rtol * np.abs(covariance).max()}
    np.testing.assert_allclose(moments.mean_s, x_s.double().mean(0), rtol=rtol)
    np.testing.assert_allclose(moments.mean_t, x_t.double().mean(0), rtol=rtol)
    np.testing.assert_allclose(moments.squares_s, np.diag(covariance)[:4], **close)
    np.testing.assert_allclose(moments.squares_t, np.diag(covariance)[4:], **close)
    if moments.full:
        np.testing.assert_allclose(moments.scatter_s, covariance[:4, :4], **close)
        np.testing.assert_allclose(moments.scatter_t, covariance[4:, 4:], **close)
    np.testing.assert_allclose(moments.cross, covariance[:4, 4:], **close)
    np.testing.assert_allclose(moments.correlation(), np.corrcoef(whole, rowvar=False)[:4, 4:], atol=10 * rtol)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.randoms(use_true_random=False), st.booleans())
def test_merged_in_any_order_and_split_equal_numpy_on_the_whole(sizes: list[int], random: object, full: bool) -> None:
    sizes = [*sizes, 5]
    x_s, x_t = rows(sum(sizes))
    parts = [Moments.of(s, t, full) for s, t in zip(x_s.split(sizes), x_t.split(sizes), strict=True)]
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(parts.pop() + parts.pop())
    assert parts[0].n == len(x_s)
    assert parts[0].full == full
    assert_equal_to_numpy(parts[0], x_s, x_t)


@pytest.mark.parametrize("wide", [4, 600])
def test_moments_of_linear_maps_are_those_of_what_they_make(wide: int) -> None:
    """Wider than what they are made of, and than the blocks that are multiplied at once."""
    x_s, x_t = rows(80)
    dice = torch.Generator().manual_seed(1)
    of_s, of_t = (torch.randn(width, d, generator=dice).double() for width, d in ((wide, 4), (3, 6)))
    made = Moments.of(x_s @ of_s.T + 2, x_t @ of_t.T, full=True)
    derived = Moments.of(x_s, x_t, full=True).mapped(of_s, torch.full((wide,), 2.0), of_t)
    for name in ("mean_s", "mean_t", "squares_s", "squares_t", "scatter_s", "scatter_t", "cross"):
        torch.testing.assert_close(getattr(derived, name), getattr(made, name), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            getattr(derived.swapped(), name), getattr(made.swapped(), name), rtol=1e-9, atol=1e-9
        )
    torch.testing.assert_close(derived.correlation(), made.correlation())
    matrix = torch.randn(5, wide, generator=dice).double()
    torch.testing.assert_close(derived.within_s.after(matrix), matrix @ made.scatter_s)
    torch.testing.assert_close(derived.within_s.squares(matrix), (matrix @ made.scatter_s @ matrix.T).diagonal())


def test_moments_with_covariances_do_not_add_to_those_without() -> None:
    x_s, x_t = rows(40)
    some, all_of_them = (Moments.of(x_s, x_t, full) for full in (False, True))
    assert all_of_them.full
    assert not some.full
    with pytest.raises(SamplingError, match="cannot add moments with covariances and moments with variances alone"):
        some + all_of_them


@pytest.mark.parametrize("full", [False, True])
def test_single_precision_batches_far_from_zero_stay_accurate(full: bool) -> None:
    x_s, x_t = rows(20_000, dtype=torch.float32, offset=300.0)
    total = Moments.zeros(4, 6, full=full)
    for s, t in zip(x_s.split(512), x_t.split(512), strict=True):
        total = total + Moments.of(s, t, full)
    assert total.cross.dtype == total.scatter_s.dtype == torch.float64
    assert_equal_to_numpy(total, x_s, x_t, rtol=1e-5)


def test_variances_do_not_depend_on_whether_covariances_are_taken() -> None:
    x_s, x_t = rows(300, dtype=torch.float32)
    alone, full = (Moments.of(x_s, x_t, full) for full in (False, True))
    for side in ("s", "t"):
        assert torch.equal(getattr(alone, f"squares_{side}"), getattr(alone, f"scatter_{side}"))
        assert torch.equal(getattr(full, f"squares_{side}"), getattr(full, f"scatter_{side}").diagonal())
        assert torch.equal(getattr(full, f"squares_{side}"), getattr(alone, f"squares_{side}"))
    assert torch.equal(full.correlation(), alone.correlation())


def test_constant_dimensions_correlate_with_nothing() -> None:
    x_s, x_t = rows(100, dtype=torch.float32)
    x_s[:, 1], x_t[:, 2] = 0.1, 0.0
    moments = Moments.of(x_s[:60], x_t[:60]) + Moments.of(x_s[60:], x_t[60:])
    assert moments.constant_s.tolist() == [False, True, False, False]
    assert moments.constant_t.tolist() == [False, False, True, False, False, False]
    correlation = moments.correlation()
    assert correlation.isfinite().all()
    assert correlation[1].abs().max() == 0
    assert correlation[:, 2].abs().max() == 0


def test_shapes_and_nan_are_refused() -> None:
    with pytest.raises(SamplingError, match=r"\(3, 2\) and \(4, 2\)"):
        Moments.of(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(SamplingError, match="add up moments of one pair"):
        Moments.zeros(2, 3) + Moments.zeros(2, 4)
    for one, other in ((False, True), (True, False)):
        with pytest.raises(SamplingError, match="moments with covariances and moments with variances alone"):
            Moments.zeros(2, 3, full=one) + Moments.zeros(2, 3, full=other)
    broken = torch.ones(3, 2)
    broken[1, 1] = float("nan")
    with pytest.raises(SamplingError, match="teacher's activations contain NaN"):
        Moments.of(torch.ones(3, 2), broken)


def sampled(seed: int, texts: str, full: bool = True, folds: int = 0, **source: str) -> Sample:
    x_s, x_t = rows(50, seed)
    dealt = tuple(Moments.of(x_s[40 + n :: folds], x_t[40 + n :: folds], full) for n in range(folds))
    moments = SplitMoments(Moments.of(x_s[:40], x_t[:40], full), Moments.of(x_s[40:], x_t[40:], full), dealt)
    origin = {"teacher": "t", "student": "s", "teacher_config": "1", "student_config": "2", "pairing": "offsets"}
    origin |= {"teacher_weights": "file:3", "student_weights": "file:4", **source}
    return Sample(Source(**origin, texts=(texts,)), {SpacePair(0, 2, "attention_input"): moments}, 50, 45, 60, 7)


@pytest.mark.parametrize("full", [False, True])
def test_samples_add_up_and_survive_the_disk(tmp_path: Path, full: bool) -> None:
    first, second = sampled(0, "a", full), sampled(1, "b", full)
    save_sample(first, tmp_path / "one")
    save_sample(second, tmp_path / "two")
    total = load_sample(tmp_path / "one", tmp_path / "two")
    both_s, both_t = (torch.cat(pair) for pair in zip(rows(50, 0), rows(50, 1), strict=True))
    fit = torch.tensor([*range(40), *range(50, 90)])
    moments = total.moments[SpacePair(0, 2, "attention_input")]
    assert moments.fit.full == moments.held_out.full == full
    assert_equal_to_numpy(moments.fit, both_s[fit], both_t[fit])
    assert (total.pairs, total.paired_tokens, total.student_tokens) == (100, 90, 120)
    assert total.source.texts == ("a", "b")
    assert "90 of 120 student tokens (75%)" in total.describe()


def test_folds_add_up_and_survive_the_disk(tmp_path: Path) -> None:
    save_sample(sampled(0, "a", folds=5), tmp_path / "one")
    save_sample(sampled(1, "b", folds=5), tmp_path / "two")
    total = load_sample(tmp_path / "one", tmp_path / "two")
    assert total.held_out_texts == 14
    (moments,) = total.moments.values()
    assert [fold.n for fold in moments.folds] == [4] * 5
    torch.testing.assert_close(vars(reduce(add, moments.folds)), vars(moments.held_out))


def test_samples_of_an_older_regraft_have_no_folds(tmp_path: Path) -> None:
    save_sample(sampled(0, "a"), tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "moments.json").read_text())
    del manifest["held_out_texts"]
    (tmp_path / "old" / "moments.json").write_text(json.dumps(manifest))
    old = load_sample(tmp_path / "old")
    assert old.held_out_texts is None
    total = old + sampled(1, "b", folds=5)
    assert total.held_out_texts is None
    assert [moments.folds for moments in total.moments.values()] == [()]


def test_samples_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="differ in student_weights"):
        sampled(0, "a") + sampled(0, "b", student_weights="file:5")
    assert (sampled(0, "a") + sampled(0, "b", student_weights="memory:5")).pairs == 100
    with pytest.raises(SamplingError, match="share a shard"):
        sampled(0, "a") + sampled(0, "a")
    with pytest.raises(SamplingError, match=r"holds no moments\.json"):
        load_sample(tmp_path)
    with pytest.raises(SamplingError, match="sample all shards alike"):
        sampled(0, "a") + sampled(0, "b", full=False)
    save_sample(sampled(0, "a"), tmp_path / "one")
    with pytest.raises(ModuleFileError, match="exists"):
        save_sample(sampled(0, "a"), tmp_path / "one")
    file = tmp_path / "one" / "moments.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModuleFileError, match="truncated"):
        load_sample(tmp_path / "one")


def test_moments_of_an_older_format_are_refused(tmp_path: Path) -> None:
    save_sample(sampled(0, "a"), tmp_path / "one")
    manifest = tmp_path / "one" / "moments.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(SamplingError, match="moments of format 1, expected 2; sample again"):
        load_sample(tmp_path / "one")


@pytest.mark.parametrize("full", [False, True])
def test_swapped_moments_are_those_of_the_models_exchanged(full: bool) -> None:
    x_s, x_t = rows(50)
    swapped, expected = Moments.of(x_s, x_t, full).swapped(), Moments.of(x_t, x_s, full)
    for name in ("n", "mean_s", "mean_t", "scatter_s", "scatter_t", "cross"):
        torch.testing.assert_close(getattr(swapped, name), getattr(expected, name), msg=name)
    assert swapped.full is full
