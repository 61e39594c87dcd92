"""What a PEFT type, a family or an alignment needs is a record in its table: no code elsewhere asks for one by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import regraft
from regraft.alignment.methods import METHODS
from regraft.models.families import FAMILIES
from regraft.modules.peft_types import PEFT_TYPES
from regraft.training.fresh import PEFT_KINDS

SOURCE = Path(regraft.__file__).parent
# A PEFT method of our own, the conversion of a foreign format, and what is taken where the user names no alignment.
TABLES = ("modules/bottleneck.py", "modules/adapterhub/", "port/options.py")


def names_in(node: ast.expr) -> set[str]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def branches(code: str) -> Iterator[str]:
    """List the comparisons with a name of the tables; alignments share theirs with much else."""
    of_models = {*PEFT_TYPES, *PEFT_KINDS, *FAMILIES}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare):
            text, names = ast.unparse(node), names_in(node)
            if names & of_models or ("align" in text and (names & METHODS.keys() or "AUTO" in text)):
                yield f"line {node.lineno}: {text}"


@pytest.mark.parametrize("test", ['peft == "lora"', 'kind in ("BOTTLENECK", "")', 'align != "none"', "AUTO == align"])
def test_a_branch_on_a_name_is_found(test: str) -> None:
    assert len(list(branches(f"if {test}:\n    pass"))) == 1
    assert not list(branches('if bias != "none" or precision == "auto" or kind in PEFT_TYPES:\n    pass'))


def test_nothing_outside_the_tables_asks_for_a_name_of_them() -> None:
    files = {str(path.relative_to(SOURCE)): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    assert len(files) > 100
    found = {name: list(branches(code)) for name, code in files.items() if not name.startswith(TABLES)}
    assert {name: lines for name, lines in found.items() if lines} == {}
