"""Run a model over batches of texts one layer at a time, holding only what enters the layer.

Blocks outside, batches inside, as models are calibrated when they are quantised (Frantar et al., GPTQ, ICLR 2023,
section 4). A layer is run by the model itself: those below hand on what they are given, the last of them hands on what
was held, the layer above ends the run. So masks, positions, and whatever else a layer is called with, are the model's
own. Where layers share more than hidden states that is not what the whole model does; a first try finds out, and such a
model is run whole each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from ..models.adapters import base_layer
from ..models.pretrained import Pretrained
from ..models.sites import find_sites, find_space, site_of
from .observation import Space, Stopped, Watched, recording, run_on, watch
from .pairing import Encoding
from .shelf import Shelf

# How far what a model computes layer by layer may be from what it computes at once, in units of the largest value.
_TOLERANCE = 1e-3
# Batches, and texts of each, to try that on.
_BATCHES, _TEXTS = 2, 4


class Walk:
    """A bare model on its way through its layers, with what enters the next one held for every batch.

    Attributes:
        by_layer: whether layers are run one at a time; else the whole model is, each time.
    """

    def __init__(
        self, base: Pretrained, model: Any, who: str, batches: Sequence[Encoding], shelf: Shelf, whole: bool
    ) -> None:
        """Begin in front of the first layer, and find out whether layers can be run one at a time.

        Args:
            base: says where the layers and sites are.
            model: what runs, in evaluation mode; what is in place in it may change between two looks, above the layer
                that is looked at.
            who: the model in messages, and on the shelf.
            batches: what it reads.
            shelf: holds what enters the next layer.
            whole: whether to run the whole model each time, without a try.
        """
        self._base, self._model, self._who, self._batches, self._shelf = base, model, who, batches, shelf
        self._layers = list(model.get_submodule(base.family.layers))
        self._at = 0
        self._outputs: int | None = None  # how many things a layer returns, as a tuple; None for hidden states alone
        self.by_layer = not whole and self._can_skip()

    def look(self, spaces: Collection[Space], leave: bool = False) -> Iterator[dict[Space, Tensor]]:
        """Run every batch in turn, as far as needed, and give what is seen in some spaces of a layer.

        Args:
            spaces: of one layer, or behind the last.
            leave: whether this is the last look at the layer, so that running it once serves the next one too.

        Raises:
            SamplingError: a space that the model lacks, or no room to hold what enters a layer.
        """
        if not self.by_layer:
            yield from self.look_from_the_start(spaces)
            return
        (layer,) = {layer for layer, _ in spaces}
        watched = watch(self._model, self._base.family, self._who, spaces)
        self._go_to(layer)
        leave = leave and layer + 1 < len(self._layers)
        for number, batch in enumerate(self._batches):
            with recording(watched, stop=not leave) as seen:
                if leave:
                    self._hold(number, self._leaving(batch, layer, self._held(number)))
                else:
                    self._run(batch, layer, self._held(number))
            yield seen
        self._at += leave

    def look_from_the_start(self, spaces: Collection[Space]) -> Iterator[dict[Space, Tensor]]:
        """As `look`, of spaces of any layers, whatever is held."""
        watched = watch(self._model, self._base.family, self._who, spaces)
        for batch in self._batches:
            with recording(watched, stop=True) as seen:
                run_on(self._model, batch)
            yield seen

    def _go_to(self, layer: int) -> None:
        if layer < self._at:  # lists of layers may go back
            self._at = 0
        while self._at < layer:
            for number, batch in enumerate(self._batches):
                self._hold(number, self._leaving(batch, self._at, self._held(number)))
            self._at += 1

    def _held(self, number: int) -> Tensor | None:
        """Give what enters the layer in some batch; None in front of the first."""
        return self._shelf[self._who, number] if self._at else None

    def _hold(self, number: int, hidden: Tensor) -> None:
        self._shelf[self._who, number] = hidden

    def _run(self, batch: Encoding, layer: int, held: Tensor | None) -> None:
        """Run a layer, and what comes behind it unless the run is stopped, on what was held."""
        with self._skipping(layer, held):
            if layer + 1 < len(self._layers):
                with _replaced(self._layers[layer + 1], _stop):
                    run_on(self._model, batch)
            else:
                run_on(self._model, batch)

    def _leaving(self, batch: Encoding, layer: int, held: Tensor | None) -> Tensor:
        """Run a layer on what was held and give what enters the next one."""
        caught: list[Tensor] = []

        def catch(*args: Any, **kwargs: Any) -> Any:
            caught.append(_hidden(args, kwargs))
            raise Stopped

        with self._skipping(layer, held), _replaced(self._layers[layer + 1], catch):
            run_on(self._model, batch)
        return caught[0]

    @contextmanager
    def _skipping(self, layer: int, held: Tensor | None) -> Iterator[None]:
        """Skip the layers below one, which takes what was held."""

        def returned(hidden: Tensor) -> Any:
            return hidden if self._outputs is None else (hidden, *[None] * (self._outputs - 1))

        def passing(*args: Any, **kwargs: Any) -> Any:
            return returned(_hidden(args, kwargs))

        def giving(*args: Any, **kwargs: Any) -> Any:
            assert held is not None
            return returned(held.to(_hidden(args, kwargs).device))

        with ExitStack() as skipped:
            for number, below in enumerate(self._layers[:layer], start=1):
                skipped.enter_context(_replaced(below, giving if number == layer else passing))
            yield

    def _can_skip(self) -> bool:
        """Run some texts at once and layer by layer, and compare what enters each layer and what comes out.

        The batches take turns, as they will, so that what a layer might leave behind for another is another batch's.
        """
        depth = len(self._layers)
        end = depth - 1, "final_hidden"
        has_end = find_space(find_sites(self._model, self._base.family), *end) is not None
        watched = watch(self._model, self._base.family, self._who, {end} if has_end else ())
        batches = [batch.first(_TEXTS) for batch in self._batches[:_BATCHES]]
        whole = [self._whole(batch, watched) for batch in batches]
        outputs = {number for _, _, of_layers in whole for number in of_layers}
        if any(len(entering) != depth for entering, _, _ in whole) or len(outputs) != 1:
            return False
        (self._outputs,) = outputs
        held: list[Tensor | None] = [None] * len(batches)
        try:
            for layer in range(depth - 1):
                held = [self._leaving(batch, layer, x) for batch, x in zip(batches, held, strict=True)]
                if not all(_close(x, entering[layer + 1]) for x, (entering, _, _) in zip(held, whole, strict=True)):
                    return False
            for batch, x, (_, seen, _) in zip(batches, held, whole, strict=True):
                with recording(watched) as again:
                    self._run(batch, depth - 1, x)
                if not all(_close(again.get(space), seen[space]) for space in seen):
                    return False
        except Exception:  # whatever a model's own code raises where a layer is missing
            return False
        return True

    def _whole(self, batch: Encoding, watched: Watched) -> tuple[list[Tensor], dict[Space, Tensor], list[int | None]]:
        """Run a batch at once: what enters the layers, what is seen, and how many things each layer returns."""
        entering: list[Tensor] = []
        outputs: list[int | None] = []

        def enters(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entering.append(_hidden(args, kwargs))

        def leaves(_layer: Any, _args: Any, output: Any) -> None:
            outputs.append(len(output) if isinstance(output, tuple) else None)

        with ExitStack() as hooks, recording(watched) as seen:
            for layer in self._layers:
                hooks.enter_context(layer.register_forward_pre_hook(enters, with_kwargs=True))
                hooks.enter_context(layer.register_forward_hook(leaves))
            run_on(self._model, batch)
        return entering, seen, outputs


def in_order_of_computation(
    base: Pretrained, model: Any, batch: Encoding, spaces: Collection[Space]
) -> list[tuple[Space, ...]]:
    """Sort spaces of a model into stages: what a module adds in one changes what is in later ones, and in no other.

    Sites that read the same space, such as query, key and value, are of one stage, with what they read and write.

    Args:
        base: says where the sites are.
        model: what runs.
        batch: to see in which order it does.
        spaces: which of its spaces.
    """
    sites = find_sites(model, base.family)
    called: dict[Space, int] = {}

    def noting(read: Space) -> Callable[..., None]:
        def note(*_: Any) -> None:
            called.setdefault(read, len(called))

        return note

    # What comes behind the last layer has the path of its output norm, which a module may be on.
    read_at = {shape.path: (layer, site_of(name).reads) for (layer, name), shape in reversed(sites.items())}
    with ExitStack() as hooks:
        for path, read in read_at.items():
            hooks.enter_context(base_layer(model.get_submodule(path)).register_forward_pre_hook(noting(read)))
        run_on(model, batch.first(_TEXTS))
    stages: dict[int, list[Space]] = {}
    for layer, space in sorted(spaces):
        found = find_space(sites, layer, space)
        # A space that no run reaches is told of when its moments are missing.
        stage = len(called) if found is None else called.get(read_at[found.shape.path], len(called))
        stages.setdefault(stage, []).append((layer, space))
    return [tuple(stages[stage]) for stage in sorted(stages)]


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]


def _stop(*_args: Any, **_kwargs: Any) -> Any:
    raise Stopped


def _close(one: Tensor | None, other: Tensor) -> bool:
    if one is None or one.shape != other.shape:
        return False
    return float((one - other).abs().max()) <= _TOLERANCE * float(other.abs().max())


@contextmanager
def _replaced(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module do something else when it is called."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
