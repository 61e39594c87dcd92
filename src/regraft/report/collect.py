"""From an experiment's store to the results that a report is made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from ..errors import ReportError, TaskError, first_line, quoted
from ..experiment.grid import Number
from ..experiment.store import Store
from ..models.sites import SpacePair
from ..schema import MOST, sentence
from .results import LONGEST_NAME, Alignment, Expected, Models, Point, Refined, Result


def collect(directory: Path, experiment: str | None = None) -> tuple[str, list[Result]]:
    """Read the finished cells of an experiment.

    Args:
        directory: its store.
        experiment: its name; may be left out where the store holds one only.

    Returns:
        The experiment's name, and a result for each number of its tables that is there.

    Raises:
        TaskError: no store, no such experiment, or none of its trainings is finished.
        ReportError: another version of regraft wrote the store.
        ModuleFileError: the list of its cells is damaged.

    Warns:
        UserWarning: a cell is left out, since it, or its start, is not what was written.
    """
    store = Store(directory)
    try:
        index = _Index.model_validate(store.read_index(experiment))
    except ValidationError as error:
        raise ReportError(
            f"the experiment in {directory} was written by another version of regraft; run the experiment again "
            f"({sentence(error)})"
        ) from error
    name, numbers, pairs = index.experiment.name, index.numbers, index.experiment.pairs
    results = [_result(store, number, pairs.get(number.setting)) for number in numbers if _counts(store, number)]
    if not results:
        raise TaskError(f"none of the {len(numbers)} trainings of {name} is finished; run it first")
    return name, results


def _counts(store: Store, number: Number) -> bool:
    """Whether a number's cell is done, and sound as is that of its start."""
    if not store.done(number.key):
        return False
    for key in filter(None, (number.key, number.start_key)):
        if why := store.unsound(key):
            warnings.warn(
                f"{number.setting} {number.task}/{number.language} {number.peft} {number.row} is left out, since the "
                f"cell {key} is damaged ({why}); run the experiment again, which makes it again",
                stacklevel=3,
            )
            return False
    return True


@dataclass(frozen=True, config=ConfigDict(extra="forbid", str_max_length=LONGEST_NAME))
class _Number(Number):
    """A number as it is read."""


class _Pair(BaseModel):
    teacher: str
    student: str | None = None

    def models(self) -> Models:
        """Name both shortly; a student without a name was made of its teacher."""
        student = "a student distilled from it" if self.student is None else _short(self.student)
        return Models(_short(self.teacher), student)


class _Experiment(BaseModel):
    name: str = Field(max_length=LONGEST_NAME)
    pairs: dict[str, _Pair] = {}


class _Index(BaseModel):
    """What is read of what says which cells an experiment has."""

    experiment: _Experiment
    numbers: list[_Number]


def _short(model: str) -> str:
    """Give the last part of a name, or the one before it where that says no more than ``model``, as in packages."""
    *before, last = model.removeprefix("package:").rstrip("/").split("/")
    name = before[-1] if last == "model" and before else last
    return name.strip("${}")[:LONGEST_NAME]  # a variable may stand for all of it


def _result(store: Store, number: Number, pair: _Pair | None) -> Result:
    place = {name: value for name, value in vars(number).items() if name not in ("key", "start_key")}
    record = store.record(number.key)
    ported = store.record(number.start_key) if number.start_key else {}
    try:
        scores, refined = record["scores"], _refined(record.get("refined"))
        looks = record["curve"] if refined is None else [{"step": refined.steps, **scores["validation"]}]
        return Result(
            **place,
            score=float(scores["test"][number.metric]),
            before=float(scores["before training"][number.metric]),
            curve=tuple(_point(point["step"], point[number.metric]) for point in looks),
            alignment=tuple(filter(None, map(_alignment, ported.get("alignment", ())))),
            seconds=None if record.get("resumed") else float(record["seconds"]),  # those of the last attempt only
            expected=_expected(ported.get("expected")),
            refined=refined,
            models=None if pair is None else pair.models(),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ReportError(
            f"the record of cell {quoted(number.key)} in {store.root} is not what regraft writes "
            f"({type(error).__name__}: {first_line(error)}); remove that cell and run the experiment again"
        ) from error


def _point(step: Any, score: Any) -> Point:
    if not 0 <= int(step) <= MOST:
        raise ValueError(f"step {quoted(step)}")
    return Point(int(step), float(score))


def _expected(told: Mapping[str, Any] | None) -> Expected | None:
    return None if told is None else Expected(_number(told["module"]), _number(told["head"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _refined(told: Mapping[str, Any] | None) -> Refined | None:
    if told is None:
        return None
    before, after = (float(told["agreement"][when]["percent"]) for when in ("before", "after"))
    return Refined(int(told["steps_taken"]), int(told["texts"]["learnt"]), before, after)


def _alignment(score: Mapping[str, Any]) -> Alignment | None:
    measures = [_number(score.get(name)) for name in ("assigned", "held_out", "r2_read")]  # stores of old lack the last
    if all(measure is None for measure in measures):
        return None
    space = SpacePair.parse(score["space"])
    return Alignment(space.student_layer, space.teacher_layer, space.name, *measures)
