"""The documentation site: Markdown, and a reference made of docstrings. ``make docs`` builds it without a network."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

project = "regraft"
release = installed("regraft")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "regraft"
html_extra_path = ["llms.txt"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
# Docstrings name other things of the code in backticks, as Markdown does; they are no links.
default_role = "literal"

COMMANDS = Path(__file__).parent / "reference" / "commands.md"


def write_commands(_app: Any) -> None:
    """Write the page of commands: what ``--help`` says of each."""
    from regraft.cli.main import COMMANDS as NAMES
    from regraft.cli.main import commands

    pages = ["# Commands", "", "What `regraft COMMAND --help` says.", ""]
    for name in NAMES:
        words = [*name.split(), "--help"]
        said = io.StringIO()
        with redirect_stdout(said):
            commands(words)(words, exit_on_error=False, result_action="return_value")
        pages += [f"## regraft {name}", "", "```text", said.getvalue().strip(), "```", ""]
    COMMANDS.write_text("\n".join(pages), encoding="utf-8")


def keep_first_line(_app: Any, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon in the line below a field for the field's type."""
    if what == "attribute":
        lines.insert(0, "")


def setup(app: Any) -> None:
    """Register with Sphinx."""
    app.connect("builder-inited", write_commands)
    app.connect("autodoc-process-docstring", keep_first_line, priority=400)  # before napoleon
