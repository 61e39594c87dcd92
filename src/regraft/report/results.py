"""What a report is made of: one result per trained module."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ReportError, unknown_choice

# Scores are percent; correlations among them may be negative. Whatever is outside is no score.
LEAST, MOST = -100.0, 200.0


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
    """What was expected of a port before any training, see `fidelity.summary`.

    Attributes:
        module: share of the variance of what the module reads that it keeps; None unknown.
        head: the same of the task head; None without a ported one.
    """

    module: float | None = None
    head: float | None = None

    @property
    def decisive(self) -> float | None:
        """What the expectation goes by: the head where there is one."""
        return self.module if self.head is None else self.head


@dataclass(frozen=True)
class Point:
    """A validation score on the way."""

    step: int
    score: float


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
        score: on the test split, in percent.
        before: validation score before any training, in percent.
        curve: validation scores while training.
        alignment: of the start, where it was aligned.
        seconds: wall time of the training; None where unknown, as of one that was interrupted.
        expected: of the start, where it was sampled with covariances.
    """

    setting: str
    task: str
    metric: str
    language: str
    peft: str
    row: str
    score: float
    seed: int | None = None
    before: float | None = None
    curve: tuple[Point, ...] = ()
    alignment: tuple[Alignment, ...] = ()
    seconds: float | None = None
    expected: Expected | None = None


_NAMES = ("setting", "task", "metric", "peft", "row", "language")
_NEEDED = (*_NAMES, "score")
_EXPECTED = ("expected_module", "expected_head")
_COLUMNS = (*_NAMES, "seed", "score", "before", "seconds", "curve", *_EXPECTED)
_LONGEST = 1e9  # seconds, or steps of a training: more is a slip
_KNOWN = (*_COLUMNS, "table")  # the number of the table in a paper, which says nothing about a result


def write_results(results: Iterable[Result], path: Path) -> None:
    """Write results. A curve is ``step:score step:score ...``; alignments, which are nested, are left out."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for result in results:
            names = (getattr(result, name) for name in _NAMES)
            seed = "" if result.seed is None else result.seed
            curve = " ".join(f"{point.step}:{point.score}" for point in result.curve)
            numbers = ("" if number is None else number for number in (result.score, result.before, result.seconds))
            known = result.expected or Expected()
            expected = ("" if share is None else share for share in (known.module, known.head))
            writer.writerow([*names, seed, *numbers, curve, *expected])


def read_results(path: Path) -> list[Result]:
    """Read what `write_results` wrote, or any CSV that has at least the columns of `_NEEDED`, such as the paper's.

    Raises:
        ReportError: the file cannot be read, or its columns or values do not serve.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, list(reader.fieldnames or ()))
            return [_result(path, reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReportError(f"cannot read {path} as CSV: {error}; expected results, one line per module") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    for column in columns:
        if column not in _KNOWN:
            raise ReportError(f"{path}: {unknown_choice('column', column, _KNOWN)}")
    lacking = [column for column in _NEEDED if column not in columns]
    if lacking:
        raise ReportError(f"{path} lacks the column {lacking[0]}, expected {', '.join(_NEEDED)}; add it")
    if len(set(columns)) < len(columns):
        raise ReportError(f"{path} has a column twice in its first line, {', '.join(columns)}; remove one")


def _result(path: Path, number: int, line: dict[str, str]) -> Result:
    place = f"{path}, line {number}"
    if None in line or None in line.values():
        raise ReportError(f"{place} has more or fewer values than the first line has columns; mend or remove it")
    empty = [name for name in _NEEDED if not line[name].strip()]
    if empty:
        raise ReportError(f"{place} has no {empty[0]}, expected a value; fill it in or remove the line")
    curve = [point.partition(":") for point in line.get("curve", "").split()]
    seed, before, seconds = (line.get(name, "").strip() for name in ("seed", "before", "seconds"))
    shares = [_share(place, name, line.get(name, "").strip()) for name in _EXPECTED]
    setting, task, metric, peft, row, language = (line[name].strip() for name in _NAMES)
    return Result(
        setting=setting,
        task=task,
        metric=metric,
        language=language,
        peft=peft,
        row=row,
        score=_score(place, "score", line["score"]),
        seed=_whole(place, "seed", seed) if seed else None,
        before=_score(place, "before", before) if before else None,
        curve=tuple(Point(_step(place, step), _score(place, "curve", score)) for step, _, score in curve),
        seconds=_number(place, "seconds", seconds, 0, _LONGEST, "a number of seconds") if seconds else None,
        expected=None if shares == [None, None] else Expected(*shares),
    )


def _number(place: str, column: str, text: str, least: float, most: float, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise ReportError(f"{place} has {text!r} under {column}, expected {expected}; mend or remove the line")
    return number


def _score(place: str, column: str, text: str) -> float:
    return _number(place, column, text, LEAST, MOST, "a number in percent")


def _share(place: str, column: str, text: str) -> float | None:
    # What a wrong map keeps may be far below 0.
    return _number(place, column, text, -_LONGEST, 1, "a share of at most 1") if text else None


def _step(place: str, text: str) -> int:
    step = _whole(place, "curve", text)
    if not 0 <= step <= _LONGEST:
        raise ReportError(f"{place} has step {text} under curve, expected a number of steps; mend or remove it")
    return step


def _whole(place: str, column: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        expected = "step:score step:score ..." if column == "curve" else "a whole number"
        raise ReportError(f"{place} has {text!r} under {column}, expected {expected}; mend or remove it") from error
