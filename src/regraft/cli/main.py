"""The entry point."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pydantic
from cyclopts import CycloptsError

from ..errors import RegraftError
from ..schema import sentence
from . import converting, demo, distilling, experiments, porting, reporting, training  # noqa: F401 (they register)
from .app import app, errors, option


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Before the libraries are imported that read them.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for name in ("transformers", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False, error_console=errors)
    except CycloptsError as error:
        _refuse(_said(error))
    except RegraftError as error:
        _refuse(str(error))


def _refuse(problem: str) -> None:
    errors.print("error: ", style="bold red", end="")
    errors.print(problem, soft_wrap=True, highlight=False)
    sys.exit(2)


def _said(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, pydantic.ValidationError):
        return sentence(cause, option)
    return " ".join(str(error).split())
