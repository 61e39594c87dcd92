"""Methods between spaces whose true map is known: auto keeps the simplest that is as good as any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from regraft.alignment.fitting import Score
from regraft.alignment.maps import Assignment, Linear, Map
from regraft.alignment.methods import METHODS, TOLERANCE, Problem
from regraft.alignment.moments import Moments, SplitMoments
from regraft.alignment.scores import r2
from regraft.errors import SamplingError
from regraft.models.sites import SpacePair
from regraft.port.options import default_spaces
from regraft.port.spaces import fit_pairs

SPACE = SpacePair(0, 0, "attention_input")
choose = METHODS["auto"].fit


def split(x_s: Tensor, x_t: Tensor, full: bool = True) -> SplitMoments:
    cut = len(x_s) * 9 // 10
    return SplitMoments(Moments.of(x_s[:cut], x_t[:cut], full), Moments.of(x_s[cut:], x_t[cut:], full))


def fit(name: str, x_s: Tensor, x_t: Tensor, full: bool = True) -> tuple[Map, Score]:
    maps, scores = fit_pairs(name, {SPACE: (x_s.shape[1], x_t.shape[1])}, {SPACE: split(x_s, x_t, full)})
    return maps[SPACE], scores[0]


def drawn(width: int = 8, n: int = 1000, seed: int = 0) -> Tensor:
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=dice, dtype=torch.float64) + 1


def rotation(width: int = 8) -> Tensor:
    return torch.linalg.qr(drawn(width, width, seed=1))[0]


ORDER = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])


@pytest.mark.parametrize("name", ["ridge", "auto"])
def test_a_space_is_factored_once_per_map_and_where_nothing_is_written_one_way(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_s = drawn()
    moments = {SPACE: split(x_s, x_s @ rotation() + 0.1 * drawn(seed=2))}
    factored: list[Tensor] = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: factored.append(matrix) or eigh(matrix))
    monkeypatch.setattr(torch.linalg, "cholesky", None)
    both, scores = fit_pairs(name, {SPACE: (8, 8)}, moments)
    assert len(factored) == 2
    read, (score,) = fit_pairs(name, {SPACE: (8, 8)}, moments, written=())
    assert len(factored) == 3
    assert torch.equal(read[SPACE].reads, both[SPACE].reads)
    assert read[SPACE].writes.count_nonzero() == 0
    assert scores[0].r2_write > 0.9
    assert score == replace(scores[0], r2_write=None)


@pytest.mark.parametrize("rank", [None, 8], ids=["full rank", "of outputs wider than their input"])
@pytest.mark.parametrize("name", ["ridge", "auto"])
def test_ridge_has_what_activations_that_hardly_vary_say_nothing_of(name: str, rank: int | None) -> None:
    """The right map is known; regression alone would neither read nor write there."""
    variances = torch.logspace(0, -4, 24).double() if rank is None else torch.ones(rank).double()
    x_t = drawn(len(variances)) * variances @ drawn(24, len(variances), seed=2)
    order, signs = torch.arange(24).flip(0), torch.tensor([1.0, -1.0]).repeat(12).double()
    x_s = x_t[:, order] * signs
    # Of a student whose dimensions are the teacher's `auto` would keep the assignment.
    x_s = x_s if name == "ridge" else x_s + x_s @ drawn(24, 24, seed=3) / 24
    ranks = {} if rank is None else {SPACE: (rank, rank)}
    fitted = fit_pairs(name, {SPACE: (24, 24)}, {SPACE: split(x_s, x_t)}, ranks=ranks)[0][SPACE]
    assert isinstance(fitted, Linear)
    assert torch.linalg.matrix_rank(fitted.writes, rtol=1e-2) == 24
    if name == "ridge":
        right = torch.eye(24).double()[order] * signs[:, None]
        torch.testing.assert_close(fitted.writes, right)
        torch.testing.assert_close(fitted.reads, right.T)


def test_ridge_with_too_few_rows_for_an_assignment_shrinks_towards_nothing() -> None:
    x = drawn(24, 24)  # 21 to fit 24 dimensions on
    fitted, _ = fit("ridge", x, x)
    assert isinstance(fitted, Linear)
    assert torch.linalg.matrix_rank(fitted.writes, rtol=1e-9) == 20


@pytest.mark.parametrize(
    ("of_the_students", "method"), [("same", "none"), ("permuted", "lsa"), ("rotated", "ridge"), ("noise", "none")]
)
def test_auto_keeps_the_simplest_map_that_serves(of_the_students: str, method: str) -> None:
    x_s = drawn()
    x_t = {
        "same": x_s,
        "permuted": x_s[:, ORDER],
        "rotated": x_s @ rotation(),
        "noise": x_s + 0.05 * drawn(seed=2),  # ridge is a little better
    }[of_the_students]
    fitted, score = fit("auto", x_s, x_t)
    assert score.method == method
    assert list(score.candidates) == ["none", "lsa", "ridge"]
    assert score.candidates[method] == score.r2_read == r2(split(x_s, x_t).held_out, fitted)[0]
    assert score.candidates[method] > max(score.candidates.values()) - TOLERANCE
    alone, _ = fit(method, x_s, x_t)
    if isinstance(alone, Assignment):
        assert isinstance(fitted, Assignment)
        assert torch.equal(fitted.index, alone.index)
        assert score.kind == "one-to-one"
    else:
        assert isinstance(fitted, Linear)
        assert torch.equal(fitted.reads, alone.reads)
        assert torch.equal(fitted.writes, alone.writes)
        assert score.kind == "linear"


def test_auto_has_no_identity_between_unequal_widths() -> None:
    _, score = fit("auto", drawn(), drawn()[:, ORDER[:6]])
    assert list(score.candidates) == ["lsa", "ridge"]
    assert score.method == "lsa"


def test_auto_does_without_an_assignment_where_rows_are_too_few_for_one() -> None:
    _, score = fit("auto", drawn(20, 20), drawn(20, 20) @ rotation(20))  # 18 to fit 20 dimensions on
    assert list(score.candidates) == ["none", "ridge"]


def test_auto_judges_on_held_out_tokens() -> None:
    x = drawn()
    moments = split(x, x[:, ORDER]).fit
    problem = Problem(str(SPACE), 8, 8, moments, moments)
    assert choose(problem).method == "lsa"
    assert choose(replace(problem, held_out=split(x, x).fit)).method == "none"
    with pytest.raises(SamplingError, match=r"auto has no held-out tokens .* give more texts, or name a method"):
        choose(replace(problem, held_out=Moments.zeros(8, 8, full=True)))
    with pytest.raises(SamplingError, match=r"auto has 1 token pairs .* expected at least 2"):
        choose(replace(problem, moments=Moments.of(x[:1], x[:1], full=True)))
    with pytest.raises(SamplingError, match="alignment 'auto' compares activations; give --texts FILE or --moments"):
        fit_pairs("auto", {SPACE: (8, 8)}, None)
    with pytest.raises(SamplingError, match="alignment 'auto' needs covariances"):
        fit("auto", x, x, full=False)


def test_auto_sees_a_difference_of_means_that_a_simple_map_cannot_take_on() -> None:
    x = drawn()
    shifted = split(x, x + 10)
    problem = Problem(str(SPACE), 8, 8, shifted.fit, shifted.held_out)
    assert choose(problem).method == "ridge"
    assert choose(problem).shares["none"] < -10


def test_other_methods_name_themselves_and_no_candidates() -> None:
    for name in METHODS.keys() - {"auto"}:
        _, score = fit(name, drawn(), drawn())
        assert (score.method, dict(score.candidates)) == (name, {})


def test_zero_reads_as_ridge_does_and_writes_nothing() -> None:
    x_s, x_t = drawn(), drawn() @ rotation() + 0.1 * drawn(seed=3)
    zero, ridge = fit("zero", x_s, x_t)[0], fit("ridge", x_s, x_t)[0]
    assert isinstance(zero, Linear)
    assert isinstance(ridge, Linear)
    assert all(torch.equal(getattr(zero, name), getattr(ridge, name)) for name in ("reads", "offset", "constant"))
    assert zero.writes.shape == ridge.writes.shape
    assert not zero.writes.any()
    assert ridge.writes.any()


def test_lsa_scaled_pairs_by_the_size_of_r_and_keeps_its_sign() -> None:
    x_s = drawn()
    factors = torch.tensor([2, -3, 0.5, -1, 4, -0.1, 1, -7]).double()
    fitted, score = fit("lsa_scaled", x_s, factors * x_s[:, ORDER] + 5, full=False)
    assert isinstance(fitted, Linear)
    expected = torch.zeros(8, 8).double()
    expected[torch.arange(8), ORDER] = factors
    torch.testing.assert_close(fitted.reads, expected)
    torch.testing.assert_close(fitted.writes, torch.linalg.inv(expected))
    assert score.matched == 8


def test_one_to_one_maps_take_the_authors_spaces_and_all_others_where_a_module_writes() -> None:
    released = {name for name in METHODS if default_spaces(name) == "released"}
    assert released == {"none", "lsa", "copy", "random"}
    assert {default_spaces(name) for name in METHODS.keys() - released} == {"measured"}
