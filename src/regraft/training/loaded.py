"""A model with a module in place, its head and the names of its labels, ready to use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import ModuleFileError
from ..models.pretrained import HEAD_CLASSES, resolve
from ..models.weights import moved
from ..modules.config import PREFIX, head_class_of
from ..modules.inventory import labels_of_base
from ..modules.module import Module, load
from ..modules.tensors import head_rows
from ..tasks.records import Task
from .attachment import attach

_EXPECTED = f"expected the class of one of {', '.join(HEAD_CLASSES)}"


@contextmanager
def loaded(
    base: str | os.PathLike[str],
    module: Module | str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """Load a model with a module on it: ``with regraft.loaded(base, module) as (model, tokenizer): ...``.

    Args:
        base: the model that the module was made for: a directory or a hub id.
        module: the module, or where it is.
        device: where it runs; by default a GPU where there is one.
        trust_remote_code: let Python code of the model run.

    Yields:
        PEFT's model in evaluation mode, with the class of head that the module was trained with and the names of its
        labels in ``model.config.id2label``; and the tokenizer. The weights are given free when the block ends.

    Raises:
        ModelError: no such model, or no such device.
        ModuleFileError: no such module, one for another model, or one that says no task.
    """
    resolved = resolve(base, trust_remote_code)
    put = module if isinstance(module, Module) else load(module)
    rows = head_rows(put.tensors)
    ending = head_class_of(put.config, put.source, PREFIX if rows else "", has_head=bool(rows))
    task_types = [task_type for task_type, its in HEAD_CLASSES.items() if its == ending]
    if not task_types:
        raise ModuleFileError(f"{put.source} is for AutoModel{ending}, {_EXPECTED}")
    names = put.labels or labels_of_base(put, resolved) or tuple(f"LABEL_{row}" for row in range(rows or 0))
    task = Task("as trained", task_types[0], ("text",), "label" if rows else "", names, ())
    model = moved(attach(resolved, put, task), None, device).eval()
    try:
        yield model, resolved.tokenizer()
    finally:
        model.to("meta")
