"""Closed forms from moments equal what is computed on the activations themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regraft.alignment.linear import ridge
from regraft.alignment.maps import Assignment, Linear
from regraft.alignment.moments import Moments
from regraft.alignment.scores import r2, read_error, write_error


def activations(n: int = 500, d_s: int = 6, d_t: int = 9) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(0)
    x_s = torch.randn(n, d_s, generator=dice, dtype=torch.float64) @ torch.randn(d_s, d_s, generator=dice).double() + 2
    x_t = x_s @ torch.randn(d_s, d_t, generator=dice).double() - 1
    return x_s, x_t + torch.randn(n, d_t, generator=dice, dtype=torch.float64)


def centred(x: Tensor) -> Tensor:
    return x - x.mean(0)


def test_errors_and_shares_equal_those_of_the_activations() -> None:
    x_s, x_t = activations()
    fitted = ridge(Moments.of(x_s[:300], x_t[:300], full=True), 0.01)
    x_s, x_t = x_s[300:], x_t[300:]
    moments = Moments.of(x_s[:50], x_t[:50], full=True) + Moments.of(x_s[50:], x_t[50:], full=True)
    read = float((x_t - x_s @ fitted.reads.T - fitted.offset).square().sum())
    write = float((centred(x_s) - centred(x_t) @ fitted.writes.T).square().sum())
    assert read_error(moments, fitted.reads, fitted.offset) == pytest.approx(read)
    assert write_error(moments, fitted.writes) == pytest.approx(write)
    expected = 1 - read / float(centred(x_t).square().sum()), 1 - write / float(centred(x_s).square().sum())
    assert r2(moments, fitted) == pytest.approx(expected)
    assert 0.5 < expected[0] < 1


@pytest.mark.parametrize("index", [[4, 1, 8, 0, 2, 3], [-1, 1, 8, -1, 2, 3]])
@pytest.mark.parametrize("full", [False, True])
def test_shares_of_an_assignment_are_those_of_what_is_ported(index: list[int], full: bool) -> None:
    x_s, x_t = activations()
    assignment = Assignment(torch.tensor(index), 9)
    matrix = Linear.of(assignment).reads
    read = (x_t - x_s @ matrix.T).square().sum() / centred(x_t).square().sum()
    write = (centred(x_s) - centred(x_t) @ matrix).square().sum() / centred(x_s).square().sum()
    expected = (1 - float(read), 1 - float(write))
    assert r2(Moments.of(x_s, x_t, full), assignment) == pytest.approx(expected)


def test_shares_that_cannot_be_told_are_none() -> None:
    x_s, x_t = activations()
    fitted = ridge(Moments.of(x_s, x_t, full=True), 0.01)
    assert r2(Moments.of(x_s, x_t), fitted) == (None, None)
    assert r2(Moments.zeros(6, 9, full=True), fitted) == (None, None)
    assert r2(Moments.of(x_s[:1], x_t[:1]), Assignment(torch.arange(6), 9)) == (None, None)
