"""Which labelled rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import model_validator

from ..errors import TaskError
from ..schema import Names, Options, one_of
from .records import TASKS, task_named

if TYPE_CHECKING:
    from .data import Loaded


class TaskOptions(Options):
    """A task and its data."""

    task: Annotated[str, one_of("task", TASKS)] = "ner"
    """ner, pi, nli, classification or lm."""
    data: str | Path | None = None
    """Folder or hub data set ID[:CONFIG]."""
    lang: str = "en"
    """Language of the data."""

    def load(self) -> Loaded:
        """Load the three splits, see `tasks.data.load_task`.

        Raises:
            TaskError: there are none, or a row does not serve.
        """
        from .data import load_task

        return load_task(task_named(self.task), self.data, self.lang)


class DataOptions(TaskOptions):
    """A task and its data, where these name columns or labels otherwise."""

    column: tuple[str, ...] = ()
    """NAME=COLUMN, the data's name; repeatable."""
    labels: Names = None
    """A,B,C: names of the labels, if not the task's."""

    @model_validator(mode="after")
    def _named(self) -> DataOptions:
        self.columns()
        return self

    def columns(self) -> dict[str, str]:
        """Name of a column of the task -> its name in the data.

        Raises:
            TaskError: one is not written so.
        """
        columns = {}
        for pair in self.column:
            name, equals, column = pair.partition("=")
            if not (name and equals and column):
                raise TaskError(f"found --column {pair}, expected NAME=COLUMN, such as text=review")
            columns[name] = column
        return columns

    def load(self) -> Loaded:
        """Load the three splits, see `tasks.data.load_task`.

        Raises:
            TaskError: there are none, or a row does not serve.
        """
        from .data import load_task

        return load_task(task_named(self.task), self.data, self.lang, self.columns(), self.labels)
