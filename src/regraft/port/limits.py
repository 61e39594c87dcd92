"""What a PEFT type allows of a port: maps, averages, a factor, other widths, other base weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..alignment.methods import METHODS, Method
from ..models.sites import Place, SiteShape
from ..modules.axes import Whole
from ..modules.config import CONVERT
from ..modules.inventory import Holding
from ..modules.module import Module
from ..modules.peft_types import PEFT_TYPES
from .layers import Group
from .options import PortOptions

_ONE_TO_ONE = " or ".join(
    name for name, method in METHODS.items() if method.kind == "one-to-one" and method.needs_moments
)


def limits_refused(
    module: Module, method: Method, groups: Mapping[str, Sequence[Group]], options: PortOptions
) -> list[str]:
    """Say what of a port the module's PEFT type does not allow, and what to do instead.

    Args:
        module: the teacher's module.
        method: the alignment method.
        groups: per stack, and layer of the student in it, its shares of teacher layers.
        options: how the module is ported, settled.
    """
    factor = options.factor
    record = PEFT_TYPES[module.peft_type]
    bound, what = record.bound(module.config), f"{module.source} is of type {record.name}"
    mapped, averaged = not method.identity, any(len(group) > 1 for stack in groups.values() for group in stack)
    if bound:
        if mapped or averaged or factor != 1:
            return [f"{module.source} can only be copied as it is, layer by layer ({bound}); {CONVERT}"]
        return []
    problems = []
    if mapped and record.maps == "none":
        problems.append(f"{what}, which no map takes to other dimensions; copy it (--align none) or {CONVERT}")
    if mapped and record.maps == "one-to-one" and method.kind != "one-to-one":
        problems.append(
            f"{what}, which one-to-one maps alone take to other dimensions, and {options.align} is none; use --align "
            f"{_ONE_TO_ONE}, or {CONVERT}"
        )
    if averaged and not record.averages:
        problems.append(
            f"{what}, of which the mean over layers means nothing (it is not linear in its tensors); use --layers "
            f"skip, or {CONVERT}"
        )
    if factor != 1 and not record.scales:
        problems.append(f"{what}, which has no factor (it rotates what is there); leave out --scale, or {CONVERT}")
    if options.sequential and record.apart:
        problems.append(f"{what}, which cannot be silent while another layer is fitted; fit --apart")
    return problems


def mappable(module: Module) -> bool:
    """Tell whether any map takes a module to other dimensions."""
    record = PEFT_TYPES[module.peft_type]
    return record.maps == "any" and not record.bound(module.config)


def width_advice(module: Module) -> str:
    """Say what to do where widths differ and nothing maps them."""
    if mappable(module):
        return "use --align auto with --texts or --moments"
    if PEFT_TYPES[module.peft_type].maps == "one-to-one":
        return f"use --align {_ONE_TO_ONE} with --texts or --moments, or {CONVERT}"
    return CONVERT


def copy_advice(module: Module) -> str:
    """Say what to do where a copy means nothing."""
    return "map it with --texts or --moments" if mappable(module) else width_advice(module)


def widths_refused(
    holding: Holding, place: Place, student: SiteShape, teacher: Sequence[SiteShape], advice: str
) -> str:
    """Say why what belongs to both widths of a site does not fit the student's; empty where it does.

    Args:
        holding: what the teacher's module holds there.
        place: the student's layer, and the site.
        student: of the student's site.
        teacher: of the teacher's sites that it takes over.
        advice: what to do.
    """
    if not any(Whole() in role.axes for role in holding.tensors):
        return ""
    size_s = (student.out_width, student.in_width)
    for shape in teacher:
        size_t = (shape.out_width, shape.in_width)
        if size_t != size_s or shape.parts != student.parts:
            parts = " of other parts" if size_t == size_s else ""
            found = f"{_by(size_t)} in the teacher and {_by(size_s)}{parts} in the student"
            return f"{place[1]} is {found}, expected the same; {advice}"
    return ""


def shared_refused(
    module: Module,
    teacher: Mapping[Place, SiteShape],
    student: Mapping[Place, SiteShape],
    of_teacher: Mapping[Place, Holding],
    of_student: Mapping[Place, Holding],
) -> str:
    """Say why the tensors that all sites share would be others; empty where they are the same, or there are none."""
    record = PEFT_TYPES[module.peft_type]
    if not record.shared:
        return ""
    widest_t, widest_s = _widest(teacher, of_teacher), _widest(student, of_student)
    if widest_t == widest_s:
        return ""
    return (
        f"{module.source} is of type {record.name}, whose sites share matrices as wide as the widest of them, "
        f"{_by(widest_t)} on the teacher's and {_by(widest_s)} on the student's, expected the same; {CONVERT}"
    )


def _widest(sites: Mapping[Place, SiteShape], holdings: Mapping[Place, Holding]) -> tuple[int, int]:
    shapes = [sites[place] for place in holdings]
    return max(shape.out_width for shape in shapes), max(shape.in_width for shape in shapes)


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
