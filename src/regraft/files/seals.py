"""JSON files that tell whether they are what was written: they hold a hash of the rest of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModuleFileError
from .fingerprints import hash_rows
from .reading import read_json

_SEAL = "seal"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is to be written: the content, and its hash under ``"seal"``."""
    return {**content, _SEAL: hash_rows(dict(content))}


def read_sealed(path: Path, older: Collection[str]) -> dict[str, Any]:
    """Read a file whose content was sealed.

    Args:
        path: of the file.
        older: keys of which one may consist that was written before there were seals. Any other key needs a seal, so
            that one whose name is damaged does not make a file an older one.

    Returns:
        The content without its seal.

    Raises:
        ModuleFileError: it cannot be read, or it is not what was written.
    """
    content = read_json(path)
    if isinstance(content, dict):
        seal = content.pop(_SEAL, None)
        if seal == hash_rows(content) or (seal is None and content.keys() <= set(older)):
            return content
    raise ModuleFileError(f"{path} is damaged, expected the content that its seal is of")
