"""How a module begins: fresh, or attached to its base model; and how it is taken off again."""

from __future__ import annotations

from typing import Any

import transformers
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from ..errors import ModelError, ModuleFileError, first_line
from ..models.pretrained import HEAD_CLASSES, Pretrained
from ..modules.config import expected_tensors, head_class_of, parse_config, plain_config
from ..modules.inventory import head_keys
from ..modules.module import Module
from ..modules.tensors import head_rows
from ..tasks.data import Loaded
from ..tasks.records import TASKS, Task


def attach(base: Pretrained, module: Module, task: Task, fresh_head: bool = False) -> PeftModel:
    """Put a module on its base model, ready to train.

    Args:
        base: the model it was made for.
        module: the module.
        task: says which head, and its labels in the order of the head's rows.
        fresh_head: draw a new head instead of the module's.

    Raises:
        ModuleFileError: its head is not one for the task's labels, or it was not made for this model: PEFT would load
            what fits and leave the rest at random.
    """
    check_head(module, task, fresh_head)
    rows = head_rows(module.tensors)
    try:
        skeleton = base.skeleton(HEAD_CLASSES[task.task_type], rows or len(task.labels))
        expected = expected_tensors(module.config, skeleton)
    except ValueError as error:
        raise ModuleFileError(f"{module.source} does not fit {base.name}: {first_line(error)}") from error
    wrong = {key for key, shape in expected.items() if key not in module.tensors or module.tensors[key].shape != shape}
    wrong |= module.tensors.keys() - expected.keys()
    if wrong:
        raise ModuleFileError(
            f"{module.source} does not fit {base.name} ({len(wrong)} tensors are missing, unexpected or of another "
            f"shape, such as {min(wrong)}); port it to this model first (regraft transfer)"
        )
    model = get_peft_model(with_head(base, task), parse_config({**module.config, "inference_mode": False}))
    fresh = get_peft_model_state_dict(model, save_embedding_layers=False) if fresh_head else {}
    heads = {key: fresh[key] for key in head_keys(module) if fresh_head}
    set_peft_model_state_dict(model, {**module.tensors, **heads})
    return model


def check_head(module: Module, task: Task, fresh_head: bool = False) -> None:
    """Check that a module was made for a head as the task's; arguments as for `attach`.

    Raises:
        ModuleFileError: it was not.
    """
    told = module.config.get("task_type")
    # Without a head, the class that PEFT noted tells as much as a task type.
    of_class = head_class_of(module.config, module.source) if not (told or task.target) else ""
    if told != task.task_type and of_class != HEAD_CLASSES[task.task_type]:
        tasks = sorted(name for name, other in TASKS.items() if other.task_type == told)
        suiting = f" {', '.join(tasks)}" if tasks else ""
        raise ModuleFileError(
            f"{module.source} has task type {told}, expected {task.task_type}: "
            f"a module trained with such a head; name the task that it was trained for (--task{suiting})"
        )
    rows = head_rows(module.tensors)
    if rows is not None and rows != len(task.labels) and not fresh_head:
        raise ModuleFileError(
            f"{module.source} has a head of {rows} labels, the task has {len(task.labels)}: {', '.join(task.labels)}"
        )


def keeps_head(start: Module | None, loaded: Loaded, head: str | None) -> bool:
    """Decide whether a training keeps the task head of the module that it starts from.

    Args:
        start: the module; None for a training from random numbers.
        loaded: the task and its data.
        head: what the user wants: ``"teacher"``, ``"fresh"`` or None.

    Returns:
        By default True where the head was ported or trained, and its labels are the task's or, where it names none, as
        many; a head that a port drew at random follows the seed of the training, so that all starts of one seed share
        it.

    Raises:
        ModuleFileError: the user wants a head that is not there, or one for other labels.
    """
    if start is not None and not loaded.task.target:
        return True  # it has none: the start is whole
    agree = start is not None and (not start.labels or loaded.agrees(start.labels))
    if head != "teacher":
        if head == "fresh" or start is None or start.head_is_random or not agree:
            return False
        return bool(start.labels) or head_rows(start.tensors) == len(loaded.task.labels)
    if start is None:
        raise ModuleFileError("there is no start whose head could be kept, expected --init beside --head teacher")
    if start.head_is_random:
        raise ModuleFileError(f"the head of {start.source} was drawn at random by a port; use --head fresh")
    if not agree:
        raise ModuleFileError(
            f"{start.source} was trained on labels {', '.join(start.labels)}, the task has "
            f"{', '.join(loaded.task.labels)}; use --head fresh"
        )
    return True


def detach(model: PeftModel, base: Pretrained, source: str, provenance: dict[str, Any]) -> Module:
    """Take a trained module off its base model."""
    config = plain_config(model.peft_config["default"], base)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {key: tensor.detach().cpu().clone() for key, tensor in state.items()}
    return Module({**config, "inference_mode": True}, tensors, source, provenance)


def with_head(base: Pretrained, task: Task) -> Any:
    """Load a base model with a head for a task.

    Raises:
        ModelError: a model that has none for it, or a checkpoint that lacks weights which no module holds.
    """
    names = dict(enumerate(task.labels))
    ending = HEAD_CLASSES[task.task_type]
    _check_causal(base, ending)
    labelled: dict[str, Any] = {
        "num_labels": len(names),
        "id2label": names,
        "label2id": {name: i for i, name in names.items()},
        "ignore_mismatched_sizes": True,  # the head of a model that was fine-tuned for other labels
    }
    model, loading = base.load(getattr(transformers, f"AutoModel{ending}"), **(labelled if task.target else {}))
    unread = {*loading["missing_keys"], *(entry[0] for entry in loading["mismatched_keys"])}
    # A task head is the module's; that of a language model is pretrained as all else.
    own = f"{model.base_model_prefix}." if task.target else ""
    lacking = sorted(key for key in unread if key.startswith(own))
    if lacking:
        raise ModelError(
            f"{base.name} lacks {lacking[0]}, a pretrained weight that its {type(model).__name__} reads, and no module "
            "would hold the random one in its place; use a checkpoint that has it"
        )
    if model.config.pad_token_id is None:  # decoders that classify look for the last token before the padding
        model.config.pad_token_id = base.tokenizer().pad_token_id
    return model


def _check_causal(base: Pretrained, ending: str) -> None:
    if ending == "ForCausalLM" and not base.family.causal:
        raise ModelError(
            f"{base.name} ({base.config.model_type}) is no causal language model: its tokens see those that follow; "
            "use a decoder, such as llama, qwen2 or gemma3_text"
        )
