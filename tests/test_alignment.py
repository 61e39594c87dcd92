from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.feature_selection import r_regression

from regraft.alignment.maps import Linear
from regraft.alignment.methods import METHODS
from regraft.alignment.moments import Moments, SplitMoments
from regraft.errors import PlanError, SamplingError
from regraft.models.sites import SpacePair
from regraft.port.spaces import fit_pairs

SPACE = SpacePair(0, 0, "attention_input")


def split(x_s: torch.Tensor, x_t: torch.Tensor) -> dict[SpacePair, SplitMoments]:
    cut = len(x_s) * 9 // 10
    return {SPACE: SplitMoments(Moments.of(x_s[:cut], x_t[:cut]), Moments.of(x_s[cut:], x_t[cut:]))}


@pytest.mark.parametrize(("d_s", "d_t"), [(12, 20), (16, 16)])
def test_lsa_equals_the_per_column_way(d_s: int, d_t: int) -> None:
    torch.manual_seed(0)
    x_t = torch.randn(400, d_t, dtype=torch.float64)
    x_s = x_t @ torch.randn(d_t, d_s, dtype=torch.float64) + torch.randn(400, d_s, dtype=torch.float64)
    x_s[:, 3] = 1.5  # a constant dimension, which r_regression counts as uncorrelated
    moments = {SPACE: SplitMoments(Moments.of(x_s, x_t), Moments.zeros(d_s, d_t))}
    maps, scores = fit_pairs("lsa", {SPACE: (d_s, d_t)}, moments)

    correlation = np.stack([r_regression(x_t.numpy(), x_s[:, i].numpy()) for i in range(d_s)])
    rows, columns = linear_sum_assignment(-correlation)
    varying = rows != 3  # a constant dimension may go anywhere: every choice is worth 0
    assert maps[SPACE].index.numpy()[rows][varying].tolist() == columns[varying].tolist()
    assert scores[0].assigned == pytest.approx(correlation[rows, columns].mean(), abs=1e-9)
    assert scores[0].constant == 1
    assert scores[0].held_out is None


def test_held_out_correlation_is_taken_on_held_out_tokens() -> None:
    torch.manual_seed(0)
    x_t = torch.randn(500, 6)
    x_s = x_t[:, [3, 1, 0, 5]] + 0.5 * torch.randn(500, 4)
    maps, scores = fit_pairs("lsa", {SPACE: (4, 6)}, split(x_s, x_t))
    assert maps[SPACE].index.tolist() == [3, 1, 0, 5]
    expected = np.mean([np.corrcoef(x_s[450:, i], x_t[450:, j])[0, 1] for i, j in enumerate([3, 1, 0, 5])])
    assert scores[0].held_out == pytest.approx(expected, abs=1e-6)


def test_a_student_wider_than_the_teacher_leaves_dimensions_unmatched() -> None:
    torch.manual_seed(0)
    x_s = torch.randn(300, 6)
    maps, scores = fit_pairs("lsa", {SPACE: (6, 3)}, split(x_s, x_s[:, [4, 0, 2]]))
    assert maps[SPACE].index.tolist() == [1, -1, 2, -1, 0, -1]
    assert scores[0].matched == 3
    assert maps[SPACE].read(torch.ones(2, 3), 1).sum(0).tolist() == [2, 0, 2, 0, 2, 0]


def test_controls() -> None:
    copy, _ = fit_pairs("copy", {SPACE: (3, 5)}, None)
    assert copy[SPACE].index.tolist() == [0, 1, 2]
    padded, scores = fit_pairs("copy", {SPACE: (5, 3)}, None)
    assert padded[SPACE].index.tolist() == [0, 1, 2, -1, -1]
    assert scores[0].assigned is None
    random, _ = fit_pairs("random", {SPACE: (50, 80)}, None, seed=1)
    again, _ = fit_pairs("random", {SPACE: (50, 80)}, None, seed=1)
    other, _ = fit_pairs("random", {SPACE: (50, 80)}, None, seed=2)
    assert torch.equal(random[SPACE].index, again[SPACE].index)
    assert not torch.equal(random[SPACE].index, other[SPACE].index)
    wider, _ = fit_pairs("random", {SPACE: (80, 50)}, None)
    assert wider[SPACE].unmatched == 30
    assert sorted(wider[SPACE].index[wider[SPACE].index >= 0].tolist()) == list(range(50))


def test_controls_are_scored_where_moments_are_given() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 5)
    _, scores = fit_pairs("none", {SPACE: (5, 5)}, split(x, x))
    assert scores[0].assigned == pytest.approx(1)
    _, scores = fit_pairs("random", {SPACE: (5, 5)}, split(x, x))
    assert scores[0].held_out < 0.7


def test_linear_maps_are_scored_by_what_they_predict() -> None:
    torch.manual_seed(0)
    x_s = torch.randn(2000, 5)
    x_t = x_s @ torch.randn(5, 8) + 3
    cut = 1800
    full = SplitMoments(*(Moments.of(s, t, full=True) for s, t in ((x_s[:cut], x_t[:cut]), (x_s[cut:], x_t[cut:]))))
    maps, scores = fit_pairs("ridge", {SPACE: (5, 8)}, {SPACE: full})
    assert (scores[0].kind, scores[0].matched, scores[0].assigned, scores[0].held_out) == ("linear", 5, None, None)
    assert scores[0].r2_read > 0.99
    assert scores[0].r2_write > 0.9
    assert isinstance(maps[SPACE], Linear)
    _, scores = fit_pairs("lsa", {SPACE: (5, 8)}, {SPACE: full})
    assert scores[0].kind == "one-to-one"
    assert scores[0].held_out is not None
    assert scores[0].r2_read < 0.9
    _, scores = fit_pairs("copy", {SPACE: (5, 8)}, None)
    assert scores[0].r2_read is scores[0].r2_write is None


def test_mistakes_are_refused_in_words() -> None:
    few = {SPACE: SplitMoments(Moments.of(torch.randn(4, 5), torch.randn(4, 7)), Moments.zeros(5, 7))}
    with pytest.raises(SamplingError, match=r"lsa has 4 token pairs .* expected at least 7; give more texts"):
        fit_pairs("lsa", {SPACE: (5, 7)}, few)
    with pytest.raises(SamplingError, match="give --texts FILE or --moments DIR"):
        fit_pairs("lsa", {SPACE: (5, 7)}, None)
    with pytest.raises(SamplingError, match="the moments lack attention_input for student layer 0"):
        fit_pairs("lsa", {SPACE: (5, 7)}, {})
    alone = {SPACE: SplitMoments(Moments.of(torch.randn(9, 5), torch.randn(9, 7)), Moments.zeros(5, 7))}
    message = r"'ridge' needs covariances, .* 0\.0\.attention_input .* sample again with cov"
    with pytest.raises(SamplingError, match=message):
        fit_pairs("ridge", {SPACE: (5, 7)}, alone)
    with pytest.raises(SamplingError, match=r"ridge has 0 token pairs .* expected at least 2; give more texts"):
        fit_pairs("ridge", {SPACE: (5, 7)}, {SPACE: SplitMoments(*[Moments.zeros(5, 7, full=True)] * 2)})
    with pytest.raises(PlanError, match=r"'lsaa', expected one of auto, blocks, copy, .*, zero; did you mean 'lsa'"):
        fit_pairs("lsaa", {}, None)


def test_every_method_names_its_source() -> None:
    assert all(method.summary and method.reference for method in METHODS.values())
