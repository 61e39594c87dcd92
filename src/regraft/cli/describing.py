"""Look at what is known of a model type."""

from __future__ import annotations

from .app import Families, console, results
from .found import Families as FoundFamilies
from .found import FamilyRecord, MethodLine, Methods
from .output import Output, Printed


def info(source: str, /, *, families: Families = None, output: Printed = Output()) -> None:
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
    for name, value in facts.items() if output.form == "human" else ():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            if line is not None:
                console.print(f"{'' if number else name:16}{line}", soft_wrap=True, highlight=False)
    output.give(facts, facts["kind"])


def list_families(*, output: Printed = Output()) -> None:
    """List the model types that ship with a record.

    Other types get one from their modules, see: regraft family MODEL

    Example: regraft families
    """
    from ..models.families import FAMILIES

    sites = {name: [*record.places] for name, record in sorted(FAMILIES.items())}
    for name, places in sites.items() if output.form == "human" else ():
        console.print(f"{name:16}{', '.join(places)}", soft_wrap=True, highlight=False)
    output.give(FoundFamilies(families=sites), *sites)


def family(model: str, /, *, families: Families = None, output: Printed = Output()) -> None:
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
    if output.form == "json":
        output.give(FamilyRecord(model_type=base.config.model_type, derived=base.is_derived, record=record))
        return
    # A file, not words: whatever else is silent.
    results.out(f"# {base.config.model_type}, {origin}; name the file after the type.", highlight=False)
    results.out(yaml.safe_dump(record, sort_keys=False), end="", highlight=False)


def methods(*, output: Printed = Output()) -> None:
    """List the alignment methods: what each does and needs.

    Moments of texts, or of 'regraft sample', hold variances and covariances.

    Example: regraft transfer LORA --student S --texts t.txt --align lsa --out PORT
    """
    from ..alignment.methods import METHODS
    from .tables import print_table

    rows = [(name, method.summary, method.needs) for name, method in METHODS.items()]
    if output.form == "human":
        print_table(console, ("--align", "what it does", "needs"), rows)
    lines = [MethodLine(name=name, summary=summary, needs=needs) for name, summary, needs in rows]
    output.give(Methods(methods=lines), *METHODS)
