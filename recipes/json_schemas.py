"""Write docs/json.md, what each command prints as JSON, from its records: python recipes/json_schemas.py."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from regraft.cli.found import Found
from regraft.cli.schemas import schemas

DOCUMENT = Path(__file__).parent.parent / "docs" / "json.md"
_INTRODUCTION = """\
# What commands print as JSON

`--json` (or `--format json`) prints one object on one line of stdout; words go to stderr, and a command that is refused
prints no object and ends with exit code 2. Later versions may add keys. The tables below are for people, the
[JSON Schemas](json-schemas.json) for programs: one file, a schema per command.
"""


def as_schemas() -> dict[str, Any]:
    """Give the JSON Schema of each command."""
    return {command: TypeAdapter(record).json_schema() for command, record in schemas().items()}


def written() -> dict[Path, str]:
    """Give the two documents."""
    parts = [_INTRODUCTION]
    for command, record in schemas().items():
        schema = TypeAdapter(record).json_schema()
        others = " Further keys may stand beside these." if schema.get("additionalProperties") is True else ""
        summary = (inspect.getdoc(record) or "").split("\n\n")[0].replace("\n", " ")
        parts += [f"## `regraft {command}`\n\n{summary}{others}\n\n{_table(record, schema)}"]
        for name, part in schema.get("$defs", {}).items():
            parts.append(f"Each `{name}`:\n\n{_table(_named(record, name), part)}")
    schemas_text = json.dumps(as_schemas(), indent=1, ensure_ascii=False) + "\n"
    return {DOCUMENT: "\n".join(parts), DOCUMENT.with_name("json-schemas.json"): schemas_text}


def _table(record: type, schema: dict[str, Any]) -> str:
    said = {} if issubclass(record, Found) else _attributes(record)
    rows = ["| key | type | |", "|---|---|---|"]
    for key, one in schema["properties"].items():
        rows.append(f"| `{key}` | {_type(one)} | {said.get(key) or one.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _named(record: type, name: str) -> type:
    module = inspect.getmodule(record)
    found: type = getattr(module, name)
    return found


def _attributes(record: type) -> dict[str, str]:
    """Read what a docstring says of each attribute."""
    text = (inspect.getdoc(record) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", said).replace("``", "`").replace("|", "\\|") for name, said in found}


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}" if "items" in schema else "list"
    return str(schema.get("type", "any"))


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
