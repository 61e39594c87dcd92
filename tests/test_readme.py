"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.real
def test_the_ten_lines_run(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del minilm
    block = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL))
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert {path.name for path in tmp_path.iterdir()} == {"teacher-lora", "student", "student-lora"}


def test_links_within_the_project_lead_somewhere() -> None:
    for page in (README, *README.parent.glob("docs/**/*.md"), README.parent / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
