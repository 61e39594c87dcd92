"""Whether numbers that are called moments can be moments of any rows at all."""

from __future__ import annotations

import torch
from torch import Tensor

from .moments import Moments

# Products are taken in single precision, whose rounding is a share of the largest; so this share is no flaw.
_ROUNDING = 1e-5


def flaw(moments: Moments) -> str:
    """Say why they are not the moments of paired rows, up to rounding; nothing where they may be.

    Covariances are symmetric and have no negative eigenvalue (by Cholesky), and no two dimensions share more than they
    vary (Cauchy and Schwarz).
    """
    parts = (moments.mean_s, moments.mean_t, moments.scatter_s, moments.scatter_t, moments.cross)
    shapes = [tuple(part.shape) for part in parts]
    d_s, d_t = (shape[0] if len(shape) == 1 else 0 for shape in shapes[:2])
    full = len(shapes[2]) == 2
    scatters = [(d_s, d_s), (d_t, d_t)] if full else [(d_s,), (d_t,)]
    if not d_s or not d_t or shapes != [(d_s,), (d_t,), *scatters, (d_s, d_t)]:
        return f"has parts of shapes that do not go together: {', '.join(map(str, shapes))}"
    if any(part.dtype != torch.float64 for part in parts):
        return "is not in double precision"
    if not all(part.isfinite().all() for part in parts):
        return "holds NaN or infinity"
    if not moments.n and any(part.any() for part in parts):
        return "has moments of no rows that are not 0"
    variances = [part.diagonal() if full else part for part in parts[2:4]]
    if any((part < 0).any() for part in variances):
        return "has a negative variance"
    if full and not all(_is_covariance(part) for part in parts[2:4]):
        return "has covariances that no rows have"
    rows, columns = ((part + _ROUNDING * part.max()).sqrt() for part in variances)
    if (moments.cross.abs() > (1 + _ROUNDING) * torch.outer(rows, columns)).any():
        return "has more in common between its models than varies in them"
    return ""


def _is_covariance(scatter: Tensor) -> bool:
    """Whether a square matrix without negative diagonal is symmetric and positive semi-definite, up to rounding."""
    rounding = _ROUNDING * scatter.diagonal().sum()
    if not rounding:
        return not scatter.any()
    if (scatter - scatter.T).abs().max() > rounding:
        return False
    raised = scatter.clone()
    raised.diagonal().add_(rounding)
    return int(torch.linalg.cholesky_ex(raised).info) == 0
