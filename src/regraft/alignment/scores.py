"""How well a map predicts one model's activations from the other's, in closed form from moments alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import pvariance

import torch
from scipy.special import stdtrit
from torch import Tensor

from .maps import Assignment, Map
from .moments import Moments


def read_error(moments: Moments, reads: Tensor, offset: Tensor) -> float:
    """Sum up the squared errors of ``reads @ h_s + offset`` against h_t.

    Args:
        moments: of the rows to judge on, with the student's covariances.
        reads: (d_t, d_s).
        offset: (d_t,).
    """
    missed = moments.mean_t - reads @ moments.mean_s - offset
    # Of y - M x over centred rows, from y's squares, x' y and x' x.
    residuals = moments.squares_t - 2 * (reads.T * moments.cross).sum(0) + moments.within_s.squares(reads)
    return float((residuals + moments.n * missed.square()).sum())


def missed_scatter(moments: Moments) -> Tensor:
    """Sum up the outer products of y_t - y_s with itself, (k, k).

    Args:
        moments: of what should be, y_t (k,), and in the student's place of what is there instead, y_s; with
            covariances.
    """
    missed = moments.mean_t - moments.mean_s
    own = moments.scatter_t + moments.scatter_s
    return own - moments.cross - moments.cross.T + moments.n * torch.outer(missed, missed)


def margin(without: Sequence[float]) -> float | None:
    """Give half the width of the 95% interval of an estimate, from the estimates without each of g groups of the data.

    The delete-a-group jackknife (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11), by Student's
    t with g - 1 degrees of freedom. None with fewer than two groups.
    """
    groups = len(without)
    if groups < 2:
        return None
    deviation = math.sqrt((groups - 1) * pvariance(without))
    return float(stdtrit(groups - 1, 0.975)) * deviation


def write_error(moments: Moments, writes: Tensor) -> float:
    """Sum up the squared errors of ``writes @ h_t`` against h_s, both about their means; as `read_error`."""
    swapped = moments.swapped()
    return read_error(swapped, writes, swapped.mean_t - writes @ swapped.mean_s)


def _paired_errors(moments: Moments, assignment: Assignment) -> tuple[float, float]:
    """Sum up the squared errors of an assignment against h_t, and against h_s about their means.

    As it is ported: reading, nothing takes on a difference of means, and what is left unmatched is read as 0; what is
    written are differences. Variances are enough.
    """
    rows = (assignment.index >= 0).nonzero().flatten()
    columns = assignment.index[rows]
    shared = 2 * moments.cross[rows, columns].sum()
    missed = moments.mean_t.clone()
    missed[columns] -= moments.mean_s[rows]
    read = moments.squares_t.sum() - shared + moments.squares_s[rows].sum() + moments.n * missed.square().sum()
    write = moments.squares_s.sum() - shared + moments.squares_t[columns].sum()
    return float(read), float(write)


def r2(moments: Moments, fitted: Map, written: bool = True) -> tuple[float | None, float | None]:
    """Return the shares of variance that a map predicts: of the teacher's when it reads, of the student's when writing.

    A share is 1 minus the squared errors over the squared deviations from the mean, all dimensions pooled, so it is
    negative where the mean predicts better.

    Args:
        moments: of the rows to judge on.
        fitted: the map.
        written: whether anything is written there.

    Returns:
        None where nothing varies, or nothing is written, and for a linear map where the moments lack covariances.
    """
    read, write = None, None
    if isinstance(fitted, Assignment):
        read, write = _paired_errors(moments, fitted)
    elif moments.full:
        read = read_error(moments, fitted.reads, fitted.offset)
        write = write_error(moments, fitted.writes) if written else None
    return _share(read, moments.squares_t), _share(write if written else None, moments.squares_s)


def read_share(moments: Moments, reads: Tensor, offset: Tensor) -> float | None:
    """Give the first of `r2` for the half of a linear map that reads."""
    return _share(read_error(moments, reads, offset), moments.squares_t)


def _share(error: float | None, squares: Tensor) -> float | None:
    total = float(squares.sum())
    return None if error is None or total <= 0 else 1 - error / total
