"""AdapterHub's prediction heads and those of transformers' classes, where the two compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import ModuleFileError, unknown_choice
from ...models.families import FAMILIES, TaskHead
from ...models.pretrained import HEAD_CLASSES
from .layouts import HubFiles, check_fields, check_keys, layout_of


@dataclass(frozen=True)
class _Kind:
    """One of AdapterHub's flexible heads and its counterpart.

    Attributes:
        task_type: PEFT's name of the task.
        saved: what PEFT names as modules to save for the task, whatever the model.
        layers: the library's default number of linear layers.
    """

    task_type: str
    saved: tuple[str, ...]
    layers: int = 1


_KINDS: Mapping[str, _Kind] = {
    "tagging": _Kind("TOKEN_CLS", ("classifier", "score")),
    "classification": _Kind("SEQ_CLS", ("classifier", "score"), layers=2),
    "question_answering": _Kind("QUESTION_ANS", ("qa_outputs",)),
}


@dataclass(frozen=True)
class PeftHead:
    """A task head as PEFT saves it.

    Attributes:
        task_type: PEFT's name of the task.
        tensors: by path in the model class.
        saved: names of the modules that PEFT saves whole.
        labels: names of the labels in the order of the last linear layer's rows; empty where nobody wrote them down.
    """

    task_type: str
    tensors: Mapping[str, Tensor]
    saved: tuple[str, ...]
    labels: tuple[str, ...]


def read_head(files: HubFiles, source: str) -> PeftHead | None:
    """Turn AdapterHub's head into the transformers class's; None for a directory without one.

    Reads flexible heads (of the library's own classes) and static ones (of transformers' classes).

    Raises:
        ModuleFileError: a head that no transformers class of the model type has.
    """
    if files.head_config is None:
        return None
    fields = files.head_config.get("config")
    if fields is None:
        kind, keys = _static(files.head_config, source)
    else:
        kind, keys = _flexible(files.head_config, fields, source)
    check_keys(files.head_tensors, set(keys), "the head's file", source)
    tensors = {path: files.head_tensors[key] for key, path in keys.items()}
    labelled = files.head_config if fields is None else fields
    rows = len(next(tensor for path, tensor in reversed(tensors.items()) if path.endswith("weight")))
    modules = {path.partition(".")[0] for path in tensors}
    return PeftHead(kind.task_type, tensors, tuple(sorted(modules | set(kind.saved))), _labels(labelled, rows, source))


def _flexible(config: Mapping[str, Any], fields: Mapping[str, Any], source: str) -> tuple[_Kind, dict[str, str]]:
    head_type = str(fields.get("head_type"))
    if head_type not in _KINDS:
        raise ModuleFileError(f"{source}: {unknown_choice('head_type', head_type, _KINDS)}")
    kind = _KINDS[head_type]
    head = _head(config.get("model_type"), kind, source)
    defaults = {"layers": kind.layers, "activation_function": "tanh", "use_pooler": False}
    what = f"a {config.get('model_type')} module with a {head_type} head"
    check_fields(fields, _same_head(head_type, head), defaults, what, source)
    return kind, {f"heads.{config.get('name')}.{key}": path for key, path in _sequential(head).items()}


def _static(config: Mapping[str, Any], source: str) -> tuple[_Kind, dict[str, str]]:
    classes = layout_of(config.get("model_type"), source).classes
    names = {classes + HEAD_CLASSES[kind.task_type]: kind for kind in _KINDS.values()}
    model_class = config.get("model_class")
    if model_class not in names:
        raise ModuleFileError(f"{source}: {unknown_choice('model class with a head', model_class, names)}")
    paths = _sequential(_head(config.get("model_type"), names[model_class], source)).values()
    return names[model_class], {path: path for path in paths}


def write_head(
    model_type: str, ending: str, tensors: Mapping[str, Tensor], labels: Sequence[str], name: str, source: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Turn a transformers class's head into AdapterHub's flexible head.

    Args:
        model_type: of the base model.
        ending: how the class's name ends, e.g. ``"ForTokenClassification"``.
        tensors: the head's tensors by path in the class.
        labels: names of the labels, empty where nobody wrote them down.
        name: of the head.
        source: what to call the module in messages.

    Returns:
        The field ``config`` of ``head_config.json``, and the tensors by AdapterHub's key.

    Raises:
        ModuleFileError: a head that is incomplete.
    """
    head_type, kind = next((key, kind) for key, kind in _KINDS.items() if HEAD_CLASSES[kind.task_type] == ending)
    head = _head(model_type, kind, source)
    keys = _sequential(head)
    missing = sorted(set(keys.values()) - set(tensors))
    if missing:
        raise ModuleFileError(
            f"{source} has no {missing[0]}, which AdapterHub's head holds; train with "
            f"modules_to_save=[{missing[0].partition('.')[0]!r}] too"
        )
    converted = {f"heads.{name}.{key}": tensors[path] for key, path in keys.items()}
    rows = len(tensors[f"{head.linears[-1]}.weight"])
    if labels and len(labels) != rows:
        raise ModuleFileError(f"{source} names {len(labels)} labels for a head of {rows} rows; mend regraft.json")
    fields = {
        "head_type": head_type,
        "num_labels": rows,
        "label2id": {label: row for row, label in enumerate(labels)} or None,
        "dropout_prob": None,
        "activation_function": None,
        **_same_head(head_type, head),
    }
    return fields, converted


def head_paths(model_type: str, ending: str) -> set[str]:
    """Paths of a head's tensors in a model class; empty for a class whose head AdapterHub has no counterpart of."""
    if ending not in {HEAD_CLASSES[kind.task_type] for kind in _KINDS.values()}:
        return set()
    return set(_sequential(FAMILIES[model_type].task_heads[ending]).values())


def _head(model_type: object, kind: _Kind, source: str) -> TaskHead:
    layout_of(model_type, source)
    return FAMILIES[str(model_type)].task_heads[HEAD_CLASSES[kind.task_type]]


def _same_head(head_type: str, head: TaskHead) -> dict[str, Any]:
    """Fields with which AdapterHub's head computes what the transformers class's does (dropout aside)."""
    fields: dict[str, Any] = {"layers": len(head.linears)}
    if head.activation:  # with one linear layer there is nothing to activate
        fields["activation_function"] = head.activation
    if head_type == "classification":
        fields |= {"use_pooler": head.reads == "pooled", "bias": True}
    return fields


def _sequential(head: TaskHead) -> dict[str, str]:
    # AdapterHub's head is a sequence of dropout, linear and activation for each linear layer but the last.
    return {
        f"{1 + 3 * i}.{part}": f"{path}.{part}" for i, path in enumerate(head.linears) for part in ("weight", "bias")
    }


def _labels(config: Mapping[str, Any], rows: int, source: str) -> tuple[str, ...]:
    named = config.get("label2id") or {}
    if not all(str(row).isdecimal() for row in named.values()):
        raise ModuleFileError(f"{source} has label2id={named!r}, expected the row of each label")
    by_row = {int(row): str(label) for label, row in named.items()}
    if set(by_row.values()) == {f"LABEL_{row}" for row in by_row}:  # transformers' names for labels without names
        return ()
    if sorted(by_row) != list(range(rows)):
        raise ModuleFileError(f"{source} names {len(by_row)} labels in label2id, expected one for each of {rows} rows")
    return tuple(by_row[row] for row in range(rows))
