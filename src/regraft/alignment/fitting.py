"""Fit a map for every pair of spaces, and say how well each fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import SamplingError
from ..models.sites import Space
from .maps import Assignment, Kind, Map
from .methods import AUTO, Choice, Problem, choose, instead, method_named
from .moments import Moments, SplitMoments
from .scores import r2


@dataclass(frozen=True)
class Score:
    """How well a pair of spaces was aligned.

    Attributes:
        space: the pair.
        d_s: width of the student's.
        d_t: width of the teacher's.
        matched: student dimensions with a counterpart, or any weight in a linear map.
        constant: student dimensions that never varied in the sample (their correlation counts as 0).
        assigned: mean Pearson's r over the assigned pairs, on the tokens the map was fitted on; None unsampled, and for
            linear maps, which assign nothing.
        held_out: the same on held-out tokens.
        kind: of the map.
        r2_read: share of the variance of the teacher's activations that the map predicts from the student's on held-out
            tokens; None unsampled.
        r2_write: share of the variance of the student's that it predicts from the teacher's.
        method: that made the map; under ``auto`` the one that was chosen ...
        candidates: ... of these, each with its ``r2_read``.
    """

    space: Space
    d_s: int
    d_t: int
    matched: int
    constant: int = 0
    assigned: float | None = None
    held_out: float | None = None
    kind: Kind = "one-to-one"
    r2_read: float | None = None
    r2_write: float | None = None
    method: str = ""
    candidates: Mapping[str, float] = field(default_factory=dict)


def fit_maps(
    name: str,
    widths: Mapping[Space, tuple[int, int]],
    moments: Mapping[Space, SplitMoments] | None,
    seed: int = 0,
    heads: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[dict[Space, Map], list[Score]]:
    """Fit a map for every pair of spaces.

    Args:
        name: a key of `methods.METHODS`.
        widths: the pairs of spaces -> (d_s, d_t).
        moments: what was sampled; None where nothing was.
        seed: for methods that draw.
        heads: name of a space -> attention heads of the student's and of the teacher's, see `models.heads_of`.

    Returns:
        The maps, and for each how well it fits.

    Raises:
        PlanError: an unknown method.
        SamplingError: moments are needed and missing, lack the covariances that are needed, or are of too few tokens.
    """
    method = method_named(name)
    if method.needs_moments and moments is None:
        raise SamplingError(f"alignment {name!r} compares activations; give --texts FILE or --moments DIR")
    maps: dict[Space, Map] = {}
    scores = []
    for space, (d_s, d_t) in sorted(widths.items()):
        split = None if moments is None else moments.get(space)
        if method.needs_moments and split is None:
            raise SamplingError(
                f"the moments lack {space.name} for student layer {space.student_layer} and teacher layer "
                f"{space.teacher_layer}; sample again with the --sites and --layers of this module{instead(space)}"
            )
        if method.needs == "covariances" and split is not None and not split.fit.full:
            raise SamplingError(
                f"alignment {name!r} needs covariances, and the moments of {space.name} hold variances alone; "
                "sample again with covariances"
            )
        blocks = (heads or {}).get(space.name, (1, 1))
        fit, held_out = (split.fit, split.held_out) if split else (None, None)
        problem = Problem(space, d_s, d_t, fit, seed, held_out, blocks)
        chosen = choose(problem) if name == AUTO else Choice(name, method.fit(problem), {})
        maps[space] = chosen.fitted
        scores.append(_score(space, chosen, split))
    return maps, scores


def _score(space: Space, chosen: Choice, split: SplitMoments | None) -> Score:
    fitted = chosen.fitted
    d_s, d_t = fitted.student_width, fitted.teacher_width
    matched = d_s - fitted.unmatched
    if split is None:
        return Score(space, d_s, d_t, matched, kind=fitted.kind, method=chosen.method)
    constant = int(split.fit.constant_s.sum())
    assigned, held_out = (_mean_r(moments, fitted) for moments in (split.fit, split.held_out))
    shares = r2(split.held_out, fitted)
    return Score(
        space, d_s, d_t, matched, constant, assigned, held_out, fitted.kind, *shares, chosen.method, chosen.shares
    )


def _mean_r(moments: Moments, fitted: Map) -> float | None:
    if moments.n < 2 or not isinstance(fitted, Assignment):
        return None
    rows = (fitted.index >= 0).nonzero().flatten()
    return float(moments.correlation_of(rows, fitted.index[rows]).mean())
