"""Score a module, or a port of one, on the rows of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import set_seed

from ..errors import TaskError, unknown_choice
from ..modules.module import Module, base_of, load
from ..tasks.kinds import KINDS
from ..tasks.options import DataOptions, TaskOptions
from ..tasks.records import task_named
from ..tasks.sources import SPLITS
from .answering import check_scorer, score_answers
from .attachment import attach, check_head
from .labels import LabelOrder, known_order
from .options import EvaluateOptions, TrainOptions
from .trainer import first_rows, make_trainer, score_split


@dataclass(frozen=True)
class Evaluation:
    """Scores of a module, and what they rest on.

    Attributes:
        scores: by metric, most of them percent, see `tasks.records.metric_named`.
        order: the labels of its head, and what says in which order they are.
        constant: the most frequent label of the texts that were scored, and what always answering it would score;
            None where the score counts something else.
    """

    scores: dict[str, float]
    order: LabelOrder
    constant: tuple[str, float] | None

    def doubt(self, option: str = "") -> str:
        """Say that the module is worse than one label for all, where it is; else nothing.

        Args:
            option: where the user can put the labels of the head in another order, if anywhere.
        """
        name, score = list(self.scores.items())[-1]
        if self.constant is None or score >= self.constant[1]:
            return ""
        label, always = self.constant
        question = f": is the order of the labels right? ({option})" if option else ""
        return f"The {name} of {score:.2f} is below the {always:.2f} of always answering {label}{question}"


def evaluate(
    directory: str | Path,
    model: str | Path | None = None,
    *,
    data: TaskOptions | None = None,
    split: str = "test",
    options: EvaluateOptions | None = None,
    generate: int | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> dict[str, float]:
    """Score a module on a split of a task.

    Args:
        directory: the module. Where the names of its labels are known, they are matched with the task's by name; where
            nothing says in which order they are (see `labels.label_order`), `data` has to name them.
        model: its base model; by default the one its configuration names.
        data: the task and its rows.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        options: batch size and lengths.
        generate: of a language model, let it answer so many conversations of the split and score that, too, by
            ``exact_match`` and ``rouge_l``, see `answering.score_answers`.
        trust_remote_code: let Python code run that the model brings along.
        progress: whether to draw progress bars.

    Returns:
        The scores by metric, see `Evaluation`; `assess` says what they rest on, too.

    Raises:
        RegraftError: data, model or module that do not serve.
    """
    return assess(
        directory,
        model,
        data=data,
        split=split,
        options=options,
        generate=generate,
        trust_remote_code=trust_remote_code,
        progress=progress,
    ).scores


def assess(
    directory: str | Path,
    model: str | Path | None = None,
    *,
    data: TaskOptions | None = None,
    split: str = "test",
    options: EvaluateOptions | None = None,
    generate: int | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Score a module on a split of a task, and say in which order its labels were taken; arguments as for `evaluate`.

    Raises:
        RegraftError: data, model or module that do not serve.
    """
    data = data or DataOptions()
    if split not in SPLITS:
        raise TaskError(unknown_choice("split", split, SPLITS))
    if generate is not None:
        if not task_named(data.task).messages:
            raise TaskError(f"--generate lets a language model answer, expected --task lm instead of {data.task}")
        if generate < 1:
            raise TaskError(f"generate is {generate}, expected 1 or more")
        check_scorer()
    module = load(directory)
    check_head(module, task_named(data.task), fresh_head=True)
    base = base_of(module, model, trust_remote_code)
    loaded = data.load()
    order = known_order(module, base, loaded)
    loaded = loaded.ordered(order.labels)
    # What the Trainer wants to know besides changes no score.
    scored = TrainOptions(**dict(options or EvaluateOptions()))
    set_seed(scored.seed)
    adapted = attach(base, module, loaded.task)
    with TemporaryDirectory() as work:  # the Trainer wants one, and writes nothing there
        trainer = make_trainer(base, adapted, Path(work), scored, loaded, progress)
        scores = score_split(trainer, base, loaded, split, scored)
    if generate is not None:
        rows, how = first_rows(loaded, split, generate), (scored.max_length, scored.batch_size, progress)
        scores = {**score_answers(loaded.task, rows, trainer.model, base, *how), **scores}
    constant = KINDS[loaded.task.task_type].constant(loaded.task, first_rows(loaded, split, scored.max_eval))
    return Evaluation(scores, order, constant)


# How many rows choose a scale unless the user says: few, as they cost labels, and each is scored once per scale.
JUDGED = 100


@dataclass(frozen=True)
class Rows:
    """The validation split of a task's data.

    Attributes:
        data: the task and its rows.
        options: batch size and lengths.
        trust_remote_code: let Python code run that the model brings along.
    """

    data: TaskOptions
    options: EvaluateOptions
    trust_remote_code: bool = False

    def check(self, module: Module, head: str | None, labels: Sequence[str]) -> LabelOrder:
        """Check, before models run, that what becomes of a teacher's module can be scored.

        Args:
            module: the teacher's module.
            head: where the port's task head comes from, ``"teacher"`` or ``"fresh"``.
            labels: the labels that the port names.

        Returns:
            The labels in the order in which the rows of the port's head are taken.

        Raises:
            RegraftError: there is no such task, its data cannot be loaded, the module is for another, or nothing says
                in which order its labels are.
        """
        # Data of another task would only be found to lack columns.
        check_head(module, task_named(self.data.task), fresh_head=True)
        named = replace(module, provenance={"port": {"head": head}, "labels": [*labels]})
        loaded = self.data.load()
        order = known_order(named, None, loaded, "--teacher-labels")
        check_head(named, loaded.ordered(order.labels).task, fresh_head=head == "fresh")
        return order

    def scores(self, ported: Module, progress: bool = False) -> Evaluation:
        """Score a port."""
        with TemporaryDirectory() as directory:
            path = ported.save(Path(directory) / "module")
            return assess(
                path,
                data=self.data,
                split="validation",
                options=self.options,
                trust_remote_code=self.trust_remote_code,
                progress=progress,
            )

    def judge(self) -> Callable[[Module], float]:
        """Give what chooses a scale: the metric that trainings go by, its negative where less is better."""
        some = replace(self, options=self.options.model_copy(update={"max_eval": self.options.max_eval or JUDGED}))
        task = task_named(self.data.task)
        return lambda candidate: task.metric.gain(some.scores(candidate).scores[task.metrics[-1]], 0)
