"""The alignment methods: a registry of small functions from the moments of a pair of spaces to the map between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import PlanError, SamplingError, unknown_choice
from ..seeding import generator
from .linear import (
    best_shrinkage,
    procrustes,
    ridge_reads,
    ridge_writes,
    scaled,
    within_blocks,
    writes_towards,
)
from .maps import Assignment, Kind, Linear, Map
from .moments import Moments
from .scores import r2, read_share

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
        name: of the pair of spaces, in messages; methods that draw do so by it.
        d_s: width of the student's space.
        d_t: width of the teacher's.
        moments: of the rows to fit on; None for methods that need none and were given none.
        held_out: of the rows to choose on; None as above.
        seed: for methods that draw.
        blocks: number of equal blocks that the student's space and the teacher's are made of, such as attention heads.
        ranks: how many dimensions the student's activations and the teacher's span, fewer than there are where they are
            outputs of a projection from a narrower space; None for all.
        unit: what messages call the rows.
        advice: what else there is to do where the pair cannot be fitted, as messages end.
    """

    name: str
    d_s: int
    d_t: int
    moments: Moments | None
    held_out: Moments | None = None
    seed: int = 0
    blocks: tuple[int, int] = (1, 1)
    ranks: tuple[int | None, int | None] = (None, None)
    unit: str = "token pairs"
    advice: str = ""

    def sampled(self, method: str, least: int) -> Moments:
        """Give the moments.

        Args:
            method: name of the method that asks.
            least: how many rows it needs.

        Raises:
            SamplingError: there are fewer, or none at all.
        """
        if self.moments is None:
            raise SamplingError(f"alignment {method!r} compares activations, and none of {self.name} were sampled")
        if self.moments.n < least:
            raise SamplingError(
                f"{method} has {self.moments.n} {self.unit} to fit {self.name} on, expected at least {least}; "
                f"give more texts{self.advice}"
            )
        return self.moments


@dataclass(frozen=True)
class Choice:
    """What was chosen for a pair of spaces.

    Attributes:
        method: a key of `METHODS`.
        fitted: its map.
        shares: candidate -> share of the teacher's variance that it predicts on held-out rows.
    """

    method: str
    fitted: Map
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Method:
    """A registered alignment method.

    Attributes:
        fit: the method itself; a `Choice` where it chooses among others.
        kind: of its maps.
        needs: which moments have to be sampled for it.
        summary: one line for people.
        reference: where it comes from.
        identity: whether its maps change nothing, so that the spaces have to be equally wide.
        draws: whether its maps depend on the seed.
        silent: whether its maps write nothing.
        chooses: whether a port in sequence chooses between its maps, none, and a module that writes nothing.
    """

    fit: Callable[[Problem], Map | Choice]
    kind: Kind
    needs: Needs
    summary: str
    reference: str
    identity: bool = False
    draws: bool = False
    silent: bool = False
    chooses: bool = False

    @property
    def needs_moments(self) -> bool:
        """Whether texts have to be sampled for it."""
        return self.needs != "nothing"


METHODS: dict[str, Method] = {}
_Fit = TypeVar("_Fit", bound=Callable[[Problem], Map | Choice])


def _register(
    name: str, summary: str, reference: str, needs: Needs = "nothing", kind: Kind = "one-to-one", **traits: bool
) -> Callable[[_Fit], _Fit]:
    def register(fit: _Fit) -> _Fit:
        METHODS[name] = Method(fit, kind, needs, summary, reference, **traits)
        return fit

    return register


_PAPER = "Klimaszewski, Andruszkiewicz & Birch, LREC-COLING 2024, https://arxiv.org/abs/2403.18804"


@_register("none", "no map: teacher and student share their dimensions (distilled students)", _PAPER, identity=True)
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
def _lsa_scaled(problem: Problem) -> Linear:
    moments = problem.sampled("lsa_scaled", max(problem.d_s, problem.d_t))
    return scaled(moments, _assign(moments.correlation().abs(), problem.d_t))


def _assign(gains: Tensor, d_t: int) -> Assignment:
    rows, columns = linear_sum_assignment(gains.numpy(), maximize=True)
    # With a student wider than the teacher some student dimensions stay unassigned.
    index = torch.full((len(gains),), -1)
    index[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return Assignment(index, d_t)


@_register("copy", "control: the first dimensions as they are, zeros where the teacher has no more", "no source needed")
def _copy(problem: Problem) -> Assignment:
    index = torch.arange(problem.d_s)
    return Assignment(index.where(index < problem.d_t, -1), problem.d_t)


@_register(
    "random", "control: a random assignment", "the paper's question whether alignment matters at all", draws=True
)
def _random(problem: Problem) -> Assignment:
    # Sharing the draw between layers would not be random; sharing it between runs of one seed is what a seed is for.
    dice = generator(problem.seed, problem.name)
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
    silent=True,
)
def _zero(problem: Problem) -> Map:
    reads, offset, constant = _ridge_reads(problem)
    return Linear(reads, offset, torch.zeros_like(reads.T), constant)


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
    reads, offset, constant = _ridge_reads(problem)
    return Linear(reads, offset, _ridge_writes(problem), constant)


def _ridge_reads(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    moments = problem.sampled("ridge", 2)
    return ridge_reads(moments, best_shrinkage(moments, problem.ranks[0]))


def _ridge_writes(problem: Problem) -> Tensor:
    """Regress, and where the teacher's activations do not vary write by the scaled assignment instead of not at all."""
    moments, rank = problem.sampled("ridge", 2), problem.ranks[1]
    if rank is not None and rank < problem.d_t and moments.n >= max(problem.d_s, problem.d_t):
        return writes_towards(moments, _lsa_scaled(problem).writes, WRITE_SHRINKAGE, rank)
    return ridge_writes(moments, max(best_shrinkage(moments.swapped()), WRITE_SHRINKAGE))


@_register(
    "blocks",
    "ridge, with the attention heads of queries, keys and values matched as blocks",
    "docs/guide.md",
    needs="covariances",
    kind="linear",
)
def _blocks(problem: Problem) -> Linear:
    if problem.blocks == (1, 1):
        return _ridge(problem)
    return within_blocks(problem.sampled("blocks", 2), *problem.blocks, WRITE_SHRINKAGE)


@_register(
    AUTO,
    "for each pair of spaces no map, lsa or ridge: the simplest that predicts held-out activations as well as any",
    "docs/guide.md",
    needs="covariances",
    kind="linear",
    chooses=True,
)
def _auto(problem: Problem) -> Choice:
    """Fit the candidates and keep the first that is as good as the best.

    Judged is what reads: the share of the variance of the teacher's activations that a map predicts from the student's.
    """
    moments, held_out = problem.sampled(AUTO, 2), problem.held_out
    if held_out is None or held_out.n < 2:
        raise SamplingError(
            f"auto has no held-out tokens to choose the map of {problem.name} by, expected a tenth of the texts; "
            "give more texts, or name a method such as ridge"
        )
    fitted: dict[str, Assignment] = {}
    if problem.d_s == problem.d_t:
        fitted["none"] = _none(problem)
    if moments.n >= max(problem.d_s, problem.d_t):
        fitted["lsa"] = _lsa(problem)
    # How it writes is worked out where it is chosen.
    reads, offset, constant = _ridge_reads(problem)
    found = {name: r2(held_out, one)[0] for name, one in fitted.items()}
    found["ridge"] = read_share(held_out, reads, offset)
    shares = {name: share for name in CANDIDATES if (share := found.get(name)) is not None}
    enough = max(shares.values(), default=0.0) - TOLERANCE
    method = next((name for name, share in shares.items() if share >= enough), "ridge")
    if method in fitted:
        return Choice(method, fitted[method], shares)
    return Choice(method, Linear(reads, offset, _ridge_writes(problem), constant), shares)


def method_named(name: str) -> Method:
    """Look a method up.

    Raises:
        PlanError: there is none of that name; the message lists those there are.
    """
    if name not in METHODS:
        raise PlanError(unknown_choice("alignment", name, METHODS))
    return METHODS[name]
