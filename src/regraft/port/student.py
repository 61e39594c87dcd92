"""The PEFT configuration of the student's module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import PlanError, first_line
from ..models.families import Family
from ..models.pretrained import Pretrained
from ..models.sites import Place, SiteShape, is_transposed
from ..modules.config import CONVERT, expected_tensors, modules_to_save_once, with_sizes
from ..modules.inventory import Holding
from ..modules.peft_types import PEFT_TYPES


def student_config(
    teacher: Mapping[str, Any],
    student: Pretrained,
    skeleton: Any,
    sites: Mapping[Place, SiteShape],
    holdings: Mapping[Place, Holding],
    head_class: str,
) -> dict[str, Any]:
    """Rewrite a teacher's PEFT configuration for the student; what is not about module names stays as it is.

    Args:
        teacher: the teacher's configuration.
        student: the model it goes to.
        skeleton: the same without weights.
        sites: the student's sites.
        holdings: what each site of the student takes over.
        head_class: how the class of its base model ends.
    """
    family = student.family
    config = {key: value for key, value in teacher.items() if key != "runtime_config"}
    config |= {
        "base_model_name_or_path": student.name,
        "revision": None,
        "inference_mode": True,
        "target_modules": _target_modules(skeleton, family, holdings),
    }
    config |= dict.fromkeys({"exclude_modules"} & config.keys())  # of which the sites say all; not every type has it
    if head_class in family.task_heads:
        # PEFT's own list lacks the first layer of DistilBERT's head.
        config["modules_to_save"] = [*(config.get("modules_to_save") or ()), *family.task_heads[head_class].modules]
    config |= modules_to_save_once(config)
    if config.get("auto_mapping"):
        config["auto_mapping"] = {
            "base_model_class": type(skeleton).__name__,
            "parent_library": type(skeleton).__module__,
        }
    method, config = PEFT_TYPES[config["peft_type"]], with_sizes(config)
    config |= dict.fromkeys(method.of_layers)
    if method.transposed:
        first = next(iter(holdings))
        config[method.transposed] = is_transposed(skeleton.get_submodule(sites[first].path))
    if method.gains_read:
        gains = {place: holding for place, holding in holdings.items() if holding.gains_what_is_read}
        config[method.gains_read] = _target_modules(skeleton, family, gains) if gains else []
    sizes = {sites[place].path: (holding.size, holding.alpha) for place, holding in holdings.items()}
    return config | method.patterns(config, sizes)


def expected_of_student(config: Mapping[str, Any], skeleton: Any) -> dict[str, tuple[int, ...]]:
    """Ask PEFT which tensors it expects of a student's module; arguments as for `expected_tensors`.

    Raises:
        PlanError: PEFT has no layers of this type for the student's.
    """
    try:
        return expected_tensors(config, skeleton)
    except (TypeError, ValueError, IndexError) as error:  # PEFT's checks of layers differ by type
        name = PEFT_TYPES[config["peft_type"]].name
        raise PlanError(
            f"PEFT cannot put {name} on a {type(skeleton).__name__} ({first_line(error)}); {CONVERT}"
        ) from error


def _target_modules(skeleton: Any, family: Family, holdings: Mapping[Place, Holding]) -> list[str] | str:
    """Name the wrapped modules: by their last names where these say it all, else by a regular expression."""
    last_names = sorted({family.places[site][1].rpartition(".")[2] for _, site in holdings})
    matched = [path for path, _ in skeleton.named_modules() if path.rpartition(".")[2] in last_names]
    if {family.parse(path) for path in matched} == set(holdings) and len(matched) == len(holdings):
        return last_names
    return family.pattern_of(holdings)
