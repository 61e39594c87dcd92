"""A report as one page of HTML that needs nothing else."""

from __future__ import annotations

from importlib.metadata import version

from .charts.scales import WIDTH
from .contents import Contents
from .groups import BASELINE
from .render import HTML, minus

_SHAPES = ("circle", "square", "diamond", "triangle", "cross")
_COLOURS = 6  # as many as the style sheet has
# How lines are drawn -> what of, beside the starts that colours tell apart.
_WAYS = (("line taught", "without labels"), ("line labelled", "with labels"), ("goal", "the teacher's best"))


def to_html(contents: Contents) -> str:
    """Write a report as a page: no script, no other file, nothing from the network."""
    refined = [line.row for setting in contents.settings for panel in setting.steps for line in panel.lines]
    starts = [start for start in dict.fromkeys([*contents.starts, *refined]) if start != BASELINE]
    styles = {start: f"c{i % _COLOURS}" for i, start in enumerate(starts)}
    shapes = {start: _SHAPES[i % len(_SHAPES)] for i, start in enumerate(starts)}
    page: str = HTML.get_template("page.html.j2").render(
        report=contents,
        heading=f"{contents.title}: {contents.subject}" if contents.title else contents.subject,
        styles={BASELINE: "base", **styles},
        shapes={BASELINE: "circle", **shapes},
        version=version("regraft"),
        minus=minus,
        width=WIDTH,
        ways=_WAYS,
        baseline=BASELINE,
        capital=_capital,
    )
    return page


def _capital(name: str) -> str:
    """Begin a name with a capital, unless it has capitals of its own, as mBERT has."""
    return name[:1].upper() + name[1:] if name.islower() else name
