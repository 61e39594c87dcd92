"""Which pairs of spaces a port needs, and the maps between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..alignment.fitting import Score, fit_maps
from ..alignment.maps import Map
from ..alignment.methods import Problem, method_named
from ..alignment.moments import SplitMoments
from ..errors import PlanError, SamplingError, unknown_choice
from ..models.pretrained import Pretrained
from ..models.sites import PER_TEXT, TASK_HEAD_SPACES, SpacePair, depth, find_sites, find_space, stack_of
from ..modules.peft_types import spaces_at
from .layers import match_stacks

# Where LoRA and the bottleneck sit by default.
DEFAULT_SITES = ("query", "value", "qkv", "output_norm")


def space_pairs(
    teacher: Pretrained, student: Pretrained, layers: str | Sequence[int], sites: Sequence[str] | None = None
) -> list[SpacePair]:
    """List the pairs of spaces that modules on some sites, and task heads, need, in either convention.

    Args:
        teacher: the model that modules were trained on.
        student: the model that they go to.
        layers: how layers are matched, as in `layers.match_layers`.
        sites: names of sites that both models have; by default those of `DEFAULT_SITES` that they have.

    Raises:
        PlanError: an unknown site, one that a model lacks, or layers that cannot be matched.
    """
    sites_t, sites_s = (find_sites(base.skeleton(), base.family) for base in (teacher, student))
    known = [site for site in teacher.family.places if site in student.family.places]
    names = [site for site in DEFAULT_SITES if site in known] if sites is None else sites
    for site in names:
        if site not in known:
            raise PlanError(unknown_choice("site", site, known))
    spaces = {name for site in names for name in spaces_at(site)}
    groups = match_stacks(layers, sites_t, sites_s)
    pairs = {
        SpacePair(layer, share.layer, space)
        for stack, its_groups in groups.items()
        for layer, group in enumerate(its_groups)
        for share in group
        for space in spaces
        if stack_of(space) == stack
    }
    last_s, last_t = depth(sites_s) - 1, depth(sites_t) - 1
    for space in TASK_HEAD_SPACES:
        if find_space(sites_s, last_s, space) and find_space(sites_t, last_t, space):
            pairs.add(SpacePair(last_s, last_t, space))
    return sorted(pairs)


def judged_pairs(pairs: Collection[SpacePair]) -> set[SpacePair]:
    """Choose those whose held-out moments are kept in folds, to tell how sure a forecast is.

    They are what task heads read, and one layer of the student in the middle: with all layers moments would take
    several times the memory, and what a text does to one layer it does to the next.
    """
    heads = {pair for pair in pairs if pair.name in TASK_HEAD_SPACES}
    others = {*pairs} - heads
    layers = sorted({pair.student_layer for pair in others})
    return heads | {pair for pair in others if pair.student_layer == layers[len(layers) // 2]}


def fit_pairs(
    align: str,
    widths: Mapping[SpacePair, tuple[int, int]],
    moments: Mapping[SpacePair, SplitMoments] | None,
    seed: int = 0,
    attention_heads: Mapping[str, tuple[int, int]] | None = None,
    ranks: Mapping[SpacePair, tuple[int, int]] | None = None,
    written: Collection[SpacePair] | None = None,
    sites: Collection[str] = (),
) -> tuple[dict[SpacePair, Map], list[Score[SpacePair]]]:
    """Fit a map for every pair of spaces.

    Args:
        align: a key of `methods.METHODS`.
        widths: the pairs of spaces -> (d_s, d_t).
        moments: what was sampled; None where nothing was.
        seed: for methods that draw.
        attention_heads: name of a space -> how many the student's is made of and the teacher's, see
            `sites.attention_heads`.
        ranks: how many dimensions the student's activations and the teacher's span; by default all.
        written: the pairs where something is written; by default all.
        sites: those that the module sits on, to be named where the moments lack something.

    Returns:
        The maps, and for each how well it fits.

    Raises:
        PlanError: an unknown method.
        SamplingError: moments are needed and missing, lack the covariances that are needed, or are of too few tokens.
    """
    sampled = method_named(align).needs_moments
    if sampled and moments is None:
        raise SamplingError(f"alignment {align!r} compares activations; give --texts FILE or --moments DIR")
    problems = {}
    for pair, (d_s, d_t) in sorted(widths.items()):
        split = (moments or {}).get(pair)
        advice = ", or take a fresh head (--head fresh)" if pair.name in TASK_HEAD_SPACES else ""
        if sampled and split is None:
            raise SamplingError(
                f"the moments lack {pair.name} for student layer {pair.student_layer} and teacher layer "
                f"{pair.teacher_layer}; sample again with these --layers and, beside those of other modules, "
                f"--sites {','.join(sorted(sites))}{advice}"
            )
        problems[pair] = Problem(
            str(pair),
            d_s,
            d_t,
            split.fit if split else None,
            split.held_out if split else None,
            seed,
            (attention_heads or {}).get(pair.name, (1, 1)),
            (ranks or {}).get(pair, (None, None)),
            written is None or pair in written,
            "texts" if pair.name in PER_TEXT else "token pairs",
            advice,
        )
    return fit_maps(problems, align)
