"""Linear maps between activation spaces, in closed form from moments with covariances."""

from __future__ import annotations

import torch
from torch import Tensor

from .axes import Linear
from .moments import Moments


def ridge(moments: Moments, shrinkage: float) -> Linear:
    """Fit either model's activations to the other's by ridge regression (Hoerl & Kennard, 1970).

    Args:
        moments: with covariances, of at least one row.
        shrinkage: what is added to every variance before the solve, in units of the space's mean variance, so that the
            map does not depend on the scale of the activations.
    """
    covariance_s, covariance_t, cross = (m / moments.n for m in (moments.scatter_s, moments.scatter_t, moments.cross))
    solved_s = _solve(covariance_s, torch.column_stack([cross, moments.mean_s]), shrinkage)
    reads, towards = solved_s[:, :-1].T, solved_s[:, -1]
    writes = _solve(covariance_t, cross.T, shrinkage).T
    # (K + m m')^-1 m = K^-1 m / (1 + m' K^-1 m): what predicts 1 from uncentred activations (Sherman & Morrison, 1950).
    constant = towards / (1 + moments.mean_s @ towards)
    return Linear(reads, moments.mean_t - reads @ moments.mean_s, writes, constant)


def ridge_reads(moments: Moments, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Fit the teacher's activations to the student's alone, as `ridge` does; the student's covariances are enough.

    Returns:
        ``reads`` (d_t, d_s) and ``offset`` (d_t,): ``reads @ h_s + offset`` predicts h_t.
    """
    reads = _solve(moments.scatter_s / moments.n, moments.cross / moments.n, shrinkage).T
    return reads, moments.mean_t - reads @ moments.mean_s


def _solve(covariance: Tensor, right: Tensor, shrinkage: float) -> Tensor:
    """Return (covariance + shrinkage * mean variance * I)^-1 @ right."""
    variance = covariance.diagonal().mean()
    # In a space that never varies nothing correlates with anything: any positive number makes the map 0.
    added = shrinkage * variance if variance > 0 else variance.new_ones(())
    shrunk = covariance + torch.diag(added.expand(len(covariance)))
    return torch.cholesky_solve(right, torch.linalg.cholesky(shrunk))
