"""In which order the labels of a task head stand, and what says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import ModuleFileError
from ..models.pretrained import Pretrained
from ..modules.inventory import labels_of_base
from ..modules.module import Module
from ..tasks.data import Loaded

_SAYS = {
    "module": "{module} names its labels",
    "base": "{module} names no labels; taken as the configuration of its base model has them",
    "given": "{module} names no labels; taken in the order of --labels",
    "task": "{module} names no labels; taken in the order of the task",
    "data": "{module} names no labels; taken by the alphabet",
}


@dataclass(frozen=True)
class LabelOrder:
    """The labels of a task head in the order of its rows.

    Attributes:
        labels: their names.
        said_by: the ``"module"``; the configuration of its ``"base"`` model; ``"given"`` by the user; the ``"task"``;
            or the ``"data"``, where it is the alphabet's and nobody says so.
    """

    labels: tuple[str, ...]
    said_by: Literal["module", "base", "given", "task", "data"]

    def sentence(self, module: str) -> str:
        """Say which order it is and where it comes from.

        Args:
            module: what to call the module.
        """
        return f"{_SAYS[self.said_by].format(module=module)}: {', '.join(self.labels)}"


def label_order(module: Module, base: Pretrained | None, loaded: Loaded) -> LabelOrder | None:
    """Find the order of the labels of a module's head.

    Args:
        module: the module.
        base: its base model, whose configuration may name the labels; None where it has nothing to do with the head.
        loaded: the task and its data.

    Returns:
        The order; None where the module names labels that are not the task's.
    """
    if module.labels:
        return LabelOrder(module.labels, "module") if loaded.agrees(module.labels) else None
    if loaded.labels_from == "given":
        return LabelOrder(loaded.task.labels, "given")
    names = () if base is None else labels_of_base(module, base)
    if names and loaded.agrees(names):
        return LabelOrder(names, "base")
    return LabelOrder(loaded.task.labels, loaded.labels_from)


def known_order(module: Module, base: Pretrained | None, loaded: Loaded, option: str = "--labels") -> LabelOrder:
    """Find the order of the labels of a module's head that is to be scored; arguments as for `label_order`.

    Args:
        module: the module.
        base: its base model.
        loaded: the task and its data.
        option: where the user can name the labels of the head.

    Raises:
        ModuleFileError: the module was trained on others, or nothing says in which order they are.
    """
    order = label_order(module, base, loaded)
    found = ", ".join(loaded.task.labels)
    if order is None:
        raise ModuleFileError(
            f"{module.source} was trained on labels {', '.join(module.labels)}, the data have {found}; "
            "evaluate it on its own task, or name the data's labels (--labels)"
        )
    if order.said_by == "data" and not module.head_is_random:  # of a head without meaning any order is right
        raise ModuleFileError(
            f"{module.source} does not name the labels of its head, nor does its base model, and the data do not tell "
            f"their order; name them in the order of the head's rows ({option}): the data have {found}"
        )
    return order
