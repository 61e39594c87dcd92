"""What an experiment file may hold. Strict: an unknown key is refused, and the nearest one is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from ..activations.pairing import PAIRINGS
from ..distillation import options as distilling
from ..errors import unknown_choice
from ..port.options import parse_start
from ..tasks.records import task_named
from ..training import options as training_options
from ..training.fresh import PEFT_KINDS
from ..training.options import PRESETS

KINDS = ("distill", "teacher", "sample", "transfer", "student")
TASK_TEXTS = "task"


class Strict(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, Mapping) else ():
            if key not in cls.model_fields:
                raise ValueError(unknown_choice("key", key, cls.model_fields))
        return given


class Overrides(Strict):
    """Fields of a settings record."""

    @model_validator(mode="before")
    @classmethod
    def _same_everywhere(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("precision") == "auto":
            raise ValueError("precision auto is another one on another machine; say float32, bfloat16 or float16")
        return given


def _overrides(name: str, record: type, without: Collection[str]) -> type[Overrides]:
    """Make a model of the fields of a settings record, none of them required."""
    hints = get_type_hints(record)
    wanted = {field.name: (hints[field.name] | None, None) for field in fields(record) if field.name not in without}
    return create_model(name, __base__=Overrides, **wanted)  # type: ignore[call-overload, no-any-return]


if TYPE_CHECKING:

    class TrainingOverrides(Overrides):
        """Fields of `training_options.Settings`, none of them required."""

    class TeacherOverrides(Overrides):
        """Likewise."""

    class DistillingOverrides(Overrides):
        """Fields of `distillation.settings.Settings`, none of them required."""

else:
    TrainingOverrides = _overrides("TrainingOverrides", training_options.Settings, {"seed", "head"})
    TeacherOverrides = _overrides("TeacherOverrides", training_options.Settings, {"head"})
    DistillingOverrides = _overrides("DistillingOverrides", distilling.Settings, ())


def _given(part: Strict, without: Collection[str] = ()) -> dict[str, Any]:
    return {key: value for key, value in part.model_dump(exclude=set(without)).items() if value is not None}


def _one_of(what: str, valid: Collection[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in valid:
            raise ValueError(unknown_choice(what, value, valid))
        return value

    return AfterValidator(check)


def _each_once(values: list[Any]) -> list[Any]:
    twice = [value for position, value in enumerate(values) if value in values[:position]]
    if twice:
        raise ValueError(f"{twice[0]} is listed twice")
    return values


_OneOrMore = Field(min_length=1)


class Training(TrainingOverrides):
    """How to train: a preset, fields of `settings.Settings` that replace its values, and those of the teachers.

    Attributes:
        preset: a key of `settings.PRESETS`.
        teacher: fields that differ for the teachers; their seed is 0 unless it is given here.
    """

    preset: Annotated[str | None, _one_of("preset", PRESETS)] = None
    teacher: TeacherOverrides = TeacherOverrides()

    def given(self) -> dict[str, Any]:
        """The fields of `settings.Settings` that are set here."""
        return _given(self, {"preset", "teacher"})

    def given_for_teachers(self) -> dict[str, Any]:
        """Those of the teachers."""
        return _given(self.teacher)


class Distilling(DistillingOverrides):
    """How the student is made of the teacher: texts, layers, and fields of `distillation.settings.Settings`.

    Attributes:
        texts: files or data sets of the hub, as for ``regraft distill``.
        column: what holds the texts of a table.
        text_split: split of a data set on the hub.
        max_texts: read so many texts of each, the first.
        layers: k for every k-th layer, or the teacher's layers to take.
    """

    texts: Annotated[list[str], _OneOrMore]
    column: str = "text"
    text_split: str = "train"
    max_texts: int | None = Field(default=None, ge=2)
    layers: int | list[int] = 2

    def given(self) -> dict[str, Any]:
        """The fields of `distillation.settings.Settings` that are set here."""
        return _given(self, {"texts", "column", "text_split", "max_texts", "layers"})


class Sampling(Strict):
    """What starts that align are fitted on.

    Attributes:
        texts: ``"task"``, the inputs of each task's own training rows; or a file or data set of the hub.
        column: what holds the texts of a table.
        text_split: split of a data set on the hub.
        max_texts: use so many texts, or training rows, the first.
        pairing: a key of `pairing.PAIRINGS`.
    """

    texts: str = TASK_TEXTS
    column: str = "text"
    text_split: str = "train"
    max_texts: int = Field(default=1000, ge=2)
    pairing: Annotated[str, _one_of("pairing", PAIRINGS)] = "offsets"


class Pair(Strict):
    """A teacher and its student.

    Attributes:
        teacher: directory, hub id, or ``package:NAME/PATH`` inside an installed package.
        student: likewise; or else `distill`.
        distill: how to make the student of the teacher first.
        starts: what the student's modules start from, see `starts.parse_start`.
        tasks: names of the tasks, all by default.
        sampling: for starts that align.
    """

    teacher: str
    student: str | None = None
    distill: Distilling | None = None
    starts: Annotated[list[str], _OneOrMore, AfterValidator(_each_once)]
    tasks: list[str] | None = None
    sampling: Sampling = Sampling()

    @field_validator("starts")
    @classmethod
    def _named(cls, starts: list[str]) -> list[str]:
        # In the one form of each name, so that two spellings of a start are one row.
        return _each_once([name if (start := parse_start(name)) is None else str(start) for name in starts])

    @model_validator(mode="after")
    def _one_student(self) -> Pair:
        if (self.student is None) == (self.distill is None):
            raise ValueError("expected one of student (a model) and distill (make it of the teacher first)")
        return self


class TaskData(Strict):
    """A task and its data.

    Attributes:
        task: a key of `tasks.records.TASKS`, by default the name that this entry has.
        languages: which parts of the data.
        data: as for ``regraft train --data``; by default the task's own data set on the hub.
        columns: name of a column of the task -> its name in the data.
        labels: names of the labels, instead of the task's.
        training: what differs for this task.
    """

    task: str | None = None
    languages: Annotated[list[str], _OneOrMore, AfterValidator(_each_once)]
    data: str | None = None
    columns: dict[str, str] | None = None
    labels: list[str] | None = None
    training: Training = Training()


class Resources(Strict):
    """What a cell takes of a cluster.

    Attributes:
        cpus: cores, and threads.
        gpus: of the machine's, a share of one or a whole number; the cell sees no others. Several are one process
            each, on any executor.
    """

    cpus: float = Field(default=1, gt=0, allow_inf_nan=False)
    gpus: float = Field(default=0, ge=0, allow_inf_nan=False)

    @field_validator("gpus")
    @classmethod
    def _whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("expected a share of one GPU, or a whole number of them")
        return gpus


class Experiment(Strict):
    """A grid: pairs x tasks x languages x kinds of module x starts x seeds.

    Attributes:
        name: of the results.
        pairs: name of a setting, such as ``matching`` -> its models and starts.
        tasks: name -> data.
        modules: kinds of module, of `starts.PEFT_KINDS`: a list, or kind -> what differs in its training.
        seeds: of the students' trainings.
        training: how to train.
        resources: kind of cell (of `KINDS`) -> what it takes of a machine.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    pairs: Annotated[dict[str, Pair], _OneOrMore]
    tasks: Annotated[dict[str, TaskData], _OneOrMore]
    modules: Annotated[dict[Annotated[str, _one_of("kind of module", PEFT_KINDS)], Training], _OneOrMore]
    seeds: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], _OneOrMore, AfterValidator(_each_once)] = [0]
    training: Training = Training()
    resources: dict[Annotated[str, _one_of("kind of cell", KINDS)], Resources] = {}

    @field_validator("modules", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        if not all(isinstance(kind, str) for kind in given):
            raise ValueError("expected a list of names, or a mapping: kind -> what differs in its training")
        return {kind: {} for kind in _each_once(given)}

    @model_validator(mode="after")
    def _tasks_exist(self) -> Experiment:
        for name, entry in self.tasks.items():
            task_named(entry.task or name)
        for pair in self.pairs.values():
            for name in pair.tasks or ():
                if name not in self.tasks:
                    raise ValueError(unknown_choice("task of a pair", name, self.tasks))
        return self
