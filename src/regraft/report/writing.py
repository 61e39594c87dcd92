"""Write a report: a page for people, tables for papers, and the results for programs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..files.directories import new_directory
from ..files.writing import write_text
from .contents import Contents, contents
from .page import to_html
from .render import to_csv, to_latex, to_markdown
from .results import Result, write_results

PAGE = "report.html"
FILES = (PAGE, "tables.md", "tables.tex", "tables.csv", "results.csv")


def write(
    results: Iterable[Result],
    out: str | os.PathLike[str],
    title: str = "Results",
    reference: str | None = None,
    replace: bool = False,
) -> Path:
    """Write a report into a new directory.

    Args:
        results: one per trained module, in any order.
        out: the directory; it appears whole or not at all.
        title: what was done.
        reference: published results to set beside them: ``"paper"``, or none.
        replace: whether to replace a report that is there.

    Returns:
        The path of the page.

    Raises:
        ReportError: there are no results, some contradict each other, or the reference is not known.
        ModuleFileError: the directory exists and may not be replaced, or cannot be written.
    """
    results = list(results)
    return save(contents(results, title, reference), results, out, replace)


def save(report: Contents, results: Iterable[Result], out: str | os.PathLike[str], replace: bool = False) -> Path:
    """Write a report that was worked out already, with the results it was made of; as `write`.

    Raises:
        ModuleFileError: the directory exists and may not be replaced, or cannot be written.
    """
    with new_directory(out, replace, FILES) as directory:
        write_text(directory / PAGE, to_html(report))
        write_text(directory / "tables.md", "\n".join(map(to_markdown, report.tables)))
        latex = "% needs \\usepackage{booktabs}\n\n" + "\n".join(map(to_latex, report.tables))
        write_text(directory / "tables.tex", latex)
        write_text(directory / "tables.csv", to_csv(report.tables))
        write_results(results, directory / "results.csv")
    return Path(out) / PAGE
