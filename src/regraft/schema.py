"""Strict records: what people write is checked once, where it is read, against one declaration.

A record of options is that declaration: its fields, defaults, bounds and one sentence of help each, which stands under
the field. The command line, the experiment file, the provenance and the report read the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Self, TypeVar

from cyclopts import Parameter
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import LONGEST, RegraftError, one_line, quoted, unknown_choice


class Strict(BaseModel):
    """A record that refuses what it does not know, and names the nearest key; frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, Mapping) else ():
            if key not in cls.model_fields:
                raise ValueError(unknown_choice("key", key, cls.model_fields))
        return given


class Options(Strict):
    """Options of one verb."""

    def over(self, base: Self) -> Self:
        """Take from `base` whatever was not said here."""
        return base.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})

    def changed(self) -> dict[str, Any]:
        """Give what differs from the defaults, as JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


Record = TypeVar("Record", bound=BaseModel)
Values = TypeVar("Values", bound=Iterable[Any])


def make(
    record: type[Record],
    given: Mapping[str, Any],
    error: Callable[[str], RegraftError] = RegraftError,
    called: Callable[[str], str] = str,
) -> Record:
    """Check values against a record.

    Args:
        record: the declaration.
        given: name of a field -> value.
        error: makes of a problem what to raise.
        called: how messages call a field, such as ``--batch-size``.

    Raises:
        RegraftError: what `error` makes, in one sentence.
    """
    try:
        return record.model_validate(dict(given))
    except ValidationError as problem:
        raise error(sentence(problem, called)) from problem


# pydantic's name of a type that was not found -> ours.
_KINDS: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object of names and values",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "an object of names and values",
    "string_type": "a text",
}


def sentence(error: ValidationError, called: Callable[[str], str] = str) -> str:
    """Say in a sentence what the first problem of a record is: its place, what was found, what was expected."""
    first = error.errors()[0]
    place = one_line(".".join(called(str(part)) for part in first["loc"]), 4 * LONGEST)
    found, context = first["input"], first.get("ctx", {})
    if first["type"] == "value_error":
        problem = first["msg"].removeprefix("Value error, ")
        return f"{place}: {problem}" if place else problem
    if first["type"] == "literal_error":
        field = str(first["loc"][-1])
        unknown = unknown_choice(field, found, [part.strip("' ") for part in _parts(context["expected"])])
        return unknown if place == called(field) else f"{place}: {unknown}"
    bounds = {
        "greater_than_equal": "{ge:.10g} or more",
        "greater_than": "a number above {gt:.10g}",
        "less_than_equal": "{le:.10g} or less",
        "less_than": "a number below {lt:.10g}",
        "finite_number": "a finite number",
    }
    if (bound := bounds.get(first["type"])) is not None:
        return f"{place} is {quoted(found)}, expected {bound.format(**context)}"
    if (kind := _KINDS.get(first["type"])) is not None:
        return f"{place} is {quoted(found)}, expected {kind}"
    shown = "" if isinstance(found, Mapping) else f" (found {quoted(found)})"
    return f"{place}: {first['msg']}{shown}"


def _parts(listed: str) -> list[str]:
    return listed.replace(" or ", ", ").split(", ")


def one_of(kind: str, valid: Collection[str]) -> AfterValidator:
    """Check that a name is a key of a table; the message lists them and names the nearest.

    Args:
        kind: what is chosen, e.g. ``"alignment"``.
        valid: the table.
    """

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in valid:
            raise ValueError(unknown_choice(kind, value, valid))
        return value

    return AfterValidator(check)


def each_once(values: Values) -> Values:
    """Check that a list names nothing twice.

    Raises:
        ValueError: it does.
    """
    seen: list[Any] = []
    for value in values:
        if value in seen:
            raise ValueError(f"{value} is listed twice")
        seen.append(value)
    return values


def names(value: Any) -> Any:
    """Read names that commas separate, in a string or, as the command line gives it, in a tuple of one string."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        (value,) = value
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


MOST = 2**31 - 1
"""What counts things is less than this, so that every library can hold it."""

Count = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy takes."""
Size = Annotated[int, Field(ge=1, le=1 << 16)]
"""A rank, or the width of a bottleneck."""
Length = Annotated[int, Field(ge=8, le=MOST)]
"""Of a text, in tokens."""

TOKEN = Parameter(n_tokens=1, converter=lambda _, tokens: tokens[0].value)
"""Of a field whose validator reads what stands on the command line."""

Names = Annotated[tuple[str, ...] | None, BeforeValidator(names)]
"""Names in order; on the command line, separated by commas."""
