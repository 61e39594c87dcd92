"""Where modules may sit in a model, and the activation spaces there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .families import Family
    from .pretrained import Pretrained

Place = tuple[int, str]
"""(layer, site)"""


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
        student_layer, teacher_layer, name = text.split(".")
        return SpacePair(int(student_layer), int(teacher_layer), name)


@dataclass(frozen=True)
class SiteShape:
    """Where a site is in a model, and how wide its two sides are."""

    path: str
    in_width: int
    out_width: int

    def width(self, side: Side) -> int:
        """Width of one side."""
        return self.in_width if side == "in" else self.out_width


def find_sites(model: Any, family: Family) -> dict[Place, SiteShape]:
    """List the sites of a model (or skeleton) as ``(layer, site) -> SiteShape``.

    What comes behind the last layer (the final norm, the pooler) is counted to it.
    """
    modules = dict(model.named_modules())
    sites = {
        place: _shape(path, module.weight)
        for path, module in modules.items()
        if (place := family.parse(path)) is not None
    }
    last = depth(sites) - 1
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    if family.final_norm:
        path = prefix + family.final_norm
        sites[last, "final_norm"] = _shape(path, modules[path].weight)
    elif (last, "output_norm") in sites:
        sites[last, "final_norm"] = sites[last, "output_norm"]
    path = prefix + family.pooler
    if family.pooler and modules.get(path) is not None:
        sites[last, "pooler"] = _shape(path, modules[path].dense.weight)
    return sites


def _shape(path: str, weight: Any) -> SiteShape:
    # A linear weight is (out, in); a normalisation has one width on both sides.
    return SiteShape(path, in_width=weight.shape[-1], out_width=weight.shape[0])


def find_space(sites: Mapping[Place, SiteShape], layer: int, space: str) -> tuple[SiteShape, Side] | None:
    """Find a site of a layer, and its side, at which a space can be observed; None where the model has none."""
    reads: list[tuple[str, Side]] = [(name, "in") for name, site in SITES.items() if site.reads == space]
    writes: list[tuple[str, Side]] = [(name, "out") for name, site in SITES.items() if site.writes == space]
    return next(((sites[layer, site], side) for site, side in reads + writes if (layer, site) in sites), None)


def space_width(sites: Mapping[Place, SiteShape], layer: int, space: str) -> int:
    """Width of an activation space of a layer; 0 where the model has no such space."""
    observed = find_space(sites, layer, space)
    return observed[0].width(observed[1]) if observed else 0


def attention_heads(student: Pretrained, teacher: Pretrained) -> dict[str, tuple[int, int]]:
    """Count the attention heads in each space that is made of them: name -> (student's, teacher's)."""

    def counts(config: Any) -> tuple[int, int]:
        queries = int(config.num_attention_heads)
        return queries, int(getattr(config, "num_key_value_heads", None) or queries)

    (queries_s, keys_s), (queries_t, keys_t) = counts(student.config), counts(teacher.config)
    keys = (keys_s, keys_t)
    return {"query_output": (queries_s, queries_t), "key_output": keys, "value_output": keys}


def depth(sites: Mapping[Place, SiteShape]) -> int:
    """Number of layers that the sites of a model cover."""
    return 1 + max(layer for layer, _ in sites)


Side = Literal["in", "out"]


@dataclass(frozen=True)
class Site:
    """A submodule that a PEFT method may wrap, and the activation spaces on its two sides.

    Sites that share an input (query, key, value) share the space, and so the statistic, of that input.
    """

    reads: str
    writes: str
    is_norm: bool = False

    def space(self, side: str) -> str:
        """Name of the space on one side, ``"in"`` or ``"out"``."""
        return self.reads if side == "in" else self.writes


SITES: Mapping[str, Site] = {
    "query": Site("attention_input", "query_output"),
    "key": Site("attention_input", "key_output"),
    "value": Site("attention_input", "value_output"),
    "attention_output": Site("attention_context", "attention_output"),
    "ff_up": Site("ff_input", "up_output"),
    "ff_gate": Site("ff_input", "gate_output"),
    "ff_down": Site("ff_hidden", "ff_output"),
    # Post-LN encoders only: from the sum of feed-forward output and residual to the layer's output.
    "output_norm": Site("residual_sum", "layer_output", is_norm=True),
    # One of each per model, counted to its last layer: what task heads read.
    "final_norm": Site("final_sum", "final_hidden", is_norm=True),
    "pooler": Site("pooler_input", "pooled"),
}
# What a task head may read, and those of it that have one vector per text, not per token.
TASK_HEAD_SPACES = ("final_hidden", "pooled")
PER_TEXT = ("pooled",)
