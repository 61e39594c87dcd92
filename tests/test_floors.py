"""A module imports only from lower floors (the house plan in docs/design.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import regraft

ROOT = Path(regraft.__file__).parent

FLOORS = (
    {"errors", "axes", "seeding", "fingerprints", "distillation.losses"}
    | {"report.results", "micro.language", "micro.shipped"},
    {"roles", "families", "directories", "layers", "precision", "distillation.trainer", "distillation.texts"}
    | {"micro.english", "micro.french", "micro.german", "micro.spanish", "micro.facts"},
    {"moments", "models", "bottleneck", "modelcard", "tracking", "processes", "tasks.conllu", "tasks.records"}
    | {"micro.languages", "micro.sentences"},
    {"samples", "pairing", "options", "tasks.files", "tasks.encoding", "runs", "settings", "adapterhub.layouts"}
    | {"micro.data", "fit", "linear"},
    {
        "observation",
        "texts",
        "tasks.sources",
        "distillation.settings",
        "adapterhub.methods",
        "adapterhub.heads",
        "distillation.shallower",
    },
    {"adapterhub.conversion"},
    {"checkpoint"},
    {"methods"},
    {"sampling", "alignment", "inventory", "parts", "tasks.data", "distillation.directories"},
    {"student", "heads"},
    {"draft", "starts", "adapted"},
    {"plan"},
    {"transfer", "fidelity"},
    {"sequential"},
    {"account", "choices"},
    {"port", "training", "distillation.distill", "tables", "experiment.starts", "experiment.sources"},
    {"experiment.spec", "experiment.jobs", "experiment.store"},
    {"experiment.load", "experiment.grid", "experiment.launch"},
    {"experiment.work"},
    {"experiment.executors", "experiment.on_ray", "experiment.launched", "experiment.preflight", "report.collect"},
    {"experiment.run"},
    {"report.table"},
    {"report.grid", "report.csvs", "report.scales", "report.render"},
    {"report.paired", "report.layouts", "report.reference"},
    {"report.gains", "report.findings", "report.foretold", "report.curves", "report.dots"},
    {"report.contents"},
    {"report.page"},
    {"report.writing"},
    {"__init__"},
    {"cli.app", "cli.options", "cli.scoring"},
    {"cli.porting", "cli.training", "cli.converting", "cli.distilling", "cli.experiments", "cli.reporting"},
    {"cli.demo"},
    {"cli.main"},
    {"__main__"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py" or path.parent == ROOT
}


def imported(name: str, path: Path) -> set[str]:
    """Return the modules of regraft that a module imports, anywhere in its code."""
    package = name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = [*base, *(node.module or "").split(".")] if node.module else base
            names = [".".join(part for part in target if part)] if node.module else []
            found |= {*names, *(".".join([*filter(None, target), alias.name]) for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {"__init__" for alias in node.names if alias.name == "regraft"}
    return found & set(MODULES)


def test_every_module_has_a_floor() -> None:
    assert set(MODULES) == set(FLOOR)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_come_from_lower_floors(name: str) -> None:
    wrong = [other for other in imported(name, MODULES[name]) if FLOOR[other] >= FLOOR[name]]
    assert not wrong, f"{name} (floor {FLOOR[name]}) imports {wrong}"


def test_the_check_sees_imports() -> None:
    assert {"plan", "sampling", "models"} <= imported("port", MODULES["port"])
    assert "training" in imported("cli.training", MODULES["cli.training"])  # within a function
    assert "errors" in imported("tasks.data", MODULES["tasks.data"])
