"""Where modules may sit in a model, and the activation spaces there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ModelError
from .adapters import base_layer

if TYPE_CHECKING:
    from .families import Family
    from .pretrained import Pretrained

Place = tuple[int, str]
"""(layer, site); of a stack beside a model's own (a decoder beside an encoder), ``decoder.`` stands before the site."""
ALL_LINEAR = "all-linear"
"""In place of names of sites: all that are linear layers."""


@dataclass(frozen=True, order=True)
class SpacePair:
    """A pair of activation spaces: one space of a student layer and the same one of a teacher layer."""

    student_layer: int
    teacher_layer: int
    name: str

    def __str__(self) -> str:
        return f"{self.student_layer}.{self.teacher_layer}.{self.name}"

    @staticmethod
    def parse(text: str) -> SpacePair:
        """Invert `str`."""
        student_layer, teacher_layer, name = text.split(".", 2)
        return SpacePair(int(student_layer), int(teacher_layer), name)


@dataclass(frozen=True)
class SiteShape:
    """Where a site is in a model, and how wide its two sides are.

    Attributes:
        path: of the submodule.
        in_width: width of what it reads.
        out_width: width of what it writes.
        parts: of fused projections, the space of each part -> the rows of the weight that write it.
    """

    path: str
    in_width: int
    out_width: int
    parts: Mapping[str, tuple[range, ...]] = field(default_factory=dict)

    def width(self, side: Side) -> int:
        """Width of one side."""
        return self.in_width if side == "in" else self.out_width


@dataclass(frozen=True)
class Outlook:
    """Where a space can be observed: one side of a site, or some of its dimensions.

    Attributes:
        shape: the site.
        side: which side of it.
        rows: which dimensions of that side; all where there are none.
    """

    shape: SiteShape
    side: Side
    rows: tuple[range, ...] = ()

    @property
    def width(self) -> int:
        """Width of the space."""
        return sum(map(len, self.rows)) if self.rows else self.shape.width(self.side)


def find_sites(model: Any, family: Family) -> dict[Place, SiteShape]:
    """List the sites of a model (or skeleton) as ``(layer, site) -> SiteShape``.

    What comes behind the last layer (the final norm, the pooler) is counted to it.

    Raises:
        ModelError: a path of the record that the model lacks, or a fused projection whose widths do not add up.
    """
    modules = dict(model.named_modules())
    sites = {
        place: _shape(path, module, place[1], model.config, family)
        for path, module in modules.items()
        if (place := family.parse(path)) is not None
    }
    names = {name for _, name in sites}
    # A class may leave out a whole stack, such as a decoder, but not a part of one.
    stacks = {"", *map(stack_of, names)}
    lacking = sorted(name for name in {*family.places} - names - {*family.optional} if stack_of(name) in stacks)
    if lacking:
        path = ".N.".join(family.places[lacking[0]])
        raise ModelError(
            f"{type(model).__name__} has no module at {path}, where its family's record has {lacking[0]}; mend it, "
            "or name the site as optional"
        )
    last = depth(sites) - 1
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    if family.final_norm:
        # Some bare models call a part of theirs what the classes with a head call them.
        path = family.final_norm if family.final_norm in modules else prefix + family.final_norm
        if path not in modules:
            raise ModelError(f"{type(model).__name__} has no module at {path}, which its family's record names")
        sites[last, "final_norm"] = _shape(path, modules[path])
    elif (last, "output_norm") in sites:
        sites[last, "final_norm"] = sites[last, "output_norm"]
    path = prefix + family.pooler
    if family.pooler and modules.get(path) is not None:
        pooler = modules[path]
        sites[last, "pooler"] = _shape(path, getattr(pooler, "dense", pooler))
    return sites


def is_transposed(module: Any) -> bool:
    """Tell GPT-2's Conv1D, whose weight is (in, out), from a linear layer, whose weight is (out, in)."""
    return type(module).__name__ == "Conv1D"


def _shape(path: str, module: Any, name: str = "", config: Any = None, family: Family | None = None) -> SiteShape:
    module = base_layer(module)
    # A normalisation has one width on both sides.
    out_width, in_width = module.weight.shape[0], module.weight.shape[-1]
    if is_transposed(module):
        out_width, in_width = in_width, out_width
    site = site_of(name)
    if not site.parts or family is None:
        return SiteShape(path, in_width, out_width)
    grouped = name in family.grouped
    rows = _halves(out_width) if len(site.parts) == 2 else _by_head(path, out_width, config.get_text_config(), grouped)
    return SiteShape(path, in_width, out_width, dict(zip(site.parts, rows, strict=True)))


def _halves(width: int) -> list[tuple[range, ...]]:
    return [(range(width // 2),), (range(width // 2, width),)]


def _by_head(path: str, width: int, config: Any, grouped: bool) -> list[tuple[range, ...]]:
    """Tell the rows of queries, keys and values in a fused projection: one behind the other, or in a group per key."""
    queries = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // queries)
    keys, rest = divmod(width - queries * size, 2 * size)
    if rest or keys < 1 or queries % keys:
        raise ModelError(
            f"{path} has {width} rows, expected those of {queries} queries of {size} and of as many keys as values"
        )
    if not grouped:
        ends = [0, queries * size, (queries + keys) * size, width]
        return [(range(start, end),) for start, end in pairwise(ends)]
    per_key = queries // keys
    starts = [group * (per_key + 2) * size for group in range(keys)]
    bounds = ((0, per_key), (per_key, per_key + 1), (per_key + 1, per_key + 2))
    return [tuple(range(start + low * size, start + high * size) for start in starts) for low, high in bounds]


def find_space(sites: Mapping[Place, SiteShape], layer: int, space: str) -> Outlook | None:
    """Find where a space of a layer can be observed; None where the model has no such space."""
    here = {name: shape for (number, name), shape in sites.items() if number == layer}
    for name, shape in here.items():
        if site_of(name).reads == space:
            return Outlook(shape, "in")
    for name, shape in here.items():
        if site_of(name).writes == space:
            return Outlook(shape, "out")
        if space in shape.parts:
            return Outlook(shape, "out", shape.parts[space])
    return None


def space_width(sites: Mapping[Place, SiteShape], layer: int, space: str) -> int:
    """Width of an activation space of a layer; 0 where the model has no such space."""
    observed = find_space(sites, layer, space)
    return observed.width if observed else 0


def space_rank(sites: Mapping[Place, SiteShape], layer: int, space: str) -> int:
    """How many dimensions the activations of a space span: those of what they are projected from, if it is narrower."""
    observed = find_space(sites, layer, space)
    if observed is None:
        return 0
    return observed.width if observed.side == "in" else min(observed.width, observed.shape.in_width)


def attention_heads(student: Pretrained, teacher: Pretrained) -> dict[str, tuple[int, int]]:
    """Count the attention heads in each space that is made of them: name -> (student's, teacher's)."""

    def counts(config: Any) -> tuple[int, int]:
        text = config.get_text_config()
        queries = int(getattr(text, "num_attention_heads", None) or 1)
        return queries, int(getattr(text, "num_key_value_heads", None) or queries)

    (queries_s, keys_s), (queries_t, keys_t) = counts(student.config), counts(teacher.config)
    keys = (keys_s, keys_t)
    return {"query_output": (queries_s, queries_t), "key_output": keys, "value_output": keys}


def stack_of(name: str) -> str:
    """Name the stack of a site or a space: what stands before the dot; empty for a model's own, often only, one."""
    return name.rpartition(".")[0]


def depth(sites: Mapping[Place, SiteShape], stack: str = "") -> int:
    """Number of layers that the sites of a stack cover; 0 where the model has no such stack."""
    return 1 + max((layer for layer, name in sites if stack_of(name) == stack), default=-1)


Side = Literal["in", "out"]


@dataclass(frozen=True)
class Site:
    """A submodule that a PEFT method may wrap, and the activation spaces on its two sides.

    Sites that share an input (query, key, value) share the space, and so the statistic, of that input.

    Attributes:
        reads: the space that it reads.
        writes: the space that it writes.
        is_norm: whether it is a normalisation.
        parts: of fused projections, the spaces that what it writes is made of.
    """

    reads: str
    writes: str
    is_norm: bool = False
    parts: tuple[str, ...] = ()

    def space(self, side: str) -> str:
        """Name of the space on one side, ``"in"`` or ``"out"``."""
        return self.reads if side == "in" else self.writes


SITES: Mapping[str, Site] = {
    "query": Site("attention_input", "query_output"),
    "key": Site("attention_input", "key_output"),
    "value": Site("attention_input", "value_output"),
    "qkv": Site("attention_input", "qkv_output", parts=("query_output", "key_output", "value_output")),
    "attention_output": Site("attention_context", "attention_output"),
    # Of a decoder, to what its encoder gives.
    "cross_query": Site("cross_input", "cross_query_output"),
    "cross_key": Site("encoder_output", "cross_key_output"),
    "cross_value": Site("encoder_output", "cross_value_output"),
    "cross_output": Site("cross_context", "cross_output"),
    "ff_up": Site("ff_input", "up_output"),
    "ff_gate": Site("ff_input", "gate_output"),
    "gate_up": Site("ff_input", "gate_up_output", parts=("gate_output", "up_output")),
    "ff_down": Site("ff_hidden", "ff_output"),
    # Post-LN encoders only: from the sum of feed-forward output and residual to the layer's output.
    "output_norm": Site("residual_sum", "layer_output", is_norm=True),
    # One of each per model, counted to its last layer: what task heads read.
    "final_norm": Site("final_sum", "final_hidden", is_norm=True),
    "pooler": Site("pooler_input", "pooled"),
}


def site_of(name: str) -> Site:
    """Describe a site: one of `SITES`, in a stack (``decoder.query``), or any other, whose spaces are its own."""
    stack, _, kind = name.rpartition(".")
    site = SITES.get(kind, Site(f"{kind}_input", f"{kind}_output"))
    if not stack:
        return site
    reads, writes, *parts = (f"{stack}.{space}" for space in (site.reads, site.writes, *site.parts))
    return Site(reads, writes, site.is_norm, tuple(parts))


# What a task head may read, and those of it that have one vector per text, not per token.
TASK_HEAD_SPACES = ("final_hidden", "pooled")
PER_TEXT = ("pooled",)
