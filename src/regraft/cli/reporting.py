"""Set out results as tables and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..errors import ReportError, quoted
from .app import OUTPUT, Replace, console, held
from .found_grids import FindingLine, Reported
from .output import Output, Printed

if TYPE_CHECKING:
    from ..report.contents import Contents
    from ..report.results import Result


def report(
    path: Path,
    /,
    *,
    reference: str | None = None,
    experiment: str | None = None,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    replace: Replace = False,
    output: Printed = Output(),
) -> None:
    """Report scores, gains, learning curves and alignments.

    Writes a page, its tables and a CSV to report or report-EXPERIMENT in PATH, or
    to NAME-report beside NAME.csv.

    Example: regraft report results/demo

    Args:
        path: Directory of an experiment, or CSV: a line per module.
        reference: Published results to set beside: paper.
        experiment: Name, where the directory holds several.
        out: Directory. Default: as above.
    """
    from ..files.directories import claimed
    from ..files.plain import can_be_named
    from ..report.contents import contents
    from ..report.writing import FILES, save

    if not can_be_named(path):
        raise ReportError(f"found {quoted(str(path))}, expected the directory of an experiment, or a CSV")
    if out is None and path.is_dir():
        out = path / (f"report-{experiment}" if experiment else "report")
    out = out or path.with_name(f"{path.stem}-report")
    held.enter_context(claimed(out, replace, FILES))
    title, results = _read(path, experiment)
    summary = contents(results, title, reference)
    show(summary)
    page = save(summary, results, out, replace)
    console.print(f"Wrote {page}", soft_wrap=True)
    output.give(reported(summary, page), page)


def reported(summary: Contents, page: Path) -> Reported:
    """Give what a report says as a record."""
    said = [
        FindingLine(setting=one.setting, verdict=one.verdict, sentences=[*one.sentences]) for one in summary.findings
    ]
    return Reported(page=str(page), findings=said, gaps=[*summary.missing])


def show(summary: Contents) -> None:
    """Print what matters most of a report."""
    from ..report.render import to_rich
    from ..report.table import plural

    for table in (*(setting.sections[0].tables[0] for setting in summary.settings), *summary.summary):
        console.print(*to_rich(table, console.width), "", sep="\n")
    for finding in summary.findings:
        console.print(f"{finding.setting}: {finding.verdict}. {' '.join(finding.sentences)}", soft_wrap=True)
    if summary.missing:
        console.print(f"{plural(len(summary.missing), 'gap')} in the grid, listed on the page")


def _read(path: Path, experiment: str | None) -> tuple[str, list[Result]]:
    from ..report.collect import collect
    from ..report.results import read_results

    if path.is_dir():
        return collect(path, experiment)
    if experiment is not None:
        raise ReportError(
            f"{path} is no directory, so there is no experiment {experiment} in it; leave --experiment out"
        )
    return f"Results of {path.stem}", read_results(path)
