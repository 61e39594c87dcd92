"""What an experiment file may hold. Strict: an unknown key is refused, and the nearest one is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from ..activations.options import Pairing, TextOptions
from ..distillation.options import DistillOptions, DistillTexts, RefineOptions
from ..errors import unknown_choice
from ..schema import MOST, Options, Seed, Strict, each_once, one_of
from ..tasks.records import task_named
from ..training.options import PRESETS, TrainOptions
from .starts import parse

KINDS = ("distill", "teacher", "sample", "transfer", "refine", "student")
TASK_TEXTS = "task"


class Overrides(Options):
    """Options of a training, of which what is set here counts."""

    @model_validator(mode="before")
    @classmethod
    def _same_everywhere(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("precision") == "auto":
            raise ValueError("precision auto is another one on another machine; say float32, bfloat16 or float16")
        return given

    def given(self) -> dict[str, Any]:
        """The options that are set here."""
        record = next(record for record in (DistillOptions, RefineOptions, TrainOptions) if isinstance(self, record))
        return {name: getattr(self, name) for name in self.model_fields_set if name in record.model_fields}


_OneOrMore = Field(min_length=1)


class TeacherTraining(Overrides, TrainOptions):
    """How to train teachers: `TrainOptions` but for the head, which is the start's."""

    head: ClassVar[None]  # type: ignore[misc]


class Training(TeacherTraining):
    """How to train: a preset, options that replace its values, and those of the teachers.

    Attributes:
        preset: a key of `training.options.PRESETS`.
        teacher: options that differ for the teachers; their seed is 0 unless it is given here.
    """

    seed: ClassVar[None]  # type: ignore[misc, assignment]  # there is a list of them
    preset: Annotated[str | None, one_of("preset", PRESETS)] = None
    teacher: TeacherTraining = TeacherTraining()


class ModuleKind(Training):
    """A kind of module, and what differs in its training.

    Attributes:
        peft: a key of `training.fresh.PEFT_KINDS`, by default the name that this entry has.
    """

    peft: str | None = None


class Distilling(Overrides, DistillOptions, DistillTexts):
    """How the student is made of the teacher: texts, and options of ``regraft distill``."""

    max_texts: int | None = Field(default=None, ge=2, le=MOST)
    """Read so many texts of each, the first."""


class Refining(Overrides, RefineOptions):
    """How students are refined on their teacher's answers, but for what the name of a start says."""

    steps: ClassVar[None]  # type: ignore[misc, assignment]
    grow: ClassVar[None]  # type: ignore[misc]
    seed: ClassVar[None]  # type: ignore[misc, assignment]
    max_texts: int | None = Field(default=None, ge=2, le=MOST)
    """Refine on the inputs of so many training rows, the first. Default: all."""


class Sampling(TextOptions):
    """What starts that align are fitted on.

    Attributes:
        texts: ``"task"``, the inputs of each task's own training rows; or a file or data set of the hub.
        max_texts: use so many texts, or training rows, the first.
        pairing: which tokens go together.
    """

    texts: str = TASK_TEXTS
    max_texts: int = Field(default=1000, ge=2, le=MOST)
    pairing: Pairing = "offsets"


class Pair(Strict):
    """A teacher and its student.

    Attributes:
        teacher: directory, hub id, or ``package:NAME/PATH`` inside an installed package.
        student: likewise; or else `distill`.
        distill: how to make the student of the teacher first.
        starts: what the student's modules start from, see `starts.parse`.
        tasks: names of the tasks, all by default.
        sampling: for starts that align.
    """

    teacher: str
    student: str | None = None
    distill: Distilling | None = None
    starts: Annotated[list[str], _OneOrMore, AfterValidator(each_once)]
    tasks: list[str] | None = None
    sampling: Sampling = Sampling()

    @field_validator("starts")
    @classmethod
    def _named(cls, starts: list[str]) -> list[str]:
        # In the one form of each name, so that two spellings of a start are one row.
        return each_once([str(parse(name)) for name in starts])

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
    languages: Annotated[list[str], _OneOrMore, AfterValidator(each_once)]
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
        modules: kinds of module, a list of names; or name -> what differs in its training.
        seeds: of the students' trainings.
        training: how to train.
        refining: how to refine, without labels.
        resources: kind of cell (of `KINDS`) -> what it takes of a machine.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    pairs: Annotated[dict[str, Pair], _OneOrMore]
    tasks: Annotated[dict[str, TaskData], _OneOrMore]
    modules: Annotated[dict[str, ModuleKind], _OneOrMore]
    seeds: Annotated[list[Annotated[Seed, Field(strict=True)]], _OneOrMore, AfterValidator(each_once)] = Field(
        default_factory=lambda: [0]
    )
    training: Training = Training()
    refining: Refining = Refining()
    resources: dict[Annotated[str, one_of("kind of cell", KINDS)], Resources] = Field(default_factory=dict)

    @field_validator("modules", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        if not all(isinstance(kind, str) for kind in given):
            raise ValueError("expected a list of names, or a mapping: kind -> what differs in its training")
        return {kind: {} for kind in each_once(given)}

    def peft(self, name: str) -> str:
        """Tell what an entry of `modules` is: a key of `training.fresh.PEFT_KINDS`."""
        return self.modules[name].peft or name

    @model_validator(mode="after")
    def _all_exist(self) -> Experiment:
        from ..training.fresh import PEFT_KINDS  # which imports PEFT

        for name in self.modules:
            if self.peft(name) not in PEFT_KINDS:
                raise ValueError(unknown_choice("kind of module", self.peft(name), PEFT_KINDS))
        for name, entry in self.tasks.items():
            task_named(entry.task or name)
        for pair in self.pairs.values():
            for name in pair.tasks or ():
                if name not in self.tasks:
                    raise ValueError(unknown_choice("task of a pair", name, self.tasks))
        return self
