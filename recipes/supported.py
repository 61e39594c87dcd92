"""Write the tables of docs/supported.md from the records: python recipes/supported.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import transformers

from regraft.models.families import FAMILIES, Family
from regraft.models.sites import site_of, stack_of
from regraft.modules.axes import Whole
from regraft.modules.peft_method import PeftMethod
from regraft.modules.peft_types import PEFT_TYPES

DOCUMENT = Path(__file__).parent.parent / "docs" / "supported.md"
_TASKS = {
    "ForTokenClassification": "tokens",
    "ForSequenceClassification": "sequences",
    "ForQuestionAnswering": "questions",
}


def _sites(family: Family, stack: str) -> str:
    names = [name for name in family.places if stack_of(name) == stack and not site_of(name).is_norm]
    return ", ".join(name.rpartition(".")[2] for name in names)


def _with_texts(family: Family) -> str:
    others = sorted({inputs for name in family.places if (inputs := family.reads(name)) != "texts"})
    return "mapped" if not others else f"not what reads {', '.join(others)}"


def _has_class(name: str, ending: str, family: Family) -> bool:
    classes = getattr(transformers, f"AutoModel{ending}")._model_mapping
    return ending in family.task_heads and transformers.CONFIG_MAPPING[name] in classes


def families_table() -> str:
    """Give one row per model type and stack."""
    rows = ["| model type | sites of LoRA | bottleneck | task heads | with texts |", "|---|---|---|---|---|"]
    for name, family in sorted(FAMILIES.items()):
        heads = ", ".join(task for ending, task in _TASKS.items() if _has_class(name, ending, family))
        norm = "yes" if "output_norm" in family.sites else ""
        rows.append(f"| {name} | {_sites(family, '')} | {norm} | {heads} | {_with_texts(family)} |")
        rows += [f"| | {stack}: {_sites(family, stack)} | | | |" for stack in family.stacks]
    return "\n".join(rows)


_MAPS = {"any": "by any map", "one-to-one": "one to one", "none": "no: convert it"}


def _copied(record: PeftMethod) -> str:
    whole = any(Whole() in role.axes for rows in record.rows.values() for role in rows)
    where = ["layers are of one size"] if whole else []
    where += ["base weights are equal (elsewhere the same operation)"] if record.of_bases else []
    return f"exact where {' and '.join(where)}" if where else "exact"


def methods_table() -> str:
    """Give one row per PEFT type, and one per option that binds it to its base weights."""
    rows = [
        "| PEFT type | copied | mapped | layers averaged | `--scale` | refused options |",
        "|---|---|---|---|---|---|",
    ]
    for peft_type, record in PEFT_TYPES.items():
        averaged, scaled = ("yes" if given else "no: convert it" for given in (record.averages, record.scales))
        refused = ", ".join(f"`{option}`" for option in record.refused)
        refused += f"; `{record.init}`: {', '.join(record.refused_inits)}" if record.refused_inits else ""
        name = f"{record.name} (`{peft_type}`)"
        rows.append(f"| {name} | {_copied(record)} | {_MAPS[record.maps]} | {averaged} | {scaled} | {refused} |")
        rows += [
            f"| {record.name} with `{option}` | where rows of the base weights have equal norms | {_MAPS['none']} | "
            "no: convert it | no: convert it | |"
            for option in record.equal_bases
        ]
    return "\n".join(rows)


def tables() -> Mapping[str, str]:
    """Give the tables by the names that mark their places."""
    return {"families": families_table(), "methods": methods_table()}


def filled(document: str) -> str:
    """Put the tables where a document marks their places."""
    for name, table in tables().items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        document = place.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", document)
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
