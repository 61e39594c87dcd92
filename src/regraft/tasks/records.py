"""What a task is: one record each. A new task is a new record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import TaskError, unknown_choice


@dataclass(frozen=True)
class Hub:
    """A data set on the hub, one part per language.

    Attributes:
        name: its id.
        config: name of the configuration, ``{language}`` in it replaced; None for the default one.
        splits: split -> name of the split there, ``{language}`` in it replaced.
    """

    name: str
    config: str | None
    splits: Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """How a score is read.

    Attributes:
        unit: what differences are counted in.
        less_is_better: which way is better.
        digits: how many to write.
        least_gap: the least difference that says something.
    """

    unit: str = "points"
    less_is_better: bool = False
    digits: int = 2
    least_gap: float = 1.0

    def gain(self, score: float, other: float) -> float:
        """Tell how much better a score is than another: positive where it is."""
        return other - score if self.less_is_better else score - other


_LOSS = Metric("nats", less_is_better=True, digits=4, least_gap=0.01)

# Those that are not percent.
_METRICS: Mapping[str, Metric] = {
    "loss": _LOSS,
    "perplexity": replace(_LOSS, unit="units"),
    "bits_per_byte": replace(_LOSS, unit="bits per byte"),
}
_PERCENT = Metric()


def metric_named(name: str) -> Metric:
    """Tell how a score of this name is read; one that no task of ours has is taken for percent."""
    return _METRICS.get(name, _PERCENT)


@dataclass(frozen=True)
class Task:
    """What a module is trained for.

    Attributes:
        summary: one line for people.
        task_type: PEFT's name of it, which says what head the model gets and, by `kinds.KINDS`, what is done with rows.
        inputs: names of the columns that hold the input: one of word lists, or one or two of texts.
        target: name of the column that holds the labels; empty where there are none.
        labels: their names in the order of the head's rows; empty where they are taken from the data.
        metrics: names of its scores; the last picks the best checkpoint, see `metric`.
        hub: where its data come from by default.
        paper_epochs: how long the paper trains.
        missing: texts that stand for a missing one in the task's data; such rows are left out, and counted. In the
            task's own data set on the hub empty texts do too.
    """

    summary: str
    task_type: str
    inputs: tuple[str, ...]
    target: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    hub: Hub | None = None
    paper_epochs: int = 10
    missing: tuple[str, ...] = ()
    messages: str = ""
    formats: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the task reads."""
        return tuple(name for name in (*self.inputs, self.messages, self.target) if name)

    @property
    def metric(self) -> Metric:
        """How the score that picks the best checkpoint is read."""
        return metric_named(self.metrics[-1])


_SPLITS = {"train": "train", "validation": "validation", "test": "test"}

TASKS: Mapping[str, Task] = {
    "ner": Task(
        "named entity recognition (WikiNEuRal)",
        "TOKEN_CLS",
        inputs=("tokens",),
        target="ner_tags",
        # The order of the hub's integer tags.
        labels=("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"),
        metrics=("precision", "recall", "f1"),
        hub=Hub(
            "Babelscape/wikineural",
            None,
            {"train": "train_{language}", "validation": "val_{language}", "test": "test_{language}"},
        ),
    ),
    "pi": Task(
        "paraphrase identification (PAWS-X)",
        "SEQ_CLS",
        inputs=("sentence1", "sentence2"),
        target="label",
        labels=("0", "1"),  # the data set's own names; 1 is a paraphrase
        metrics=("accuracy",),
        hub=Hub("google-research-datasets/paws-x", "{language}", _SPLITS),
        paper_epochs=30,
        missing=("NS",),  # sentences that nobody translated
    ),
    "nli": Task(
        "natural language inference (XNLI)",
        "SEQ_CLS",
        inputs=("premise", "hypothesis"),
        target="label",
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        hub=Hub("facebook/xnli", "{language}", _SPLITS),
    ),
    "classification": Task(
        "any labels of single texts, from data of yours",
        "SEQ_CLS",
        inputs=("text",),
        target="label",
        labels=(),
        metrics=("accuracy",),
    ),
    "lm": Task(
        "language modelling, from texts or conversations of yours",
        "CAUSAL_LM",
        inputs=("text",),
        target="",
        labels=(),
        metrics=("loss", "perplexity", "bits_per_byte"),
        messages="messages",
        formats=(".txt",),
    ),
}


def task_named(name: str) -> Task:
    """Return the record of a task.

    Raises:
        TaskError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise TaskError(unknown_choice("task", name, TASKS))
    return TASKS[name]
