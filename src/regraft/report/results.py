"""What a report is made of: one result per trained module."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, WrapValidator

from ..errors import ReportError, first_line, unknown_choice
from ..files.plain import read_lines
from ..files.writing import write_text
from ..tasks.records import Metric, metric_named

# Scores are percent; correlations among them may be negative. Whatever is outside is no score.
LEAST, MOST = -100.0, 200.0
_LONGEST = 10**9  # seconds, or steps of a training: more is a slip


def _else(expected: str) -> WrapValidator:
    """Say what was expected where a value that is read does not serve."""

    def check(value: Any, valid: Callable[[Any], Any]) -> Any:
        try:
            return valid(value)
        except ValidationError as error:
            raise ValueError(expected) from error

    return WrapValidator(check)


def _possible(step: int) -> int:
    if not 0 <= step <= _LONGEST:
        raise ValueError("a number of steps")
    return step


def _points(curve: str) -> list[dict[str, str]]:
    parts = (point.partition(":") for point in curve.split())
    return [{"step": step, "score": score} for step, _, score in parts]


LONGEST_NAME = 200
# What results must be that are read from a file.
_Name = Annotated[str, Field(max_length=LONGEST_NAME), _else(f"a name of at most {LONGEST_NAME} characters")]
_Percent = Annotated[float, Field(ge=LEAST, le=MOST, allow_inf_nan=False), _else("a number in percent")]
# What a wrong map keeps may be far below 0.
_Share = Annotated[float, Field(ge=-_LONGEST, le=1, allow_inf_nan=False), _else("a share of at most 1")]
_Seconds = Annotated[float, Field(ge=0, le=_LONGEST, allow_inf_nan=False), _else("a number of seconds")]
_Step = Annotated[int, _else("step:score step:score ..."), AfterValidator(_possible)]


@dataclass(frozen=True)
class Alignment:
    """How well one pair of spaces was matched when the start of a module was ported.

    Attributes:
        student_layer: 0-based.
        teacher_layer: 0-based.
        space: its name, e.g. ``"query.in"``.
        assigned: mean correlation on the texts it was fitted on; None where the method measures none.
        held_out: the same on held-out texts.
        r2: share of the variance of the teacher's activations that the map predicts on held-out texts; None unknown.
    """

    student_layer: int
    teacher_layer: int
    space: str
    assigned: float | None
    held_out: float | None
    r2: float | None = None


@dataclass(frozen=True)
class Expected:
    """What was expected of a port before any training, see `port.forecast`.

    Attributes:
        module: share of the variance of what the module reads that it keeps; None unknown.
        head: the same of the task head; None without a ported one.
    """

    module: _Share | None = None
    head: _Share | None = None


@dataclass(frozen=True)
class Refined:
    """How a module was trained on its teacher's answers, without a label.

    Attributes:
        steps: that were taken.
        texts: that were learnt from.
        before: agreement with the teacher on held-out texts before, in percent.
        after: the same of what was kept.
    """

    steps: _Step
    texts: Annotated[int, Field(ge=0, le=_LONGEST), _else("a number of texts")]
    before: _Percent
    after: _Percent


@dataclass(frozen=True)
class Models:
    """Between which models modules go.

    Attributes:
        teacher: short name.
        student: likewise, or what it is.
    """

    teacher: _Name
    student: _Name


@dataclass(frozen=True)
class Point:
    """A validation score on the way."""

    step: _Step
    score: _Percent


@dataclass(frozen=True)
class Result:
    """One trained module.

    Attributes:
        setting: name of the pair of models, e.g. ``"matching"``.
        task: e.g. ``"ner"``.
        metric: e.g. ``"f1"``.
        language: e.g. ``"de"``.
        peft: kind of the module, e.g. ``"lora"``.
        row: ``"teacher"``, ``"student"`` (the baseline: a random start), or a transferred start such as ``"tm-skip"``.
        seed: of the training; None where unknown.
        score: on the test split, in percent unless `measured` says otherwise.
        before: validation score before any training, likewise.
        curve: validation scores while training; of a module that was refined that of what was kept, at the last step.
        alignment: of the start, where it was aligned.
        seconds: wall time of the training; None where unknown, as of one that was interrupted.
        expected: of the start, where it was sampled with covariances.
        refined: how it was trained without labels; None where it was trained with them.
        models: of its setting; None unknown.
    """

    setting: _Name
    task: _Name
    metric: _Name
    language: _Name
    peft: _Name
    row: _Name
    score: _Percent
    seed: Annotated[int, _else("a whole number")] | None = None
    before: _Percent | None = None
    curve: Annotated[tuple[Point, ...], BeforeValidator(_points)] = ()
    alignment: tuple[Alignment, ...] = ()
    seconds: _Seconds | None = None
    expected: Expected | None = None
    refined: Refined | None = None
    models: Models | None = None

    @property
    def measured(self) -> Metric:
        """How its scores are read."""
        return metric_named(self.metric)


_RESULT = TypeAdapter(Result)
_NEEDED = ("setting", "task", "metric", "peft", "row", "language", "score")
# A column for each attribute of what a result may have besides.
_NESTED = {
    f"{name}_{inside.name}": (name, inside.name)
    for name, record in (("expected", Expected), ("refined", Refined), ("models", Models))
    for inside in fields(record)
}
_COLUMNS = (*_NEEDED[:-1], "seed", "score", "before", "seconds", "curve", *_NESTED)
_KNOWN = (*_COLUMNS, "table")  # the number of the table in a paper, which says nothing about a result


def write_results(results: Iterable[Result], path: Path) -> None:
    """Write results. A curve is ``step:score step:score ...``; alignments, which are nested, are left out."""
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for result in results:
        curve = " ".join(f"{point.step}:{point.score}" for point in result.curve)
        nested = {column: getattr(getattr(result, name), inside, None) for column, (name, inside) in _NESTED.items()}
        writer.writerow({**vars(result), "curve": curve, **nested})
    write_text(path, table.getvalue())


def read_results(path: Path) -> list[Result]:
    """Read what `write_results` wrote, or any CSV that has at least the columns of `_NEEDED`, such as the paper's.

    Raises:
        ReportError: the file cannot be read, or its columns or values do not serve.
    """
    try:
        reader = csv.DictReader((line for _, line in read_lines(path, newline="")), strict=True)
        _check_columns(path, list(reader.fieldnames or ()))
        return [_result(f"{path}, line {reader.line_num}", line) for line in reader]
    except ReportError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise ReportError(
            f"cannot read {path} as CSV: {first_line(error)}; expected results, one line per module"
        ) from error


def _check_columns(path: Path, columns: list[str]) -> None:
    for column in columns:
        if column not in _KNOWN:
            raise ReportError(f"{path}: {unknown_choice('column', column, _KNOWN)}")
    lacking = [column for column in _NEEDED if column not in columns]
    if lacking:
        raise ReportError(f"{path} lacks the column {lacking[0]}, expected {', '.join(_NEEDED)}; add it")
    if len(set(columns)) < len(columns):
        raise ReportError(f"{path} has a column twice in its first line, {', '.join(columns)}; remove one")


def _result(place: str, line: Mapping[str, str]) -> Result:
    if None in line or None in line.values():
        raise ReportError(f"{place} has more or fewer values than the first line has columns; mend or remove it")
    values: dict[str, Any] = {column: value.strip() for column, value in line.items() if value.strip()}
    for column, (name, inside) in _NESTED.items():
        if column in values:
            values.setdefault(name, {})[inside] = values[column]
    try:
        return _RESULT.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        nested = "_".join(map(str, first["loc"]))
        column = nested if nested in _NESTED else str(first["loc"][0])
        if first["type"] == "missing":
            raise ReportError(f"{place} has no {column}, expected a value; fill it in or remove the line") from error
        expected = first["msg"].removeprefix("Value error, ")
        raise ReportError(
            f"{place} has {first['input']!r} under {column}, expected {expected}; mend or remove the line"
        ) from error
