"""What the teacher computes with its module in place, held batch by batch for the student."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..activations.batches import Batch
from ..activations.observation import Activations, Space, has_pooler, of_teacher
from ..activations.shelf import Shelf
from ..activations.walk import Walk
from ..errors import SamplingError
from ..models.adapters import base_layer
from ..models.pretrained import Pretrained
from ..models.sites import TASK_HEAD_SPACES, Place, SiteShape, depth, find_sites, find_space, site_of, stack_of

Sites = Mapping[Place, SiteShape]


class Taught:
    """The teacher's half of a port in sequence.

    Attributes:
        sites: of the teacher.
        has_pooler: whether it makes one vector of a whole text.
    """

    def __init__(
        self,
        base: Pretrained,
        model: Any,
        batches: Sequence[Batch],
        needed: Collection[Space],
        shelf: Shelf,
    ) -> None:
        """Begin in front of the first layer.

        Args:
            base: says where the layers and sites are.
            model: what runs, with the module in place.
            batches: what it reads.
            needed: the spaces that the module lives in.
            shelf: holds what it computes.
        """
        self._family, self._batches, self._shelf = base.family, batches, shelf
        self.sites, self.has_pooler = find_sites(model, base.family), has_pooler(model)
        self._made_from = {space: made_from(model, self.sites, space) for space in needed}
        self._heads = {space for space in needed if space[1] in TASK_HEAD_SPACES} if self.has_pooler else set()
        self._held: set[Space] = set()
        self._model = model
        self._walk = walk_through(base, model, "teacher", [batch.teacher for batch in batches], needed, shelf)

    def made_from(self, space: Space) -> str:
        """Name the space of the same layer that a plain linear layer makes one of; empty where none does."""
        return self._made_from.get(space, "")

    def __getitem__(self, at: tuple[Space, int]) -> Tensor:
        """Give what is held of a space and the batch of some number, (n, d)."""
        return self._shelf["taught", *at]

    def hold(self, spaces: Collection[Space]) -> None:
        """Hold what it computes in some spaces, and nothing else but what heads read.

        Raises:
            SamplingError: a space that the model lacks, or that it did not hold before it was let go.
        """
        if self._model is None:
            if absent := {*spaces} - self._held:
                at, name = min(absent)
                raise SamplingError(f"the teacher has no {name} in layer {at}; choose other --sites or --layers")
            return
        wanted = {*spaces} | self._heads
        self._shelf.drop_where(lambda key: key[0] == "taught" and key[1] not in wanted)
        self._held &= wanted
        missing = {*spaces} - self._held
        by_layer = self._walk.by_layer
        for layer in sorted({layer for layer, _ in missing}) if by_layer else [None]:
            here = {space for space in missing if layer in (None, space[0])}
            # What heads read leaves the last layer, so that one run of it serves both.
            if here and layer in (None, depth(self.sites) - 1):
                here |= self._heads - self._held
            self._run(here)

    def let_go(self, spaces: Collection[Space]) -> None:
        """Hold what it computes in all spaces that will be asked for, and let the model go."""
        last = depth(self.sites) - 1, "final_hidden"  # by which modules without heads are judged
        self.hold({*spaces, last} if find_space(self.sites, *last) else spaces)
        for space, name in self._made_from.items():
            if name:
                weight, bias = weight_of(self._model, self.sites, space)
                # Weights are views of a file in memory; one that is kept keeps all of it there.
                self._shelf["weight", space], self._shelf["bias", space] = weight.clone(), bias.clone()
        self._shelf.drop_where(lambda key: key[0] == "teacher")
        del self._walk
        self._model = None

    def weight(self, space: Space) -> tuple[Tensor, Tensor]:
        """Give weight and bias of the linear layer that makes a space."""
        if self._model is None:
            return self._shelf["weight", space], self._shelf["bias", space]
        return weight_of(self._model, self.sites, space)

    def _run(self, spaces: set[Space]) -> None:
        if not spaces:
            return
        runs = self._walk.look(spaces, leave=True)
        for number, (batch, observed) in enumerate(zip(self._batches, runs, strict=True)):
            keep_read(self._shelf, "teacher", number, batch, observed)
            for space, x in of_teacher(observed, batch.pairs, self._family).items():
                self._shelf["taught", space, number] = x
        self._held |= spaces


def walk_through(
    base: Pretrained, model: Any, who: str, batches: Sequence[Any], needed: Collection[Space], shelf: Shelf
) -> Walk:
    """Begin in front of the first layer of a model; warn where layers cannot be run one at a time."""
    # A list of layers beside the model's own is not the one that is walked through.
    walk = Walk(base, model, who, batches, shelf, any(stack_of(name) for _, name in needed))
    if not walk.by_layer:
        warnings.warn(
            f"{base.name} ({base.config.model_type}) cannot be run one layer at a time, so the whole model is "
            "run for each; the port is the same and takes longer",
            stacklevel=2,
        )
    return walk


def keep_read(shelf: Shelf, who: str, number: int, batch: Batch, observed: Activations) -> None:
    """Hold all that a task head reads of a batch that is held out, beside what is paired of it."""
    for (_, name), states in observed.items():
        if name in TASK_HEAD_SPACES and batch.held_out is not None:
            shelf["read", who, number] = states


def site_read(sites: Sites, space: Space) -> str:
    """Name what the site reads that a space is on one of the sides of; empty where there is none."""
    found = find_space(sites, *space)
    if found is None:
        return ""
    return next(site_of(name).reads for (_, name), shape in sites.items() if shape.path == found.shape.path)


def made_from(model: Any, sites: Sites, space: Space) -> str:
    """Name the space that a plain linear layer of a model makes a space of; empty where none does."""
    found = find_space(sites, *space)
    if found is None or found.side == "in":
        return ""
    plain = type(base_layer(model.get_submodule(found.shape.path))) is torch.nn.Linear
    return site_read(sites, space) if plain else ""


def weight_of(model: Any, sites: Sites, space: Space) -> tuple[Tensor, Tensor]:
    """Give weight and bias of the linear layer of a model that makes a space, (d, d_in) and (d,)."""
    found = find_space(sites, *space)
    assert found is not None
    linear = base_layer(model.get_submodule(found.shape.path))
    weight = linear.weight.detach()
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach()
    rows = [torch.arange(some.start, some.stop) for some in found.rows]
    return (weight[torch.cat(rows)], bias[torch.cat(rows)]) if rows else (weight, bias)
