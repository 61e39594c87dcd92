"""Evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import set_seed

from ..errors import ModuleFileError, TaskError, unknown_choice
from ..models.pretrained import resolve
from ..modules.module import Module, load
from ..tasks.data import load_task
from ..tasks.records import task_named
from ..tasks.sources import SPLITS
from .attachment import attach, in_order_of
from .options import Settings
from .trainer import _score, _trainer


def evaluate(
    directory: str | Path,
    model: str | Path | None = None,
    data: str | Path | None = None,
    language: str = "en",
    task: str = "ner",
    split: str = "test",
    settings: Settings | None = None,
    progress: bool = True,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
) -> dict[str, float]:
    """Score a module on a split of a task.

    Args:
        directory: the module. Where the names of its labels are known, they are matched with the task's by name.
        model: its base model; by default the one its configuration names.
        data: as for `train`.
        language: as for `train`.
        task: as for `train`.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        settings: batch size and lengths.
        progress: whether to draw progress bars.
        columns: as for `train`.
        labels: as for `train`.

    Returns:
        Metric -> percent.

    Raises:
        RegraftError: data, model or module that do not serve.
    """
    settings = settings or Settings()
    if split not in SPLITS:
        raise TaskError(unknown_choice("split", split, SPLITS))
    module = load(directory)
    if model is None and not module.base_model:
        raise ModuleFileError(f"{module.source} does not name its base model; name it (--model)")
    loaded = in_order_of(module, load_task(task_named(task), data, language, columns, labels))
    base = resolve(model if model is not None else module.base_model)
    set_seed(settings.seed)
    adapted = attach(base, module, loaded.task)
    with TemporaryDirectory() as work:  # the Trainer wants one, and writes nothing there
        trainer = _trainer(base, adapted, Path(work), settings, loaded, progress)
        return _score(trainer, base, loaded, split, settings.max_eval, settings)


# How many rows choose a scale unless the user says: few, as they cost labels, and each is scored once per scale.
JUDGED = 100


@dataclass(frozen=True)
class Rows:
    """The validation split of a task's data.

    Attributes:
        data: folder or data set of the hub.
        task: a key of `tasks.records.TASKS`.
        lang: language of the data.
        settings: batch size and lengths.
    """

    data: str
    task: str
    lang: str
    settings: Settings

    def check(self, module: Module, head: str | None, labels: Sequence[str] | None) -> None:
        """Check, before models run, that what the teacher's module becomes can be scored.

        Args:
            module: the teacher's module.
            head: as for `port.transfer`.
            labels: as for `port.transfer`.

        Raises:
            RegraftError: there is no such task, its data cannot be loaded, or the module is for another.
        """
        from ..tasks.data import load_task
        from .attachment import check_head, in_order_of

        record = task_named(self.task)
        check_head(module, record, fresh_head=True)  # data of another task would only be found to lack columns
        named = module if labels is None else replace(module, provenance={**module.provenance, "labels": [*labels]})
        loaded = in_order_of(named, load_task(record, self.data, self.lang))
        check_head(named, loaded.task, fresh_head=head == "fresh" or labels is not None)

    def scores(self, ported: Module, progress: bool = False) -> dict[str, float]:
        """Score a port: metric -> percent."""
        with TemporaryDirectory() as directory:
            ported.save(Path(directory) / "module")
            return evaluate(
                Path(directory) / "module",
                data=self.data,
                language=self.lang,
                task=self.task,
                split="validation",
                settings=self.settings,
                progress=progress,
            )

    def judge(self) -> Callable[[Module], float]:
        """Give what chooses a scale: the metric that trainings go by."""
        some = replace(self, settings=replace(self.settings, max_eval=self.settings.max_eval or JUDGED))
        metric = task_named(self.task).metrics[-1]
        return lambda candidate: some.scores(candidate)[metric]
