"""The application that commands register with, and how its help looks."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import App, Group, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import RegraftError
from ..schema import Options

if TYPE_CHECKING:
    from ..modules.module import Module


class _Stdout(Console):
    """Prints, or says why it cannot: the output may be a file on a disk that is full."""

    def print(self, *objects: Any, **how: Any) -> None:
        try:
            super().print(*objects, **how)
        except OSError as error:
            # Else what was not printed would be tried once more when Python ends, and said in its own words.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise RegraftError(f"cannot print: {error.strerror}; make room, and run the same again") from error


console = _Stdout(markup=False)  # paths and messages may hold brackets
errors = Console(stderr=True, markup=False)
results = _Stdout(markup=False)  # what programs read; the form of the output moves or silences `console` alone
held = ExitStack()
"""What a command holds until it ends, such as its output directory."""


class _Help:
    """Help in groups, a line for each option: its name, what it is, its default."""

    def __call__(self, console: Console, _options: Any, panel: Any) -> None:
        if not panel.entries:
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for entry in panel.entries:
            table.add_row(f"  {_named(entry)}", _described(entry, console))
        console.print(Text(str(panel.title), style="bold"))
        console.print(table)
        console.print()

    def render_usage(self, console: Console, _options: Any, usage: Any) -> None:
        console.print(Text("Usage: ", style="bold"), usage, sep="", end="\n")

    def render_description(self, console: Console, _options: Any, description: Any) -> None:
        console.print(_plain(description, console), "", sep="\n", markup=False, highlight=False)


def _named(entry: Any) -> str:
    value = f" {entry.metavar}" if entry.metavar and not entry.positional_label else ""
    names = [entry.positional_label] if entry.positional_label else [*entry.names, *entry.shorts]
    return ", ".join(names) + value


def _plain(description: Any, console: Console) -> Text:
    """Take a description as it stands, brackets included."""
    with console.capture() as capture:
        console.print(description, end="", width=1000, markup=False)
    return Text(capture.get().strip())


def _described(entry: Any, console: Console) -> Text:
    if not entry.description:
        return Text()
    text = _plain(entry.description, console)
    if entry.default not in (None, "False", "()"):
        text.append(f" [{entry.default}]", style="dim")
    return text


WHAT = Group("What", sort_key=1)
HOW = Group("How", sort_key=2)
DATA = Group("Data", sort_key=3)
TEXTS = Group("Texts", sort_key=4)
WHERE = Group("Where to run", sort_key=5)
OUTPUT = Group("Output", sort_key=6)


WELCOME = """\
regraft ports trained PEFT modules (LoRA, adapters) from one pretrained
transformer to another. Will it work? Port it. Finish it without labels:

  regraft plan MODULE --student MODEL
  regraft transfer MODULE --student MODEL --out PORTED
  regraft refine PORTED --teacher MODULE --texts FILE --out FINISHED

PEFT loads what it writes. It also trains, scores and compares modules, distills
students and runs whole experiments. On models that ship: regraft demo
All commands: regraft --help. Of one: regraft plan --help
"""


def application() -> App:
    """Make the application, without a command."""
    return App(
        name="regraft",
        version=lambda: f"regraft {version('regraft')}",
        help="Port trained PEFT modules from one pretrained transformer to another.\n\n"
        "Begin with: regraft plan MODULE --student MODEL\nIt loads no weights and shows who gets what.",
        console=console,
        help_format="plaintext",
        help_formatter=cast(Any, _Help()),
        suppress_keyboard_interrupt=False,  # `main` ends the command
        default_parameter=Parameter(negative=(), show_choices=False),
        group_arguments=WHAT,
        group_parameters=WHAT,
    )


def flat(group: Group) -> Parameter:
    """Make the options of a command of the fields of a record."""
    return Parameter(name="*", group=group)


Out = Annotated[Path, Parameter(group=OUTPUT)]
Replace = Annotated[bool, Parameter(group=OUTPUT, help="Replace the output where it exists.")]
Families = Annotated[Path | None, Parameter(group=WHERE, help="Records of model types: TYPE.yaml or a directory.")]
Verbose = Annotated[bool, Parameter(group=OUTPUT)]
TrustCode = Annotated[bool, Parameter(group=WHERE, help="Run Python code that the model brings along.")]
Revision = Annotated[str | None, Parameter(help="Of the module on the hub: branch, tag, commit.")]
PushTo = Annotated[str | None, Parameter(group=OUTPUT, help="Then push it to this repository of the hub.")]
Track = Annotated[tuple[str, ...], Parameter(group=OUTPUT, help="Show it: tensorboard, trackio, wandb; repeatable.")]


def words_of(options: Options) -> list[str]:
    """Write options that differ from the defaults as they stand on the command line."""
    words = []
    for field, value in options.changed().items():
        if isinstance(value, bool):
            metadata = type(options).model_fields[field].metadata
            words += [option(field)] if value else [name for one in metadata for name in one.negative]
        else:
            words += [option(field), ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return words


def base_words(teacher_model: str | None, model: str | None = None) -> list[str]:
    """Write the base models that a user named as they stand on the command line."""
    named = {"--teacher-model": teacher_model, "--model": model}
    return [word for name, base in named.items() if base is not None for word in (name, base)]


def push(words: Console, module: Module, name: str | None) -> None:
    """Push a module to a repository of the hub, if one is named, and print where it is."""
    if name is not None:
        words.print(f"Pushed it: {module.push_to_hub(name)}", soft_wrap=True)


def option(field: str) -> str:
    """Name the option that a field of a record is."""
    return f"--{field.replace('_', '-')}"
