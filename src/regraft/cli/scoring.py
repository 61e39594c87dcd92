"""Score ports, untrained, on labelled rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..modules.module import Module
from ..settings import Settings
from ..tasks.records import task_named

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
        from ..starts import check_head, in_order_of
        from ..tasks.data import load_task

        record = task_named(self.task)
        check_head(module, record, fresh_head=True)  # data of another task would only be found to lack columns
        named = module if labels is None else replace(module, provenance={**module.provenance, "labels": [*labels]})
        loaded = in_order_of(named, load_task(record, self.data, self.lang))
        check_head(named, loaded.task, fresh_head=head == "fresh" or labels is not None)

    def scores(self, ported: Module, progress: bool = False) -> dict[str, float]:
        """Score a port: metric -> percent."""
        from .. import training

        with TemporaryDirectory() as directory:
            ported.save(Path(directory) / "module")
            return training.evaluate(
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
