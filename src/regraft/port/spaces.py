"""Which pairs of spaces any module on some sites needs."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import PlanError, unknown_choice
from ..models.pretrained import BaseModel
from ..models.sites import HEAD_SPACES, SITES, Space, depth, find_sites, find_space
from ..modules.peft_types import spaces_at
from .layers import match_layers

# Where LoRA and the bottleneck sit by default.
DEFAULT_SITES = ("query", "value", "output_norm")


def spaces_of(
    teacher: BaseModel, student: BaseModel, layers: str | Sequence[int], sites: Sequence[str] | None = None
) -> list[Space]:
    """List the pairs of spaces that modules on some sites, and task heads, need, in either convention.

    Args:
        teacher: the model that modules were trained on.
        student: the model that they go to.
        layers: how layers are matched, as in `layers.match_layers`.
        sites: names of sites that both models have; by default those of `DEFAULT_SITES` that they have.

    Raises:
        PlanError: an unknown site, one that a model lacks, or layers that cannot be matched.
    """
    shapes = [find_sites(base.skeleton(), base.family) for base in (teacher, student)]
    known = [site for site in SITES if site in teacher.family.sites and site in student.family.sites]
    chosen = [site for site in DEFAULT_SITES if site in known] if sites is None else sites
    for site in chosen:
        if site not in known:
            raise PlanError(unknown_choice("site", site, known))
    names = {name for site in chosen for name in spaces_at(site)}
    depths = [depth(shape) for shape in shapes]
    groups = match_layers(layers, *depths)
    spaces = {
        Space(layer, share.layer, name) for layer, group in enumerate(groups) for share in group for name in names
    }
    lasts = [count - 1 for count in depths]
    return sorted(
        spaces
        | {
            Space(lasts[1], lasts[0], name)
            for name in HEAD_SPACES
            if all(find_space(shape, last, name) for shape, last in zip(shapes, lasts, strict=True))
        }
    )
