"""From moments to maps: a registry of small functions, one per method.

A method sees one pair of spaces at a time (its widths, its moments, a seed) and returns the map between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment

from .axes import Assignment, Kind, Map
from .errors import PlanError, SamplingError, unknown_choice
from .fit import r2
from .linear import ridge
from .moments import Moments
from .roles import HEAD_SPACES, PER_TEXT
from .samples import Space, SplitMoments
from .seeding import generator

Needs = Literal["nothing", "variances", "covariances"]

# What `ridge` adds to every variance, in units of the mean variance.
SHRINKAGE = 0.01


@dataclass(frozen=True)
class Problem:
    """What a method is given.

    Attributes:
        space: the pair of spaces.
        d_s: width of the student's.
        d_t: width of the teacher's.
        moments: of the tokens to fit on; None for methods that need none and were given none.
        seed: for methods that draw.
    """

    space: Space
    d_s: int
    d_t: int
    moments: Moments | None
    seed: int


@dataclass(frozen=True)
class Method:
    """A registered alignment method.

    Attributes:
        fit: the method itself.
        kind: of its maps.
        needs: which moments have to be sampled for it.
        summary: one line for people.
        reference: where it comes from.
    """

    fit: Callable[[Problem], Map]
    kind: Kind
    needs: Needs
    summary: str
    reference: str

    @property
    def needs_moments(self) -> bool:
        """Whether texts have to be sampled for it."""
        return self.needs != "nothing"


METHODS: dict[str, Method] = {}
_Fit = Callable[[Problem], Map]


def _register(
    name: str, summary: str, reference: str, needs: Needs = "nothing", kind: Kind = "one-to-one"
) -> Callable[[_Fit], _Fit]:
    def register(fit: _Fit) -> _Fit:
        METHODS[name] = Method(fit, kind, needs, summary, reference)
        return fit

    return register


_PAPER = "Klimaszewski, Andruszkiewicz & Birch, LREC-COLING 2024, https://arxiv.org/abs/2403.18804"


@_register("none", "no map: teacher and student share their dimensions (distilled students)", _PAPER)
def _none(problem: Problem) -> Assignment:
    return Assignment.identity(problem.d_t)


@_register("lsa", "prune & align: Pearson's r, then linear sum assignment (the paper)", _PAPER, needs="variances")
def _lsa(problem: Problem) -> Assignment:
    """Give each student dimension the teacher dimension that makes the summed correlation largest (section 3.2)."""
    moments = problem.moments
    assert moments is not None
    needed = max(problem.d_s, problem.d_t)
    if moments.n < needed:
        counted = "texts" if problem.space.name in PER_TEXT else "token pairs"
        raise SamplingError(
            f"lsa has {moments.n} {counted} to fit {problem.space.name} of student layer "
            f"{problem.space.student_layer} on, expected at least its width, {needed}; "
            f"give more texts{_instead(problem.space)}"
        )
    rows, columns = linear_sum_assignment(moments.correlation().numpy(), maximize=True)
    # With a student wider than the teacher some student dimensions stay unassigned.
    index = torch.full((problem.d_s,), -1)
    index[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return Assignment(index, problem.d_t)


def _instead(space: Space) -> str:
    return ", or take a fresh head (--head fresh)" if space.name in HEAD_SPACES else ""


@_register("copy", "control: the first dimensions as they are, zeros where the teacher has no more", "no source needed")
def _copy(problem: Problem) -> Assignment:
    index = torch.arange(problem.d_s)
    return Assignment(index.where(index < problem.d_t, -1), problem.d_t)


@_register("random", "control: a random assignment", "the paper's question whether alignment matters at all")
def _random(problem: Problem) -> Assignment:
    # Sharing the draw between layers would not be random; sharing it between runs of one seed is what a seed is for.
    dice = generator(problem.seed, str(problem.space))
    matched = min(problem.d_s, problem.d_t)
    index = torch.full((problem.d_s,), -1)
    index[torch.randperm(problem.d_s, generator=dice)[:matched]] = torch.randperm(problem.d_t, generator=dice)[:matched]
    return Assignment(index, problem.d_t)


@_register(
    "ridge",
    "a linear map each way, by ridge regression",
    "Hoerl & Kennard, Technometrics 1970, https://doi.org/10.1080/00401706.1970.10488634",
    needs="covariances",
    kind="linear",
)
def _ridge(problem: Problem) -> Map:
    moments = problem.moments
    assert moments is not None
    if moments.n < 2:
        raise SamplingError(
            f"ridge has {moments.n} rows to fit {problem.space.name} of student layer {problem.space.student_layer} "
            f"on, expected at least 2; give more texts{_instead(problem.space)}"
        )
    return ridge(moments, SHRINKAGE)


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


def method_named(name: str) -> Method:
    """Look a method up.

    Raises:
        PlanError: there is none of that name; the message lists those there are.
    """
    if name not in METHODS:
        raise PlanError(unknown_choice("alignment", name, METHODS))
    return METHODS[name]


def fit_maps(
    name: str,
    widths: Mapping[Space, tuple[int, int]],
    moments: Mapping[Space, SplitMoments] | None,
    seed: int = 0,
) -> tuple[dict[Space, Map], list[Score]]:
    """Fit a map for every pair of spaces.

    Args:
        name: a key of `METHODS`.
        widths: the pairs of spaces -> (d_s, d_t).
        moments: what was sampled; None where nothing was.
        seed: for methods that draw.

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
                f"{space.teacher_layer}; sample again with the --sites and --layers of this module{_instead(space)}"
            )
        if method.needs == "covariances" and split is not None and not split.fit.full:
            raise SamplingError(
                f"alignment {name!r} needs covariances, and the moments of {space.name} hold variances alone; "
                "sample again with covariances"
            )
        maps[space] = method.fit(Problem(space, d_s, d_t, split.fit if split else None, seed))
        scores.append(_score(space, maps[space], split))
    return maps, scores


def _score(space: Space, fitted: Map, split: SplitMoments | None) -> Score:
    d_s, d_t = fitted.student_width, fitted.teacher_width
    matched = d_s - fitted.unmatched
    if split is None:
        return Score(space, d_s, d_t, matched, kind=fitted.kind)
    constant = int(split.fit.constant_s.sum())
    assigned, held_out = (_mean_r(moments, fitted) for moments in (split.fit, split.held_out))
    shares = r2(split.held_out, fitted)
    return Score(space, d_s, d_t, matched, constant, assigned, held_out, fitted.kind, *shares)


def _mean_r(moments: Moments, fitted: Map) -> float | None:
    if moments.n < 2 or not isinstance(fitted, Assignment):
        return None
    rows = (fitted.index >= 0).nonzero().flatten()
    return float(moments.correlation_of(rows, fitted.index[rows]).mean())
