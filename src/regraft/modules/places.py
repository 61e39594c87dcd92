"""From names of sites, as users give them, to the places in a model where a module can be."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..errors import TaskError, unknown_choice
from ..models.pretrained import Pretrained
from ..models.sites import ALL_LINEAR, Place, site_of
from .peft_types import roles_of


def places_at(
    sites: Iterable[str], peft_type: str, base: Pretrained, there: Collection[Place], given_by: str
) -> set[Place]:
    """List the places of some sites, in all layers.

    Args:
        sites: names, or ``all-linear`` for all that are linear layers.
        peft_type: of the module that is to be there.
        base: the model.
        there: all its places, as `models.sites.find_sites` lists them.
        given_by: the option, for messages.

    Raises:
        TaskError: a site that the model lacks, or that the PEFT type cannot be on.
    """
    known = {site for _, site in there if site in base.family.places and roles_of(peft_type, site)}
    linear = {site for site in known if not site_of(site).is_norm}
    wanted: set[str] = set()
    for site in sites:
        if site != ALL_LINEAR and site not in known:
            raise TaskError(f"{base.name}: {unknown_choice('site', site, {*known, ALL_LINEAR})} ({given_by})")
        wanted |= linear if site == ALL_LINEAR else {site}
    return {place for place in there if place[1] in wanted}
