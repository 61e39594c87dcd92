"""The application that commands register with."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    epilog="Start with 'regraft plan MODULE --student MODEL': it loads no weights and shows who gets what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(markup=False)  # paths and messages may hold brackets
errors = Console(stderr=True, markup=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"regraft {version('regraft')}")
        raise typer.Exit


@app.callback()
def common(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Port trained PEFT modules (LoRA, bottleneck adapters) from one pretrained transformer to another."""
