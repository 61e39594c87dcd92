"""What commands print as JSON, a record each; `recipes/json_schemas.py` writes docs/json.md from them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Found(BaseModel):
    """What came of a command."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="forbid")


class Tensor(Found):
    """A tensor that the student needs."""

    name: str
    """As in the student's module."""
    layer: int | None
    """Of the student; null in a task head, and of what all layers share."""
    site: str | None
    """Where it sits in the layer; null likewise."""
    action: str
    """What happens: copied, mapped, averaged, fresh and others."""


class Verdict(Found):
    """How good a port is."""

    sentence: str
    """For people."""
    comparison: dict[str, Any] | None
    """As `regraft compare` prints it, on held-out texts; null where no module could be asked."""


class Planned(Found):
    """A port that is allowed; one that is refused is an error."""

    teacher: str
    """Model that the module was trained on."""
    student: str
    """Model that it goes to."""
    relation: str | None
    """How they are related: same, cut, distilled, related, unrelated or unknown."""
    tensors: list[Tensor]
    """All that the student needs."""
    left: dict[str, str]
    """Teacher's tensor that goes nowhere: why."""
    head: str | None
    """The task head: teacher or fresh; null without one."""
    report: dict[str, Any] | None = None
    """What the port would say of itself (as `port` in regraft.json); null without texts, moments and data."""
    verdict: Verdict | None = None
    """Null likewise, and where nothing can be foretold."""
    scores: dict[str, float] | None = None
    """By metric, on the validation split, before any training; null without data."""


class Ported(Found):
    """A port that was written."""

    out: str
    """Its directory."""
    hash: str
    """Of its tensors."""
    report: dict[str, Any]
    """As `port` in regraft.json."""
    verdict: Verdict | None
    """Null with --refine, and where nothing can be foretold."""
    refinement: dict[str, Any] | None
    """As `regraft refine` prints it; null without --refine."""


class Sampled(Found):
    """A sample that was written."""

    out: str
    """Its directory."""
    teacher: str
    """One model."""
    student: str
    """The other."""
    spaces: int
    """Pairs of spaces with moments."""
    pairs: int
    """Pairs of tokens."""
    paired_tokens: int
    """Tokens of the student in them."""
    student_tokens: int
    """All tokens of the student."""


class Refined(Found):
    """A refinement, as `refinement` in regraft.json, where there are more keys."""

    model_config = ConfigDict(extra="allow")

    out: str
    """Directory of the module."""
    teacher: str
    """Who answered."""
    metric: str
    """What agreement counts."""
    agreement: dict[str, Any]
    """`before` and `after`, each with `percent`, `interval` and `divergence`, on held-out texts."""
    texts: dict[str, Any]
    """How many were `learnt` from, and `held_out`; their `hash`."""
    step: int
    """The step that was kept; 0 is the start."""
    steps_taken: int
    """All steps."""


class MethodLine(Found):
    """An alignment method."""

    name: str
    """What --align calls it."""
    summary: str
    """What it does."""
    needs: str
    """nothing, variances or covariances."""


class Methods(Found):
    """The alignment methods."""

    methods: list[MethodLine]
    """All of them."""


class Trained(Found):
    """A training, as `training` in regraft.json, where there are more keys."""

    model_config = ConfigDict(extra="allow")

    out: str
    """Directory of the module."""
    model: str
    """Its base."""
    task: str
    """What it was trained on."""
    step: int
    """The step that was kept; 0 is the start."""
    scores: dict[str, dict[str, float]]
    """`before training`, `validation` and `test`, each by metric."""


class Evaluated(Found):
    """Scores of a module."""

    module: str
    """What was scored."""
    split: str
    """On what."""
    scores: dict[str, float]
    """By metric, most of them in percent."""
    order: dict[str, Any]
    """`labels` in the order of the rows of the head, and what they are `said_by`."""
    constant: tuple[str, float] | None
    """The most frequent label, and what always answering it scores; null of words and of language models."""


class HarnessLine(Found):
    """A score of lm-evaluation-harness."""

    task: str
    """Its name."""
    metric: str
    """With its filter: `acc,none`."""
    base: float
    """Of the base model."""
    module: float
    """With the module on it."""
    error: float | None
    """Standard error of the latter."""
    more_is_better: bool | None
    """Null where the harness does not say."""


class Harnessed(Found):
    """Scores of lm-evaluation-harness (`regraft evaluate --harness`)."""

    module: str
    """What was scored."""
    harness: list[HarnessLine]
    """A line per task and metric."""


class Distilled(Found):
    """A student that was written."""

    out: str
    """Its directory."""
    teacher: str
    """Model that it was cut from."""
    layers: list[int]
    """Of the teacher."""
    before: dict[str, float]
    """Losses on held-out text."""
    after: dict[str, float]
    """Likewise."""


class Converted(Found):
    """A module that was converted."""

    out: str
    """Directory of the outcome."""
    to: str
    """peft, adapterhub, lora, gguf or merged."""
    converted: dict[str, Any] | None
    """With --to lora how near it is: `mean_error` and `max_error`, relative, and `errors` by layer."""


class Told(Found):
    """What a module, a model, a sample or a store is: facts as `regraft info` lists them, null where none is known."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """module, base model, sample or store of results."""
    source: str
    """What was asked about."""


class Families(Found):
    """The model types that ship with a record."""

    families: dict[str, list[str]]
    """Model type: its sites."""


class FamilyRecord(Found):
    """The record of a model type."""

    model_type: str
    """As transformers calls it."""
    derived: bool
    """Whether it was derived from the modules of the model; else it ships."""
    record: dict[str, Any]
    """As in a file for --families."""
