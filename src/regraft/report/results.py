"""What a report is made of: one result per trained module."""

from __future__ import annotations

from dataclasses import dataclass

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
