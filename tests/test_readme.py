"""The pages lead where they say, and say what is so."""

from __future__ import annotations

import re
from pathlib import Path

from regraft.models.families import FAMILIES

README = Path(__file__).parents[1] / "README.md"


def test_links_within_the_project_lead_somewhere() -> None:
    for page in (README, *README.parent.glob("docs/**/*.md"), README.parent / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_counts_the_model_types() -> None:
    assert f"[{len(FAMILIES)} types](docs/supported.md)" in README.read_text()
