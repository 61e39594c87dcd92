"""Text and JSON of files that anybody may have written: read in bounded pieces, and checked to be what they look like.

Every function raises OSError for what cannot be read, and ValueError for what it should not hold; who calls them says
what file it was.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_LINE = 1 << 24
"""Characters; a line of data that is longer is none."""
LARGEST = 1 << 28
"""Bytes of a file that is read as a whole."""


def read_whole(path: Path, encoding: str = "utf-8") -> str:
    """Read a text file."""
    size = check_regular(path)
    if size > LARGEST:
        raise ValueError(f"it has {size} bytes, expected {LARGEST} at most")
    return path.read_text(encoding=encoding)


def read_lines(path: Path, newline: str | None = "\n") -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file and their numbers, without reading ahead; each ends as it does in the file.

    Args:
        path: the file; a byte order mark at its beginning is left out.
        newline: what ends a line, as of `open`. By default line feeds alone: texts may hold other characters that
            Python counts as line boundaries.
    """
    check_regular(path)
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise ValueError(f"line {number} has more than {LONGEST_LINE} characters")
            yield number, line


def parse_json(text: str) -> Any:
    """Parse JSON whose strings can be written again."""
    try:
        content = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair is no character, but JSON can spell it
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds half a character, {error.object[error.start]!r}") from None
    return content


def check_regular(path: Path) -> int:
    """Check that it is a file, since reading a pipe or a device may never end, and give its size in bytes."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    return found.st_size


def can_be_named(source: str | os.PathLike[str]) -> bool:
    """Whether anything here may have that name: it may be longer than names can be, or of a user who is not there."""
    try:
        os.stat(Path(source).expanduser())  # noqa: PTH116 (which says more than exists)
    except (ValueError, RuntimeError):
        return False
    except OSError as error:
        return error.errno not in (errno.ENAMETOOLONG, errno.ELOOP)
    return True
