"""Closed forms equal what scikit-learn, numpy or the activations themselves say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor

from regraft.alignment.linear import (
    SHRINKAGES,
    best_reads,
    best_shrinkage,
    procrustes,
    reads_towards,
    ridge,
    ridge_reads,
    scaled,
    within_blocks,
    writes_towards,
)
from regraft.alignment.maps import Assignment, Linear
from regraft.alignment.moments import Moments


def activations(n: int = 400, d_s: int = 6, d_t: int = 9) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(0)
    x_s = 3 * torch.randn(n, d_s, generator=dice, dtype=torch.float64) + 2
    x_t = x_s @ torch.randn(d_s, d_t, generator=dice).double() - 1
    return x_s, x_t + 2 * torch.randn(n, d_t, generator=dice, dtype=torch.float64)


def fitted(x_s: Tensor, x_t: Tensor, shrinkage: float) -> Linear:
    return ridge(Moments.of(x_s, x_t, full=True), shrinkage)


@pytest.mark.parametrize("shrinkage", [1e-6, 0.01, 1.0])
def test_ridge_equals_that_of_scikit_learn(shrinkage: float) -> None:
    x_s, x_t = activations()
    linear = fitted(x_s, x_t, shrinkage)
    for source, target, matrix in ((x_s, x_t, linear.reads), (x_t, x_s, linear.writes)):
        alpha = shrinkage * float((source - source.mean(0)).square().sum()) / source.shape[1]
        theirs = Ridge(alpha=alpha, solver="cholesky").fit(source.numpy(), target.numpy())
        np.testing.assert_allclose(matrix, theirs.coef_, rtol=1e-6, atol=1e-9)
        if source is x_s:
            np.testing.assert_allclose(linear.offset, theirs.intercept_, rtol=1e-6)


def test_what_is_shrunk_towards_a_map_is_a_regression_of_what_it_leaves() -> None:
    x_s, x_t = activations()
    moments = Moments.of(x_s, x_t, full=True)
    prior = torch.randn(6, 9, generator=torch.Generator().manual_seed(1)).double()
    reads, offset, _ = reads_towards(moments, prior.T)
    for source, target, towards, least, found in (
        (x_s, x_t, prior.T, 0.0, reads),
        (x_t, x_s, prior, 0.01, writes_towards(moments, prior, 0.01)),
    ):
        left = target - source @ towards.T
        shrinkage = max(best_shrinkage(Moments.of(source, left, full=True)), least)
        alpha = shrinkage * float((source - source.mean(0)).square().sum()) / source.shape[1]
        theirs = Ridge(alpha=alpha, solver="cholesky").fit(source.numpy(), left.numpy())
        np.testing.assert_allclose(found, towards + theirs.coef_, rtol=1e-6, atol=1e-9)
        if source is x_s:
            np.testing.assert_allclose(offset, theirs.intercept_, rtol=1e-6)


def test_towards_nothing_is_plain_ridge_regression() -> None:
    moments = Moments.of(*activations(), full=True)
    nothing = torch.zeros(6, 9).double()
    expected = ridge(moments, best_shrinkage(moments), max(best_shrinkage(moments.swapped()), 0.01))
    reads, offset, constant = reads_towards(moments, nothing.T)
    found = Linear(reads, offset, writes_towards(moments, nothing, 0.01), constant)
    for name in ("reads", "offset", "writes", "constant"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_the_rank_of_a_space_saves_work_and_changes_no_choice(noise: float) -> None:
    x_s, x_t = activations()
    wide = x_s @ torch.logspace(0, -3, 6).diag().double() @ torch.randn(6, 40).double()
    moments = Moments.of(wide, x_t + noise * torch.randn(400, 9).double(), full=True)
    assert best_shrinkage(moments, 6) == best_shrinkage(moments) < SHRINKAGES[-1]


@pytest.mark.parametrize("known", [None, 6, "derived"])
def test_maps_whose_shrinkage_is_chosen_equal_those_of_scikit_learn(known: int | str | None) -> None:
    """In 40 dimensions that span six, whatever is known of that."""
    x_s, x_t = activations()
    of_s = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)).double()
    wide, eye = x_s @ of_s.T, torch.eye(9).double()
    moments = Moments.of(wide, x_t, full=True)
    if known == "derived":
        moments = Moments.of(x_s, x_t, full=True).mapped(of_s, torch.zeros(40).double(), eye)
    rank = 6 if known == 6 else None
    prior = torch.randn(9, 40, generator=torch.Generator().manual_seed(2)).double()
    shrinkage = best_shrinkage(moments, rank)
    reads, offset, constant = best_reads(moments, rank)
    towards = writes_towards(moments.swapped(), prior, 0.01, rank)
    least = max(best_shrinkage(Moments.of(wide, x_t - wide @ prior.T, full=True)), 0.01)
    for matrix, target, amount in ((reads, x_t, shrinkage), (towards - prior, x_t - wide @ prior.T, least)):
        alpha = amount * float((wide - wide.mean(0)).square().sum()) / 40
        theirs = Ridge(alpha=alpha, solver="cholesky").fit(wide.numpy(), target.numpy())
        np.testing.assert_allclose(matrix, theirs.coef_, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(offset, x_t.mean(0) - reads @ wide.mean(0))
    torch.testing.assert_close(constant, ridge_reads(moments, shrinkage)[2], rtol=1e-6, atol=1e-8)
    nothing = torch.zeros(9, 40).double()
    torch.testing.assert_close(
        writes_towards(moments.swapped(), nothing, 0.5, rank),
        ridge(moments.swapped(), max(shrinkage, 0.5)).writes,
        rtol=1e-6,
        atol=1e-8,
    )


def test_where_nothing_varies_maps_are_those_shrunk_towards() -> None:
    x_t = activations()[1] @ torch.randn(9, 20, generator=torch.Generator().manual_seed(2)).double()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    right = torch.eye(20).double()[order]
    moments = Moments.of(x_t[:, order], x_t, full=True)
    plain = ridge(moments, 0.01)
    assert (plain.writes - right).norm() > 0.5 * right.norm() < (plain.reads - right.T).norm()
    torch.testing.assert_close(writes_towards(moments, right, 0.01), right)
    torch.testing.assert_close(reads_towards(moments, right.T)[0], right.T)


def test_what_predicts_a_constant_is_least_squares_through_the_origin() -> None:
    x_s, x_t = activations()
    added = 0.1 * float(x_s.var(0, correction=0).mean())
    second = x_s.T @ x_s / len(x_s) + added * torch.eye(6)
    expected = torch.linalg.solve(second, x_s.mean(0))
    torch.testing.assert_close(fitted(x_s, x_t, 0.1).constant, expected)
    x_s[:, 4] = 0.7
    constant = fitted(x_s, x_t, 1e-10).constant
    torch.testing.assert_close(x_s @ constant, torch.ones(len(x_s)).double(), rtol=0, atol=1e-6)


def test_the_scale_of_the_activations_changes_nothing() -> None:
    x_s, x_t = activations()
    plain, scaled = fitted(x_s, x_t, 0.01), fitted(1e4 * x_s, 1e-3 * x_t, 0.01)
    torch.testing.assert_close(scaled.reads, 1e-7 * plain.reads)
    torch.testing.assert_close(scaled.writes, 1e7 * plain.writes)
    torch.testing.assert_close(scaled.offset, 1e-3 * plain.offset)


def test_constant_dimensions_and_constant_spaces_are_survived() -> None:
    x_s, x_t = activations()
    x_s[:, 1], x_t[:, 2] = 0.0, 5.0
    linear = fitted(x_s, x_t, 0.01)
    assert linear.reads[:, 1].abs().max() == linear.writes[1].abs().max() == linear.writes[:, 2].abs().max() == 0
    assert linear.offset[2] == 5
    assert linear.unmatched == 1
    still = fitted(torch.full_like(x_s, 0.5), x_t, 0.01)
    assert still.reads.abs().max() == still.writes.abs().max() == 0
    torch.testing.assert_close(still.offset, x_t.mean(0))
    assert fitted(torch.zeros_like(x_s), torch.zeros_like(x_t), 0.01).constant.abs().max() == 0


def test_writing_may_be_shrunk_apart_from_reading() -> None:
    x_s, x_t = activations()
    moments = Moments.of(x_s, x_t, full=True)
    both = ridge(moments, 1e-4, 0.5)
    reading, writing = ridge(moments, 1e-4), ridge(moments, 0.5)
    assert torch.equal(both.reads, reading.reads)
    assert torch.equal(both.offset, reading.offset)
    assert torch.equal(both.constant, reading.constant)
    assert torch.equal(both.writes, writing.writes)


def noisy(n: int, d_s: int, d_t: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    mixed = torch.randn(d_s, d_s, generator=dice).double() * torch.logspace(0, -2, d_s, dtype=torch.float64)
    x_s = torch.randn(n, d_s, generator=dice, dtype=torch.float64) @ mixed + 2
    x_t = x_s @ torch.randn(d_s, d_t, generator=dice).double() - 1
    return x_s, x_t + noise * torch.randn(n, d_t, generator=dice, dtype=torch.float64)


def cross_validation(x_s: Tensor, x_t: Tensor) -> list[float]:
    """Return Golub, Heath & Wahba's criterion of every candidate, from the hat matrix."""
    x_s, x_t = x_s - x_s.mean(0), x_t - x_t.mean(0)
    n, d_s = x_s.shape
    criteria = []
    for shrinkage in SHRINKAGES:
        added = shrinkage * x_s.square().sum() / d_s
        hat = x_s @ torch.linalg.solve(x_s.T @ x_s + added * torch.eye(d_s).double(), x_s.T)
        criteria.append(float((x_t - hat @ x_t).square().sum() / (1 - hat.trace() / n) ** 2))
    return criteria


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 60), st.integers(1, 7), st.integers(1, 5), st.floats(0.01, 30), st.integers(0, 1000))
def test_the_best_shrinkage_is_that_of_generalised_cross_validation(
    n: int, d_s: int, d_t: int, noise: float, seed: int
) -> None:
    x_s, x_t = noisy(n, d_s, d_t, noise, seed)
    chosen = best_shrinkage(Moments.of(x_s, x_t, full=True))
    criteria = cross_validation(x_s, x_t)
    assert criteria[SHRINKAGES.tolist().index(chosen)] == pytest.approx(min(criteria), rel=1e-6)


def test_noise_calls_for_shrinkage_and_rows_for_less_of_it() -> None:
    def best(n: int, noise: float) -> float:
        return best_shrinkage(Moments.of(*noisy(n, 20, 10, noise, seed=0), full=True))

    assert best(500, 0.0) == best(60, 0.0) == SHRINKAGES[0]
    assert best(30, 5.0) > best(3000, 5.0) > SHRINKAGES[0]
    assert best_shrinkage(Moments.of(torch.ones(9, 3), torch.randn(9, 2), full=True)) == SHRINKAGES[0]
    assert best(15, 5.0) in SHRINKAGES  # fewer rows than dimensions


def turned(n: int, d_s: int, d_t: int, factor: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw activations of which the wider are a rotation of the narrower and those a factor; the last is h_t / h_s."""
    dice = torch.Generator().manual_seed(seed)
    narrow, wide = sorted((d_s, d_t))
    rotation = torch.linalg.qr(torch.randn(wide, narrow, generator=dice).double())[0].T  # orthonormal rows
    x = torch.randn(n, narrow, generator=dice, dtype=torch.float64) * torch.arange(1, narrow + 1) + 3
    if d_s <= d_t:
        return x, factor * x @ rotation - 1, factor * rotation.T
    return x @ rotation / factor, x - 1, factor * rotation


@pytest.mark.parametrize(("d_s", "d_t"), [(6, 6), (6, 9), (9, 6)])
@pytest.mark.parametrize("factor", [0.1, 1.0, 7.0])
def test_procrustes_recovers_a_rotation_and_a_factor(d_s: int, d_t: int, factor: float) -> None:
    x_s, x_t, expected = turned(200, d_s, d_t, factor, seed=0)
    linear = procrustes(Moments.of(x_s, x_t, full=True))
    torch.testing.assert_close(linear.reads, expected)
    torch.testing.assert_close(linear.writes, expected.T / factor**2)
    torch.testing.assert_close(x_s @ linear.reads.T + linear.offset, x_t)
    there_and_back = linear.writes @ linear.reads if d_s <= d_t else linear.reads @ linear.writes
    torch.testing.assert_close(there_and_back, torch.eye(min(d_s, d_t)).double())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_procrustes_is_orthogonal_whatever_it_is_fitted_on(d_s: int, d_t: int, seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    x_s, x_t = (torch.randn(50, width, generator=dice, dtype=torch.float64) for width in (d_s, d_t))
    linear = procrustes(Moments.of(x_s, 4 * x_t, full=True))
    rotation = torch.linalg.svd(linear.reads, full_matrices=False)
    rotation = rotation.U @ rotation.Vh
    # The deviations of what is matched: all of the narrower side, as much as that of the wider.
    factor = ((4 * x_t @ rotation).var(0).sum() / (x_s @ rotation.T).var(0).sum()).sqrt()
    torch.testing.assert_close(torch.linalg.svdvals(linear.reads), factor.expand(min(d_s, d_t)))
    torch.testing.assert_close(linear.writes, linear.reads.T / factor**2)


def test_procrustes_is_exact_for_a_part_of_a_wider_space() -> None:
    x = torch.randn(300, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for x_s, x_t in ((x, x[:, :4]), (x[:, :4], x)):
        reads = procrustes(Moments.of(x_s, x_t, full=True)).reads
        torch.testing.assert_close(reads[:4, :4], torch.eye(4).double(), atol=0.15, rtol=0)


def test_heads_are_matched_whatever_their_order_and_basis() -> None:
    dice = torch.Generator().manual_seed(1)
    x = torch.randn(500, 12, generator=dice, dtype=torch.float64)
    inside = [torch.randn(3, 3, generator=dice).double() for _ in range(4)]
    order = [2, 0, 3, 1]  # student head i is teacher head order[i]
    x_s = torch.cat([x[:, 3 * j : 3 * j + 3] @ inside[j] for j in order], 1)
    linear = within_blocks(Moments.of(x_s, x, full=True), 4, 4, 1e-9)
    torch.testing.assert_close(x_s @ linear.reads.T + linear.offset, x, atol=1e-5, rtol=0)
    blocks = (linear.writes.abs().view(4, 3, 4, 3).amax((1, 3)) > 0).int()
    assert blocks.argmax(1).tolist() == order
    assert blocks.sum() == 4
    few = within_blocks(Moments.of(x_s[:, :6], x, full=True), 2, 4, 1e-9)  # the student has fewer heads
    assert (few.writes.abs().view(2, 3, 4, 3).amax((1, 3)) > 0).sum() == 2


def test_procrustes_survives_spaces_that_never_vary() -> None:
    still = procrustes(Moments.of(torch.zeros(9, 3), torch.zeros(9, 5), full=True))
    assert all(tensor.isfinite().all() for tensor in (still.reads, still.offset, still.writes, still.constant))


def test_scaled_is_the_simple_regression_of_each_pair() -> None:
    x_s, x_t = activations()
    x_s[:, 2], x_t[:, 7] = 0.5, -3.0  # constant: nothing can be told of them
    index = [4, 0, 1, -1, 7, 3]
    linear = scaled(Moments.of(x_s, x_t), Assignment(torch.tensor(index), 9))
    reads, writes = np.zeros((9, 6)), np.zeros((6, 9))
    for i, j in ((0, 4), (1, 0), (5, 3)):
        reads[j, i], intercept = np.polyfit(x_s[:, i], x_t[:, j], 1)
        writes[i, j] = np.polyfit(x_t[:, j], x_s[:, i], 1)[0]
        assert linear.offset[j] == pytest.approx(intercept)
    np.testing.assert_allclose(linear.reads, reads)
    np.testing.assert_allclose(linear.writes, writes)
    torch.testing.assert_close(linear.offset[[1, 2, 5, 6, 7, 8]], x_t.mean(0)[[1, 2, 5, 6, 7, 8]])
    assert linear.unmatched == 3
    assert linear.constant.abs().max() == 0
