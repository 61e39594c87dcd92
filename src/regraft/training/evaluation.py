"""Score a module, or a port of one, on labelled rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import set_seed

from ..errors import ModuleFileError, TaskError, unknown_choice
from ..models.pretrained import resolve
from ..modules.module import Module, load
from ..tasks.options import DataOptions, TaskOptions
from ..tasks.records import task_named
from ..tasks.sources import SPLITS
from .attachment import attach, check_head, in_order_of
from .options import EvaluateOptions, TrainOptions
from .trainer import make_trainer, score_split


def evaluate(
    directory: str | Path,
    model: str | Path | None = None,
    *,
    data: TaskOptions | None = None,
    split: str = "test",
    options: EvaluateOptions | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> dict[str, float]:
    """Score a module on a split of a task.

    Args:
        directory: the module. Where the names of its labels are known, they are matched with the task's by name.
        model: its base model; by default the one its configuration names.
        data: the task and its rows.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        options: batch size and lengths.
        trust_remote_code: let Python code run that the model brings along.
        progress: whether to draw progress bars.

    Returns:
        Metric -> percent.

    Raises:
        RegraftError: data, model or module that do not serve.
    """
    data = data or DataOptions()
    if split not in SPLITS:
        raise TaskError(unknown_choice("split", split, SPLITS))
    module = load(directory)
    if model is None and not module.base_model:
        raise ModuleFileError(f"{module.source} does not name its base model; name it (--model)")
    loaded = in_order_of(module, data.load())
    base = resolve(model if model is not None else module.base_model, trust_remote_code)
    # What the Trainer wants to know besides changes no score.
    scored = TrainOptions(**dict(options or EvaluateOptions()))
    set_seed(scored.seed)
    adapted = attach(base, module, loaded.task)
    with TemporaryDirectory() as work:  # the Trainer wants one, and writes nothing there
        trainer = make_trainer(base, adapted, Path(work), scored, loaded, progress)
        return score_split(trainer, base, loaded, split, scored)


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

    def check(self, module: Module, head: str | None, labels: Sequence[str] | None) -> None:
        """Check, before models run, that what the teacher's module becomes can be scored.

        Args:
            module: the teacher's module.
            head: as for `port.transfer`.
            labels: as for `port.transfer`.

        Raises:
            RegraftError: there is no such task, its data cannot be loaded, or the module is for another.
        """
        # Data of another task would only be found to lack columns.
        check_head(module, task_named(self.data.task), fresh_head=True)
        named = module if labels is None else replace(module, provenance={**module.provenance, "labels": [*labels]})
        loaded = in_order_of(named, self.data.load())
        check_head(named, loaded.task, fresh_head=head == "fresh" or labels is not None)

    def scores(self, ported: Module, progress: bool = False) -> dict[str, float]:
        """Score a port: metric -> percent."""
        with TemporaryDirectory() as directory:
            path = ported.save(Path(directory) / "module")
            return evaluate(
                path,
                data=self.data,
                split="validation",
                options=self.options,
                trust_remote_code=self.trust_remote_code,
                progress=progress,
            )

    def judge(self) -> Callable[[Module], float]:
        """Give what chooses a scale: the metric that trainings go by."""
        some = replace(self, options=self.options.model_copy(update={"max_eval": self.options.max_eval or JUDGED}))
        metric = task_named(self.data.task).metrics[-1]
        return lambda candidate: some.scores(candidate)[metric]
