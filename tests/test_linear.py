from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from regraft.axes import Linear
from regraft.linear import ridge
from regraft.moments import Moments


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
