"""The pages lead where they say, and say what is so."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from regraft.models.families import FAMILIES

README = Path(__file__).parents[1] / "README.md"


def test_links_within_the_project_lead_somewhere() -> None:
    for page in (README, *README.parent.glob("docs/**/*.md"), README.parent / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_counts_the_model_types() -> None:
    assert f"[{len(FAMILIES)} types](docs/supported.md)" in README.read_text()


def test_the_drawing_of_the_idea_is_legible_on_a_phone() -> None:
    drawing = ElementTree.parse(README.parent / "docs" / "overview.svg")
    sizes = [float(size) for node in drawing.iter() if (size := node.get("font-size"))]
    width = float(drawing.getroot().get("viewBox", "").split()[2])
    assert min(sizes) * (400 - 2 * 16) / width >= 10  # pixels, beside the margins of a screen of 400
