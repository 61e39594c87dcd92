"""Streaming first and second moments of paired activations.

A `Moments` is all that an alignment method sees: its memory is O(d_s d_t), with covariances O((d_s + d_t)^2), however
many tokens were seen, and two of them add up, in any order, to the moments of the union of their rows (Chan, Golub &
LeVeque, 1979).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import SamplingError


@dataclass(frozen=True)
class SplitMoments:
    """Moments of one pair of spaces: those to fit on and those held out to judge the fit.

    Attributes:
        fit: to fit on.
        held_out: to judge by.
        folds: those held out once more, dealt out in whole texts, so that what differs between folds says how sure a
            judgement is; none where they were not kept.
    """

    fit: Moments
    held_out: Moments
    folds: tuple[Moments, ...] = ()

    def __add__(self, other: SplitMoments) -> SplitMoments:
        # Of two that were not both kept in folds no sum is.
        folds = tuple(one + two for one, two in zip(self.folds, other.folds, strict=False))
        return SplitMoments(self.fit + other.fit, self.held_out + other.held_out, folds)


# Below this share of its squared mean a variance is rounding, not signal.
_CONSTANT = 1e-12
# Columns that are multiplied at once.
_BLOCK = 256


@dataclass(frozen=True)
class Scatter:
    """Sums of products of deviations from the mean of d dimensions that vary in k directions alone: B C B', (d, d).

    Attributes:
        core: C, (k, k).
        span: B, (d, k) with orthonormal columns; None where k is d and B the identity.
    """

    core: Tensor
    span: Tensor | None = None

    @staticmethod
    def of(linear: Tensor, scatter: Tensor) -> Scatter:
        """Give that of what a linear map, (d, m), makes of m dimensions with a scatter, (m, m)."""
        if len(linear) <= linear.shape[1]:
            return Scatter(linear @ scatter @ linear.T)
        span, inner = torch.linalg.qr(linear)
        return Scatter(inner @ scatter @ inner.T, span)

    def whole(self) -> Tensor:
        """Return it as one matrix, (d, d)."""
        return self.core if self.span is None else self.span @ self.core @ self.span.T

    def within(self, matrix: Tensor) -> Tensor:
        """Take the last axis of a matrix, (n, d), to the directions, (n, k)."""
        return matrix if self.span is None else matrix @ self.span

    def after(self, matrix: Tensor) -> Tensor:
        """Multiply a matrix, (n, d), by it, (n, d)."""
        product = self.within(matrix) @ self.core
        return product if self.span is None else product @ self.span.T

    def squares(self, linear: Tensor | None = None) -> Tensor:
        """Give the diagonal, or that of what a linear map makes of it: (d,), or (n,) of (n, d)."""
        if linear is None and self.span is None:
            return self.core.diagonal()
        rows = self.span if linear is None else self.within(linear)
        assert rows is not None
        return ((rows @ self.core) * rows).sum(1)


@dataclass(frozen=True)
class Moments:
    """Moments of n paired rows, accumulated in float64.

    Attributes:
        n: number of rows.
        mean_s: (d_s,) mean of the student's activations.
        mean_t: (d_t,) mean of the teacher's.
        scatter_s: sums of products of deviations from the mean, of each student dimension with every other, (d_s, d_s),
            or with itself alone, (d_s,).
        scatter_t: (d_t, d_t) or (d_t,) likewise.
        cross: (d_s, d_t) sums of products of deviations of the student's with the teacher's.
    """

    n: int
    mean_s: Tensor
    mean_t: Tensor
    scatter_s: Tensor
    scatter_t: Tensor
    cross: Tensor

    @staticmethod
    def of(x_s: Tensor, x_t: Tensor, full: bool = False) -> Moments:
        """Compute the moments of one batch.

        Products are taken about the batch's own means in (at least) float32 and kept in float64.

        Args:
            x_s: (n, d_s) student activations.
            x_t: (n, d_t) teacher activations of the same n tokens.
            full: whether to take the covariances within either model, not only the variances.

        Raises:
            SamplingError: the two are no matrices of as many rows, or contain NaN or infinity.
        """
        if x_s.dim() != 2 or x_t.dim() != 2 or len(x_s) != len(x_t):
            raise SamplingError(
                f"got activations of shapes {tuple(x_s.shape)} and {tuple(x_t.shape)}, expected (n, d_s) and (n, d_t)"
            )
        if len(x_s) == 0:
            return Moments.zeros(x_s.shape[1], x_t.shape[1], x_s.device, full)
        exact_s, exact_t = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (x_s, x_t))
        wide = torch.float32 if x_s.device.type == "mps" else torch.float64
        mean_s, mean_t = exact_s.mean(0, dtype=wide), exact_t.mean(0, dtype=wide)
        centred_s, centred_t = exact_s - mean_s.to(exact_s.dtype), exact_t - mean_t.to(exact_t.dtype)
        product = torch.promote_types(centred_s.dtype, centred_t.dtype)
        moments = Moments(
            len(x_s),
            mean_s,
            mean_t,
            _scatter(centred_s, full, wide),
            _scatter(centred_t, full, wide),
            (centred_s.to(product).T @ centred_t.to(product)).to(wide),
        )
        moments = moments.to("cpu") if wide == torch.float32 else moments
        if not (moments.mean_s.isfinite().all() and moments.mean_t.isfinite().all()):
            side = "teacher" if moments.mean_s.isfinite().all() else "student"
            raise SamplingError(f"the {side}'s activations contain NaN or infinity; sample in float32 or bfloat16")
        return moments

    @staticmethod
    def zeros(d_s: int, d_t: int, device: torch.device | str = "cpu", full: bool = False) -> Moments:
        """Return the moments of no rows at all."""
        scatters = ((d_s, d_s), (d_t, d_t)) if full else ((d_s,), (d_t,))
        shapes = ((d_s,), (d_t,), *scatters, (d_s, d_t))
        return Moments(0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def __add__(self, other: Moments) -> Moments:
        if self.cross.shape != other.cross.shape:
            raise SamplingError(
                f"cannot add moments of widths {tuple(self.cross.shape)} and {tuple(other.cross.shape)}; "
                "add up moments of one pair of models only"
            )
        if self.full != other.full:
            raise SamplingError(
                "cannot add moments with covariances and moments with variances alone; sample all shards alike"
            )
        n = self.n + other.n
        if n == 0:
            return self
        step_s, step_t = other.mean_s - self.mean_s, other.mean_t - self.mean_t
        share, between = other.n / n, self.n * other.n / n
        return Moments(
            n,
            self.mean_s + share * step_s,
            self.mean_t + share * step_t,
            _merged(self.scatter_s, other.scatter_s, step_s, between),
            _merged(self.scatter_t, other.scatter_t, step_t, between),
            (self.cross + other.cross).addr_(step_s, step_t, alpha=between),
        )

    def mapped(self, of_s: Tensor, offset_s: Tensor, of_t: Tensor, offset_t: Tensor | None = None) -> Derived:
        """Return the moments of ``of_s @ x_s + offset_s`` and ``of_t @ x_t + offset_t``, from those with covariances.

        Args:
            of_s: (k_s, d_s).
            offset_s: (k_s,).
            of_t: (k_t, d_t).
            offset_t: (k_t,); None for zero.
        """
        mean_t = of_t @ self.mean_t
        return Derived(
            self.n,
            of_s @ self.mean_s + offset_s,
            mean_t if offset_t is None else mean_t + offset_t,
            Scatter.of(of_s, self.scatter_s),
            Scatter.of(of_t, self.scatter_t),
            of_s @ self.cross @ of_t.T,
        )

    def swapped(self) -> Moments:
        """Return the same with the two models' parts exchanged."""
        return Moments(self.n, self.mean_t, self.mean_s, self.scatter_t, self.scatter_s, self.cross.T)

    def to(self, device: torch.device | str) -> Moments:
        """Move to a device, in float64."""
        tensors = (self.mean_s, self.mean_t, self.scatter_s, self.scatter_t, self.cross)
        return Moments(self.n, *(tensor.to(device).double() for tensor in tensors))

    @property
    def full(self) -> bool:
        """Whether the covariances within either model are there, not only the variances."""
        return self.scatter_s.dim() == 2

    @cached_property
    def within_s(self) -> Scatter:
        """The student's covariances, in the directions in which its activations are known to vary."""
        return Scatter(self.scatter_s)

    @cached_property
    def within_t(self) -> Scatter:
        """The teacher's likewise."""
        return Scatter(self.scatter_t)

    @cached_property
    def squares_s(self) -> Tensor:
        """(d_s,) sums of squared deviations from the mean."""
        return self.within_s.squares() if self.full else self.scatter_s

    @cached_property
    def squares_t(self) -> Tensor:
        """(d_t,) likewise."""
        return self.within_t.squares() if self.full else self.scatter_t

    @property
    def constant_s(self) -> Tensor:
        """(d_s,) bool: student dimensions that never vary."""
        return self.squares_s <= _CONSTANT * self.n * self.mean_s.square()

    @property
    def constant_t(self) -> Tensor:
        """(d_t,) bool: teacher dimensions that never vary."""
        return self.squares_t <= _CONSTANT * self.n * self.mean_t.square()

    def correlation(self) -> Tensor:
        """Return Pearson's r of every student with every teacher dimension, (d_s, d_t); 0 where one is constant."""
        # Infinite where a dimension is constant, so that it correlates with nothing.
        scale_s = self.squares_s.sqrt().masked_fill(self.constant_s, torch.inf)
        scale_t = self.squares_t.sqrt().masked_fill(self.constant_t, torch.inf)
        return (self.cross / scale_s[:, None]).div_(scale_t).clamp_(-1, 1)


class Derived(Moments):
    """Moments with covariances that were worked out from others; whole matrices of them are made when asked for."""

    def __init__(
        self, n: int, mean_s: Tensor, mean_t: Tensor, within_s: Scatter, within_t: Scatter, cross: Tensor
    ) -> None:
        """Take them; arguments as for `Moments`, with the covariances in parts."""
        given = {"n": n, "mean_s": mean_s, "mean_t": mean_t, "within_s": within_s, "within_t": within_t, "cross": cross}
        self.__dict__.update(given)  # frozen

    @cached_property
    def scatter_s(self) -> Tensor:
        """As in `Moments`, made when asked for; likewise the others."""
        return self.within_s.whole()

    @cached_property
    def scatter_t(self) -> Tensor:  # noqa: D102
        return self.within_t.whole()

    @cached_property
    def squares_s(self) -> Tensor:  # noqa: D102
        return self.within_s.squares()

    @cached_property
    def squares_t(self) -> Tensor:  # noqa: D102
        return self.within_t.squares()

    @property
    def full(self) -> bool:  # noqa: D102
        return True

    def swapped(self) -> Derived:  # noqa: D102
        return Derived(self.n, self.mean_t, self.mean_s, self.within_t, self.within_s, self.cross.T)


def _scatter(centred: Tensor, full: bool, wide: torch.dtype) -> Tensor:
    squares = centred.square().sum(0, dtype=wide)
    # The diagonal is summed in double precision either way, so that variances do not depend on `full`.
    return _gram(centred).to(wide).diagonal_scatter(squares) if full else squares


def _gram(x: Tensor) -> Tensor:
    """Multiply x' x, (d, d): in blocks of columns where it is wide, each pair of them once."""
    if x.shape[1] <= _BLOCK:
        return x.T @ x
    product = x.new_empty(x.shape[1], x.shape[1])
    for first in range(0, x.shape[1], _BLOCK):
        rows, columns = slice(first, first + _BLOCK), slice(first, None)
        product[rows, columns] = x[:, rows].T @ x[:, columns]
        product[columns, rows] = product[rows, columns].T
    return product


def _merged(one: Tensor, other: Tensor, step: Tensor, between: float) -> Tensor:
    total = one + other
    return total.addr_(step, step, alpha=between) if total.dim() == 2 else total + between * step.square()
