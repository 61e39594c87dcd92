"""A port, planned or fitted, as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import ModuleFileError
from ..files.directories import obstacle
from ..files.writing import write_text
from ..modules.picture import port_picture
from .render import HTML

# What happens to tensors -> what that means, in the order of the page.
_MEANINGS = {
    "copied": "taken over as they are",
    "scaled": "taken over, times a factor",
    "averaged": "the mean over several layers of the teacher",
    "reordered": "taken over, rows in the student's order of labels",
    "mapped": "taken from the teacher's activation space to the student's",
    "fresh": "drawn at random, to be trained",
    "refused": "nothing can be done here, see above",
}
_MARK = '<meta name="generator" content="regraft">'


def check_page(path: Path) -> None:
    """Refuse a file for a page before any work is done.

    Raises:
        ModuleFileError: it is something that is not ours, or it cannot be written.
    """
    if path.is_file() and not _is_page(path):
        raise ModuleFileError(
            f"{path} exists, and regraft did not write it, so it is not replaced; choose another name"
        )
    if path.is_dir():
        raise ModuleFileError(f"{path} is a directory, expected the name of a file; choose another name")
    if why := obstacle(path.absolute().parent):
        raise ModuleFileError(f"cannot write to {path}, since {why}; choose another place")


def _is_page(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return _MARK in file.read(1000)


def write_port_page(
    path: Path, module: str, account: Mapping[str, Any], said: Sequence[str] = (), problems: Sequence[str] = ()
) -> None:
    """Write a page with a picture of who gets what.

    Args:
        path: the file; one that is there is replaced if it is such a page.
        module: what is ported, by its name.
        account: what `Plan.describe` gives or, where maps were fitted, the ported module's ``report``.
        said: sentences about the port.
        problems: why it is refused; none where it is not.

    Raises:
        ModuleFileError: as `check_page`.
    """
    check_page(path)
    counts = Counter(made["action"] for made in account["tensors"].values())
    page = HTML.get_template("port.html.j2").render(
        module=module,
        account=account,
        said=said,
        problems=problems,
        picture=Markup(port_picture(account) or ""),  # which escapes what it writes
        counts=[(action, counts[action], meaning) for action, meaning in _MEANINGS.items() if action in counts],
        left=sorted(Counter(account["left"].values()).items()),
        mark=Markup(_MARK),
        version=version("regraft"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
