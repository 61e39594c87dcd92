"""The alignment methods: a registry of small functions from the moments of a pair of spaces to the map between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import PlanError, SamplingError, unknown_choice
from ..models.sites import HEAD_SPACES, PER_TEXT, Space
from ..modules.peft_types import Convention
from ..seeding import generator
from .linear import best_shrinkage, procrustes, ridge, scaled, within_heads
from .maps import Assignment, Kind, Linear, Map
from .moments import Moments
from .scores import r2

Needs = Literal["nothing", "variances", "covariances"]

# The least that `ridge` adds to every variance of what it writes from, in units of the mean variance. Readings are of
# activations like those that were sampled; what a module writes is not, and may lie where they hardly vary.
WRITE_SHRINKAGE = 0.01


AUTO = "auto"
# From the simplest to the most general.
CANDIDATES = ("none", "lsa", "ridge")
# A simpler map is kept where its held-out R2 is at most so much below the best one's.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Problem:
    """What a method is given.

    Attributes:
        space: the pair of spaces.
        d_s: width of the student's.
        d_t: width of the teacher's.
        moments: of the tokens to fit on; None for methods that need none and were given none.
        seed: for methods that draw.
        held_out: of the tokens to choose on; None as above.
        heads: number of attention heads that the student's space and the teacher's are made of; 1 for all but queries,
            keys and values.
    """

    space: Space
    d_s: int
    d_t: int
    moments: Moments | None
    seed: int
    held_out: Moments | None = None
    heads: tuple[int, int] = (1, 1)

    def sampled(self, name: str, least: int) -> Moments:
        """Give the moments.

        Args:
            name: of the method that asks.
            least: how many rows it needs.

        Raises:
            SamplingError: there are fewer.
        """
        assert self.moments is not None  # `alignment.fit_maps` has seen to it
        if self.moments.n < least:
            counted = "texts" if self.space.name in PER_TEXT else "token pairs"
            raise SamplingError(
                f"{name} has {self.moments.n} {counted} to fit {self.space.name} of student layer "
                f"{self.space.student_layer} on, expected at least {least}; give more texts{instead(self.space)}"
            )
        return self.moments


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
    def spaces(self) -> Convention:
        """Which spaces its maps are fitted on unless the user says: the authors' where they or a control assign."""
        return "released" if self.kind == "one-to-one" else "measured"

    @property
    def needs_moments(self) -> bool:
        """Whether texts have to be sampled for it."""
        return self.needs != "nothing"


METHODS: dict[str, Method] = {}
_Fit = TypeVar("_Fit", bound=Callable[[Problem], Map])


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
    moments = problem.sampled("lsa", max(problem.d_s, problem.d_t))
    return _assign(moments.correlation(), problem.d_t)


@_register(
    "lsa_scaled",
    "lsa by the size of r, each pair with its sign, strength and ratio of deviations",
    "the best prediction of one dimension from the other: its slope in simple linear regression",
    needs="variances",
    kind="linear",
)
def _lsa_scaled(problem: Problem) -> Map:
    moments = problem.sampled("lsa_scaled", max(problem.d_s, problem.d_t))
    return scaled(moments, _assign(moments.correlation().abs(), problem.d_t))


def _assign(gains: Tensor, d_t: int) -> Assignment:
    rows, columns = linear_sum_assignment(gains.numpy(), maximize=True)
    # With a student wider than the teacher some student dimensions stay unassigned.
    index = torch.full((len(gains),), -1)
    index[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return Assignment(index, d_t)


def instead(space: Space) -> str:
    """Say what else there is to do where a space cannot be fitted."""
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
    "zero",
    "control: the module writes nothing; its head is mapped as by ridge",
    "no source needed",
    needs="covariances",
    kind="linear",
)
def _zero(problem: Problem) -> Map:
    fitted = _ridge(problem)
    return replace(fitted, writes=torch.zeros_like(fitted.writes))


@_register(
    "procrustes",
    "a rotation (semi-orthogonal where widths differ) and one factor",
    "Schoenemann, Psychometrika 1966, https://doi.org/10.1007/BF02289451",
    needs="covariances",
    kind="linear",
)
def _procrustes(problem: Problem) -> Map:
    return procrustes(problem.sampled("procrustes", 2))


@_register(
    "ridge",
    "a linear map each way by ridge regression, shrunk by generalised cross-validation",
    "Golub, Heath & Wahba, Technometrics 1979, https://doi.org/10.1080/00401706.1979.10489751",
    needs="covariances",
    kind="linear",
)
def _ridge(problem: Problem) -> Linear:
    moments = problem.sampled("ridge", 2)
    reading, writing = best_shrinkage(moments), best_shrinkage(moments.swapped())
    return ridge(moments, reading, max(writing, WRITE_SHRINKAGE))


@dataclass(frozen=True)
class Choice:
    """What was chosen for a pair of spaces.

    Attributes:
        method: a key of `METHODS`.
        fitted: its map.
        shares: candidate -> share of the teacher's variance that it predicts on held-out tokens.
    """

    method: str
    fitted: Map
    shares: dict[str, float]


def choose(problem: Problem) -> Choice:
    """Fit the candidates and keep the first that is as good as the best.

    Judged is what reads: the share of the variance of the teacher's activations that a map predicts from the student's.

    Args:
        problem: the pair of spaces, with moments to judge on.

    Raises:
        SamplingError: too few rows for any, or to judge on.
    """
    moments, held_out = problem.sampled(AUTO, 2), problem.held_out
    if held_out is None or held_out.n < 2:
        raise SamplingError(
            f"auto has no held-out tokens to choose the map of {problem.space.name} by, expected a tenth of the texts; "
            "give more texts, or name a method (--align ridge)"
        )
    fitted: dict[str, Map] = {"ridge": _ridge(problem)}
    if problem.d_s == problem.d_t:
        fitted["none"] = _none(problem)
    if moments.n >= max(problem.d_s, problem.d_t):
        fitted["lsa"] = _lsa(problem)
    judged = {name: r2(held_out, fitted[name])[0] for name in CANDIDATES if name in fitted}
    shares = {name: share for name, share in judged.items() if share is not None}
    enough = max(shares.values(), default=0.0) - TOLERANCE
    method = next((name for name, share in shares.items() if share >= enough), "ridge")
    return Choice(method, fitted[method], shares)


@_register(
    "heads",
    "ridge, with the attention heads of queries, keys and values matched as blocks",
    "docs/guide.md",
    needs="covariances",
    kind="linear",
)
def _heads(problem: Problem) -> Linear:
    if problem.heads == (1, 1):
        return _ridge(problem)
    return within_heads(problem.sampled("heads", 2), *problem.heads, WRITE_SHRINKAGE)


@_register(
    AUTO,
    "for each pair of spaces no map, lsa or ridge: the simplest that predicts held-out activations as well as any",
    "docs/guide.md",
    needs="covariances",
    kind="linear",
)
def _auto(problem: Problem) -> Map:
    return choose(problem).fitted


def method_named(name: str) -> Method:
    """Look a method up.

    Raises:
        PlanError: there is none of that name; the message lists those there are.
    """
    if name not in METHODS:
        raise PlanError(unknown_choice("alignment", name, METHODS))
    return METHODS[name]
