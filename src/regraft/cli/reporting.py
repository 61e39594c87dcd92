"""Set out results as tables and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ReportError
from ..files.directories import check_writable
from ..report.collect import collect
from ..report.contents import Contents
from ..report.render import to_rich
from ..report.results import Result, read_results
from ..report.table import plural
from ..report.writing import FILES, save, work_out
from .app import ReplaceOpt, app, console


@app.command()
def report(
    path: Annotated[
        Path, typer.Argument(help="Directory of an experiment, or a CSV with one trained module per line.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory to write to. Default: report or report-EXPERIMENT in PATH, NAME-report beside NAME.csv."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Published results to set beside these. paper: 'Is Modularity Transferable?'")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Name of the experiment, where the directory holds several.")
    ] = None,
    replace: ReplaceOpt = False,
) -> None:
    """Report scores, gains over a random start, learning curves and alignments: a page, tables and a CSV."""
    if out is None and path.is_dir():
        out = path / (f"report-{experiment}" if experiment else "report")
    out = out or path.with_name(f"{path.stem}-report")
    check_writable(out, replace, FILES)
    title, results = _read(path, experiment)
    summary = work_out(results, title, reference)
    show(summary)
    page = save(summary, results, out, replace)
    console.print(f"Wrote {page}")


def show(summary: Contents) -> None:
    """Print what matters most of a report."""
    for setting in summary.settings:
        console.print(to_rich(setting.sections[0].tables[0]))
    for table in summary.summary:
        console.print(to_rich(table))
    for finding in summary.findings:
        console.print(f"{finding.setting}: {finding.verdict}. {' '.join(finding.sentences)}")
    if summary.missing:
        console.print(f"{plural(len(summary.missing), 'gap')} in the grid, listed on the page")


def _read(path: Path, experiment: str | None) -> tuple[str, list[Result]]:
    if path.is_dir():
        return collect(path, experiment)
    if experiment is not None:
        raise ReportError(
            f"{path} is no directory, so there is no experiment {experiment} in it; leave --experiment out"
        )
    return f"Results of {path.stem}", read_results(path)
