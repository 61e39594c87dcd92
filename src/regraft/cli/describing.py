"""Look at what is known of a model type."""

from __future__ import annotations

import sys

from .app import Families


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
