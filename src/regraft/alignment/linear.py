"""Linear maps between activation spaces, in closed form from moments with covariances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..seeding import generator
from .maps import Assignment, Linear
from .moments import Derived, Moments, Scatter

# Of the direction along which procrustes takes on offsets.
_CONSTANT_SHRINKAGE = 1e-3
# What `best_shrinkage` chooses from, in units of the mean variance.
SHRINKAGES = torch.logspace(-5, 1, 25, dtype=torch.float64)


def ridge(moments: Moments, shrinkage: float, write_shrinkage: float | None = None) -> Linear:
    """Fit either model's activations to the other's by ridge regression (Hoerl & Kennard, 1970).

    Args:
        moments: with covariances, of at least one row.
        shrinkage: what is added to every variance before the solve, in units of the space's mean variance, so that the
            map does not depend on the scale of the activations.
        write_shrinkage: the same for the map that writes; None for `shrinkage`.
    """
    reads, offset, constant = ridge_reads(moments, shrinkage)
    writes = ridge_writes(moments, shrinkage if write_shrinkage is None else write_shrinkage)
    return Linear(reads, offset, writes, constant)


def ridge_reads(moments: Moments, shrinkage: float) -> tuple[Tensor, Tensor, Tensor]:
    """Give the half of `ridge` that reads: ``reads``, ``offset`` and ``constant`` of a `Linear`."""
    covariance, cross = moments.scatter_s / moments.n, moments.cross / moments.n
    solved = _solve(covariance, torch.column_stack([cross, moments.mean_s]), shrinkage)
    return _reading(moments, solved[:, :-1].T, solved[:, -1])


def _reading(moments: Moments, reads: Tensor, towards: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # (K + m m')^-1 m = K^-1 m / (1 + m' K^-1 m): what predicts 1 from uncentred activations (Sherman & Morrison, 1950).
    constant = towards / (1 + moments.mean_s @ towards)
    return reads, moments.mean_t - reads @ moments.mean_s, constant


def ridge_writes(moments: Moments, shrinkage: float) -> Tensor:
    """Give the half of `ridge` that writes, (d_s, d_t)."""
    return _solve(moments.scatter_t / moments.n, moments.cross.T / moments.n, shrinkage).T


def best_reads(moments: Moments, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `ridge_reads` with the shrinkage that `best_shrinkage` chooses, whose arguments it takes."""
    return _reading(moments, *_best(moments, rank))


def _best(moments: Moments, rank: int | None, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """Solve for the map that reads, (d_t, d_s), and for the mean, (d_s,), with the shrinkage that is best."""
    spectrum = _Spectrum.of(moments, rank)
    right = torch.column_stack([moments.cross / moments.n, moments.mean_s])
    solved = spectrum.solve(right, max(spectrum.best_shrinkage(moments), least))
    return solved[:, :-1].T, solved[:, -1]


def reads_towards(moments: Moments, prior: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Give what `ridge_reads` gives, shrunk towards another map instead of towards nothing.

    With M the prior, C_ts and C_ss the covariances: M + (C_ts - M C_ss) (C_ss + r I)^-1, which is M where the student's
    activations do not vary, so that there is nothing to regress on, and M everywhere where it is right. The shrinkage r
    is chosen by generalised cross-validation.

    Args:
        moments: with covariances, of at least one row.
        prior: (d_t, d_s).
        rank: how many dimensions the student's activations span; None for all.
    """
    reads, offset, constant = best_reads(_left_by(moments, prior), rank)
    return prior + reads, offset, constant


def writes_towards(moments: Moments, prior: Tensor, least: float, rank: int | None = None) -> Tensor:
    """Give what `ridge_writes` gives, shrunk towards another map; as `reads_towards`, the other way.

    Args:
        moments: with covariances, of at least one row.
        prior: (d_s, d_t).
        least: the least shrinkage, in units of the mean variance; more where generalised cross-validation says so.
        rank: how many dimensions the teacher's activations span; None for all.

    Returns:
        (d_s, d_t).
    """
    return prior + _best(_left_by(moments.swapped(), prior), rank, least)[0]


def _left_by(moments: Moments, reads: Tensor) -> Derived:
    """Put in the place of the teacher's activations what a map leaves of them; of their covariances the variances."""
    cross = moments.cross - moments.within_s.after(reads).T
    squares = (moments.squares_t - ((moments.cross + cross).T * reads).sum(1)).clamp(min=0)
    mean = moments.mean_t - reads @ moments.mean_s
    return Derived(moments.n, moments.mean_s, mean, moments.within_s, Scatter(torch.diag(squares)), cross)


def best_shrinkage(moments: Moments, rank: int | None = None) -> float:
    """Choose the shrinkage with which the student's activations predict the teacher's best.

    By generalised cross-validation (Golub, Heath & Wahba, 1979): the least of RSS / (1 - df / n)^2, where RSS is the
    residual sum of squares over all dimensions and df the effective number of parameters per dimension. One
    eigendecomposition serves all candidates.

    Args:
        moments: with covariances, of at least one row.
        rank: how many dimensions the student's activations span; None for all.
    """
    return _Spectrum.of(moments, rank).best_shrinkage(moments)


@dataclass(frozen=True)
class _Spectrum:
    """A covariance, (d, d), factored once for every shrinkage.

    Attributes:
        variances: (k, 1) its eigenvalues, k at most d; those beyond are 0.
        directions: (d, k) its eigenvectors.
        mean: the mean variance of the d dimensions.
    """

    variances: Tensor
    directions: Tensor
    mean: Tensor

    @staticmethod
    def of(moments: Moments, rank: int | None = None) -> _Spectrum:
        """Factor the student's covariance, of some rank; None for any."""
        within = moments.within_s
        covariance, span = within.core / moments.n, within.span
        mean = moments.squares_s.mean() / moments.n
        if span is None and rank is not None and rank < len(covariance):
            # As many random combinations of its columns span what all do (Halko, Martinsson & Tropp, 2011).
            probe = torch.randn(len(covariance), rank, dtype=covariance.dtype, generator=generator(0, "probe"))
            span = torch.linalg.qr(covariance @ probe).Q
            covariance = span.T @ covariance @ span
        variances, directions = torch.linalg.eigh(covariance)
        directions = directions if span is None else span @ directions
        directions[moments.squares_s <= 0] = 0  # but for rounding
        return _Spectrum(variances.clamp(min=0)[:, None], directions, mean)

    def best_shrinkage(self, moments: Moments) -> float:
        """As the function of that name, of the moments whose student's covariance this is."""
        if self.mean <= 0:
            return float(SHRINKAGES[0])
        explained = (self.directions.T @ (moments.cross / moments.n)).square().sum(1)[:, None]
        shrunk = self.variances + SHRINKAGES * self.mean
        reached = (explained * (2 / shrunk - self.variances / shrunk.square())).sum(0)
        left = moments.squares_t.sum() / moments.n - reached
        freedom = 1 - (self.variances / shrunk).sum(0) / moments.n
        criterion = torch.where(freedom > 0, left / freedom.square(), torch.inf)
        return float(SHRINKAGES[criterion.argmin()])

    def solve(self, right: Tensor, shrinkage: float) -> Tensor:
        """As `_solve`."""
        # In a space that never varies nothing correlates with anything: any positive number makes the map 0.
        added = shrinkage * self.mean if self.mean > 0 else 1.0
        factors = 1 / (self.variances + added) - 1 / added
        return right / added + self.directions @ (factors * (self.directions.T @ right))


def procrustes(moments: Moments) -> Linear:
    """Fit a rotation and one factor (Schoenemann, 1966); between unequal widths its rows or columns are orthonormal.

    The factor is the ratio of the standard deviations in the directions that are matched, not the least-squares one, so
    that reading and writing undo each other and effects keep their size.

    Args:
        moments: with covariances, of at least one row.
    """
    u, _, vh = torch.linalg.svd(moments.cross, full_matrices=False)
    rotation = u @ vh
    total_s = ((u.T @ moments.scatter_s) * u.T).sum()
    total_t = ((vh @ moments.scatter_t) * vh).sum()
    factor = (total_t / total_s).sqrt() if total_s > 0 and total_t > 0 else total_s.new_ones(())
    reads = factor * rotation.T
    constant = ridge(moments, _CONSTANT_SHRINKAGE).constant
    return Linear(reads, moments.mean_t - reads @ moments.mean_s, rotation / factor, constant)


def within_blocks(moments: Moments, blocks_s: int, blocks_t: int, shrinkage: float) -> Linear:
    """Match blocks of dimensions, such as attention heads, then fit each pair by ridge regression, and nothing across.

    A pair of blocks is worth the nuclear norm of its correlations, which no rotation within a block changes; the blocks
    are paired by linear sum assignment. With unequal numbers some blocks of the larger side go without.

    Args:
        moments: with covariances; the blocks of either side are equally wide and lie one behind the other.
        blocks_s: number of blocks of the student's.
        blocks_t: number of blocks of the teacher's.
        shrinkage: as for `ridge`.
    """
    d_s, d_t = moments.cross.shape
    of_s, of_t = (torch.arange(width).view(blocks, -1) for width, blocks in ((d_s, blocks_s), (d_t, blocks_t)))
    correlations = moments.correlation().view(blocks_s, d_s // blocks_s, blocks_t, d_t // blocks_t).transpose(1, 2)
    pairs = linear_sum_assignment(torch.linalg.matrix_norm(correlations, "nuc").numpy(), maximize=True)
    reads, writes = moments.cross.new_zeros(d_t, d_s), moments.cross.new_zeros(d_s, d_t)
    constant = torch.zeros_like(moments.mean_s)
    for block_s, block_t in zip(*pairs, strict=True):
        rows, columns = of_s[block_s], of_t[block_t]
        block = ridge(_part(moments, rows, columns), shrinkage)
        reads[columns[:, None], rows] = block.reads
        writes[rows[:, None], columns] = block.writes
    return Linear(reads, moments.mean_t - reads @ moments.mean_s, writes, constant)


def _part(moments: Moments, rows: Tensor, columns: Tensor) -> Moments:
    return Moments(
        moments.n,
        moments.mean_s[rows],
        moments.mean_t[columns],
        moments.scatter_s[rows[:, None], rows],
        moments.scatter_t[columns[:, None], columns],
        moments.cross[rows[:, None], columns],
    )


def scaled(moments: Moments, assignment: Assignment) -> Linear:
    """Turn an assignment into the simple regressions of its pairs: their slopes, r times the ratio of deviations.

    Args:
        moments: variances are enough.
        assignment: which pairs.
    """
    rows = (assignment.index >= 0).nonzero().flatten()
    columns = assignment.index[rows]
    shared = moments.cross[rows, columns]
    reads = torch.zeros_like(moments.cross).T.contiguous()
    writes = torch.zeros_like(moments.cross)
    reads[columns, rows] = _ratio(shared, moments.squares_s[rows].masked_fill(moments.constant_s[rows], 0))
    writes[rows, columns] = _ratio(shared, moments.squares_t[columns].masked_fill(moments.constant_t[columns], 0))
    # Without covariances nothing is known that predicts a constant: weights with no bias beside them drop the offset.
    offset = moments.mean_t - reads @ moments.mean_s
    return Linear(reads, offset, writes, torch.zeros_like(moments.mean_s))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below, 0.0)


def _solve(covariance: Tensor, right: Tensor, shrinkage: float) -> Tensor:
    """Return (covariance + shrinkage * mean variance * I)^-1 @ right."""
    variance = covariance.diagonal().mean()
    # In a space that never varies nothing correlates with anything: any positive number makes the map 0.
    added = shrinkage * variance if variance > 0 else variance.new_ones(())
    shrunk = covariance + torch.diag(added.expand(len(covariance)))
    return torch.cholesky_solve(right, torch.linalg.cholesky(shrunk))
