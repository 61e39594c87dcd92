"""The documentation site is built without a network, and without a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import regraft
from regraft.cli.main import COMMANDS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    from sphinx.cmd.build import build_main

    assert build_main(["-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]) == 0
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    listed = re.findall(r"[\w/]+\.html", (tmp_path / "llms.txt").read_text())
    assert listed
    assert {*listed} <= pages
    said = (tmp_path / "reference" / "commands.html").read_text()
    assert all(f"regraft {name}" in said for name in COMMANDS)
    python = (tmp_path / "reference" / "python.html").read_text()
    documented = {match.rpartition(".")[2] for match in re.findall(r'id="(regraft\.[\w.]+)"', python)}
    assert {*regraft.__all__} - documented <= {"PortOptions", "RefineOptions"}  # on the page of options
