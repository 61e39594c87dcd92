"""Run a command of those there are."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pydantic
from cyclopts import App, CycloptsError, UnusedCliTokensError

from ..errors import RegraftError, one_line, quoted
from ..schema import sentence
from .app import WELCOME, application, console, errors, held, option
from .output import Configuration, Output

# In the order of the work. A command's module is imported when it is called, or asked for its help; its first line
# stands here too, so that the list of commands needs none of them.
COMMANDS = {
    "plan": ("porting:plan", "Show who gets what and, with texts, whether it will help."),
    "transfer": ("porting:transfer", "Port a teacher's module to a student, for PEFT to load."),
    "refine": ("refining:refine", "Finish a port without labels, on its teacher's answers."),
    "sample": ("porting:sample", "Run two models over texts and keep moments for any port."),
    "methods": ("describing:methods", "List the alignment methods: what each does and needs."),
    "train": ("training:train", "Train a module, fresh or ported (--init), and score it."),
    "evaluate": ("training:evaluate", "Score a module on a task."),
    "compare": ("comparing:compare", "Compare what two modules answer, on texts without labels."),
    "distill": ("distilling:distill", "Distill a shallower student of a model on plain text."),
    "convert": ("converting:convert", "Convert a module to other formats, or into a whole model."),
    "info": ("describing:info", "Tell what a module, a model, a sample or a store is."),
    "families": ("describing:list_families", "List the model types that ship with a record."),
    "family": ("describing:family", "Print the record of a model's type: where its sites are."),
    "experiment plan": ("experiments:plan_experiment", "Show the cells of an experiment, and what is done of them."),
    "experiment run": ("experiments:run_experiment", "Carry out what is not done."),
    "experiment verify": ("verifying:verify_experiment", "Verify every file of every finished cell."),
    "report": ("reporting:report", "Report scores, gains, learning curves and alignments."),
    "demo": ("demo:demo", "See the whole paper in miniature, in about two minutes."),
}


_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes")


def commands(words: Sequence[str]) -> App:
    """Make the application with its commands; the one that is called is described by its own docstring.

    Args:
        words: of the command line.
    """
    app = application()
    experiments = App(name="experiment", help="Plan and run a grid of trainings from one file.", sort_key=7)
    app.command(experiments)
    for number, (name, (place, summary)) in enumerate(COMMANDS.items()):
        group, _, last = name.rpartition(" ")
        called = [*words[:2]][: len(name.split())] == name.split()
        (experiments if group else app).command(
            f"{__package__}.{place}", name=last, help=None if called else summary, sort_key=number
        )
    return app


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2, as is a full disk."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in _LIBRARIES:  # of what they do with each other, which no user can mend
        warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Before the libraries are imported that read them.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for name in ("transformers", "huggingface_hub", "httpx", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with held:
            _run(sys.argv[1:])
    except CycloptsError as error:
        _refuse(_said(error))
    except RegraftError as error:
        _refuse(str(error))
    except OSError as error:  # of other libraries, which write caches and temporary files
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        from ..files.writing import WritingError

        _refuse(str(WritingError(Path(error.filename or tempfile.gettempdir()), error)))


def _run(words: Sequence[str]) -> NoReturn:
    """Run a command in the form that it was asked to print in; of no words, say what there is."""
    if not words:
        console.out(WELCOME, end="", highlight=False)
        sys.exit(0)
    app, configuration = commands(words), Configuration()
    app.config = (configuration,)
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False, error_console=errors)
    output = bound.arguments.get("output", Output())
    output.begin()
    if output.print_config:
        configuration.print()
    else:
        command(*bound.args, **bound.kwargs)
    sys.exit(0)


def _refuse(problem: str) -> None:
    errors.print("error: ", style="bold red", end="")
    errors.print(one_line(problem, 2000), soft_wrap=True, highlight=False)
    sys.exit(2)


def _said(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, pydantic.ValidationError):
        return sentence(cause, option)
    if isinstance(error, UnusedCliTokensError):
        more = ", ".join(map(quoted, error.unused_tokens or ()))
        return f"found {more}, expected no more words; an option of several values is repeated for each (--help)"
    return " ".join(str(error).split())
