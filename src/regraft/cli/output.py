"""What all commands share: the form of what they print, and options from a file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import App, ArgumentCollection, Parameter, Token
from cyclopts.argument import Argument
from pydantic import BaseModel, model_validator
from pydantic_core import to_json

from ..errors import RegraftError, first_line, unknown_choice
from ..files.plain import read_whole
from ..progress import show_progress
from ..schema import Options
from .app import OUTPUT, console, errors, flat, results

Form = Literal["human", "json", "quiet"]


class Output(Options):
    """How a command prints, and where it takes options from."""

    format: Literal["auto", "human", "json", "quiet"] = "auto"
    """auto, human, json, quiet (the result alone)."""
    as_json: Annotated[bool, Parameter(name="--json")] = False
    """Print one JSON object; words go to stderr."""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False
    """Print the result alone, and no progress."""
    config: Path | None = None
    """Options in YAML; what is given here wins."""
    print_config: bool = False
    """Print the options as YAML and do nothing."""

    @model_validator(mode="after")
    def _one_form(self) -> Output:
        asked = [name for name, said in (("json", self.as_json), ("quiet", self.quiet and not self.as_json)) if said]
        if self.format != "auto" and any(name != self.format for name in asked):
            raise ValueError(f"found --format {self.format} beside --{asked[0]}, expected one of them")
        return self

    @property
    def form(self) -> Form:
        """What is printed: tables and sentences, one JSON object, or the result alone."""
        if self.as_json or self.format == "json":
            return "json"
        return "quiet" if self.quiet or self.format == "quiet" else "human"

    def begin(self) -> None:
        """Send words where this form has them: to stdout beside tables, to stderr beside JSON, else nowhere."""
        console.stderr = self.form == "json"
        console.quiet = self.quiet or self.form == "quiet"
        show_progress(not console.quiet)

    def give(self, found: BaseModel | Mapping[str, Any], *values: object) -> None:
        """Print what came of a command, where it was not told already, in tables and sentences.

        Args:
            found: all of it, as one JSON object.
            values: what matters most of it, as lines.
        """
        if self.form == "json":
            # NaN is no JSON.
            results.out(to_json(found, inf_nan_mode="null").decode(), highlight=False)
        elif self.form == "quiet":
            for value in values:
                results.out(value, highlight=False)


Printed = Annotated[Output, flat(OUTPUT)]


def say_next(*words: object, why: str = "Next") -> None:
    """Name the command to go on with, and what for, on stderr."""
    if not console.quiet:
        errors.print(f"{why}: regraft {shlex.join(map(str, words))}", soft_wrap=True, highlight=False)


class Configuration:
    """Options that a file says, for those that the command line does not; in the end, all that were said.

    Attributes:
        said: name of an option -> what was said, as it would stand in a file.
    """

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}

    def __call__(self, _app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Fill in what a command line leaves open; cyclopts calls it with the options of the command.

        Raises:
            RegraftError: a file that cannot be read, or a key that is no option of the command.
        """
        named = {_key(argument): argument for argument in arguments if argument.parse and not argument.children}
        if (file := named.get("config")) is not None and file.tokens:
            path = file.tokens[-1].value
            left_open = {key: value for key, value in _read(Path(path), named).items() if not named[key].tokens}
            for key, value in left_open.items():
                for index, word in enumerate(_values(named[key], value)):
                    named[key].append(Token(keyword=f"--{key}", value=word, source=path, index=index))
        about = {"config", "print-config"}
        self.said = {key: _said(one) for key, one in named.items() if one.tokens and key not in about}

    def print(self) -> None:
        """Print what was said, for a file."""
        results.out(yaml.safe_dump(self.said, sort_keys=False, allow_unicode=True), end="", highlight=False)


def _key(argument: Argument) -> str:
    name: str = argument.names[0] if argument.names else argument.field_info.name
    return name.lstrip("-").replace("_", "-").lower()


def _read(file: Path, named: Mapping[str, Argument]) -> dict[str, Any]:
    try:
        text = read_whole(file)
    except (OSError, ValueError) as error:
        raise RegraftError(f"cannot read {file}: {first_line(error)}") from error
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RegraftError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise RegraftError(f"{file} holds no options, expected lines such as 'student: MODEL'")
    options = {str(key).replace("_", "-"): value for key, value in found.items() if value is not None}
    for key in options:
        if key not in named or key in ("config", "print-config"):
            choices = named.keys() - {"config", "print-config"}
            raise RegraftError(f"{file}: {unknown_choice('option', key, choices)}")
    return options


def _values(argument: Argument, value: Any) -> list[str]:
    """Write a value of a file as it would stand on the command line."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, (dict, list)) for part in parts):
        raise RegraftError(f"{_key(argument)} is {value!r} in the file, expected one value or a list of values")
    words = [str(part).lower() if isinstance(part, bool) else str(part) for part in parts]
    return [",".join(words)] if argument.parameter.n_tokens == 1 else words


def _said(argument: Argument) -> Any:
    values = [_value(token) for token in argument.tokens]
    return values if len(values) > 1 else values[0]


def _value(token: Token) -> Any:
    if isinstance(token.implicit_value, bool):
        return token.implicit_value
    if token.value in ("true", "false"):
        return token.value == "true"
    for kind in (int, float):
        with suppress(ValueError):
            if str(number := kind(token.value)) == token.value:
                return number
    return token.value
