"""The entry point."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import datasets
from transformers.utils.logging import disable_progress_bar

from ..errors import RegraftError
from . import converting, demo, distilling, experiments, porting, reporting, training  # noqa: F401 (they register)
from .app import app, errors


def main() -> None:
    """Run the command line."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("transformers", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        app()
    except RegraftError as error:
        errors.print("error: ", style="bold red", end="")
        errors.print(str(error), soft_wrap=True, highlight=False)
        sys.exit(2)
