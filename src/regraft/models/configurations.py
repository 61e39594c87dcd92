"""A model's configuration, read before anything else of it, and why something of a model cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..errors import ModelError, first_line, quoted
from ..files.hub import split_gguf
from ..files.plain import can_be_named
from .weights import check_files


def read_config(name: str, trusts_code: bool) -> Any:
    """Read the configuration of a model.

    Args:
        name: a directory or the id of a model, with a GGUF file behind a colon where it is one.
        trusts_code: let Python code run that the model names.

    Raises:
        ModelError: nothing of that name, or a directory that holds something else.
    """
    place, gguf = split_gguf(name)
    if not can_be_named(place):
        raise ModelError(f"found the model {quoted(name)}, expected a directory or the id of one on the hub")
    if gguf and Path(place).is_dir() and not (Path(place) / gguf).is_file():
        files = ", ".join(sorted(path.name for path in Path(place).glob("*.gguf"))) or "none"
        raise ModelError(f"{place} has no {gguf}, expected the name of a GGUF file that is there: {files}")
    if not gguf and Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ModelError(f"{name!r} is a directory without config.json, expected one that save_pretrained wrote")
    if Path(place).is_dir() or Path(place).is_absolute():
        check_files(Path(place))
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=trusts_code, **({"gguf_file": gguf} if gguf else {}))
    except ImportError as error:
        raise ModelError(
            f"{name} is in GGUF, which needs a package; install it (pip install 'regraft[gguf]')"
        ) from error
    except Exception as error:  # the hub's client raises those of many libraries
        raise ModelError(
            f"cannot read the configuration of model {name!r}, expected a local directory or a model id "
            f"that can be reached from here: {reason_of(error)}"
        ) from error


def reason_of(error: Exception, file: str = "config.json") -> str:
    """Say why something of a model cannot be loaded.

    Args:
        error: what transformers raised.
        file: of the model, which names code where that is the reason.
    """
    if "trust_remote_code" in str(error):
        return (
            f"its {file} asks for Python code that comes with the model (auto_map), and none is run; use a model that "
            "transformers knows, or read that code and allow it (--trust-remote-code)"
        )
    return first_line(error).rstrip(".")
