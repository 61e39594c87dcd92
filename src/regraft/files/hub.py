"""Hub."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from ..errors import TaskError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


_PACKAGE = "package:"
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def expand(text: str) -> str:
    """Replace ``${NAME}`` by environment variables and ``package:NAME/PATH`` by where that package is installed.

    What is there then becomes an absolute path, for workers that were started elsewhere.

    Raises:
        TaskError: a variable that is not set, or a package that is not installed.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise TaskError(f"{text} uses the environment variable {found[1]}, which is not set; set it first")
        return os.environ[found[1]]

    text = _VARIABLE.sub(value, text)
    if not text.startswith(_PACKAGE):
        path = Path(text).expanduser()
        return str(path.absolute()) if path.exists() else text
    name, _, inside = text.removeprefix(_PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        raise TaskError(f"{text} lies in the package {name}, which is not installed here; install it first")
    return str(Path(spec.origin).parent / inside)
