"""Look at what is known of a model type."""

from __future__ import annotations

import sys

from .app import Families, Json, console, print_json


def info(source: str, /, *, families: Families = None, as_json: Json = False) -> None:
    """Tell what a module, a model, a sample or a store is.

    Of a module: its method, sites, labels, what made it, and whether its tensors
    are those that were written. Loads no model's weights.

    Example: regraft info my-lora

    Args:
        source: A directory, or the hub id of a module or a model.
    """
    from ..models.families import register_family
    from .facts import facts_of

    register_family(families)
    facts = facts_of(source)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            if line is not None:
                console.print(f"{'' if number else name:16}{line}", soft_wrap=True, highlight=False)


def list_families() -> None:
    """List the model types that ship with a record.

    Other types get one from their modules, see: regraft family MODEL

    Example: regraft families
    """
    from ..models.families import FAMILIES

    for name, record in sorted(FAMILIES.items()):
        console.print(f"{name:16}{', '.join(record.places)}", soft_wrap=True, highlight=False)


def family(model: str, /, *, families: Families = None) -> None:
    """Print the record of a model's type: where its sites are.

    A type that ships none gets one from its modules, without weights. Mend it, and
    give the file to other commands with --families.

    Example: regraft family my-model > my_type.yaml

    Args:
        model: Directory or hub id of a model.
    """
    import yaml

    from ..models.families import register_family
    from ..models.pretrained import resolve

    register_family(families)
    base = resolve(model)
    record = base.family.model_dump(mode="json", exclude_defaults=True)
    origin = "derived from its modules" if base.is_derived else "as it ships"
    print(f"# {base.config.model_type}, {origin}; name the file after the type.")  # noqa: T201 (a file, not a message)
    yaml.safe_dump(record, sys.stdout, sort_keys=False)
