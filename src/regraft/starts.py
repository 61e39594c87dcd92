"""How a module begins: fresh, or attached to its base model from a directory; and how it is taken off again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import PeftType
from peft.utils.other import ModulesToSaveWrapper
from transformers import AutoModelForTokenClassification

from .bottleneck import BottleneckConfig
from .checkpoint import Module
from .errors import ModuleFileError, TaskError, unknown_choice
from .inventory import head_rows
from .models import HEAD_CLASSES, BaseModel
from .student import expected_tensors, modules_to_save_once
from .tasks import ner

PEFT_KINDS = ("bottleneck", "lora")


def fresh_module(base: BaseModel, peft: str, rank: int, alpha: int, bottleneck_size: int) -> PeftModel:
    """Put a module of random weights, and a fresh task head, on a base model.

    Args:
        base: the base model.
        peft: ``"lora"`` (on query and value) or ``"bottleneck"``.
        rank: of a LoRA.
        alpha: of a LoRA.
        bottleneck_size: width of a bottleneck.

    Raises:
        TaskError: another `peft`, or a model without a place for a bottleneck.
    """
    family = base.family
    config: PeftConfig
    if peft == "lora":
        targets = [family.sites[site].rpartition(".")[2] for site in ("query", "value")]
        config = LoraConfig(task_type="TOKEN_CLS", r=rank, lora_alpha=alpha, target_modules=targets)
    elif peft == "bottleneck" and "output_norm" in family.sites:
        config = BottleneckConfig(task_type="TOKEN_CLS", bottleneck_size=bottleneck_size)
    elif peft == "bottleneck":
        raise TaskError(f"{base.name} ({base.config.model_type}) has no output LayerNorm for a bottleneck; use lora")
    else:
        raise TaskError(unknown_choice("PEFT method", peft, PEFT_KINDS))
    return get_peft_model(_with_head(base), config)


def attach(base: BaseModel, module: Module, directory: Path) -> PeftModel:
    """Put a module from a directory on its base model, ready to train.

    Raises:
        ModuleFileError: its labels are not the task's, or it was not made for this model: PEFT would load what fits
            and leave the rest at random.
    """
    if module.config.get("task_type") != "TOKEN_CLS":
        raise ModuleFileError(
            f"{module.source} has task type {module.config.get('task_type')}, expected TOKEN_CLS: "
            "a module trained with a token classification head"
        )
    rows = head_rows(module.tensors)
    if rows is not None and rows != len(ner.LABELS):
        raise ModuleFileError(
            f"{module.source} has a head of {rows} labels, the task has {len(ner.LABELS)}: {', '.join(ner.LABELS)}"
        )
    if module.labels and module.labels != ner.LABELS:
        raise ModuleFileError(
            f"{module.source} was trained on labels {', '.join(module.labels)}, the task has {', '.join(ner.LABELS)}"
        )
    try:
        expected = expected_tensors(module.config, base.skeleton(HEAD_CLASSES["TOKEN_CLS"], len(ner.LABELS)))
    except ValueError as error:
        raise ModuleFileError(f"{module.source} does not fit {base.name}: {str(error).splitlines()[0]}") from error
    wrong = {key for key, shape in expected.items() if key not in module.tensors or module.tensors[key].shape != shape}
    wrong |= module.tensors.keys() - expected.keys()
    if wrong:
        raise ModuleFileError(
            f"{module.source} does not fit {base.name} ({len(wrong)} tensors are missing, unexpected or of another "
            f"shape, such as {min(wrong)}); port it to this model first (regraft transfer)"
        )
    return PeftModel.from_pretrained(_with_head(base), str(directory), is_trainable=True)


def start_from(base: BaseModel, module: Module, directory: Path) -> PeftModel:
    """Attach a module as a start of training: a head that its port initialised freshly is drawn anew.

    So the head follows the seed of the training, and all starts of one seed share it.
    """
    model = attach(base, module, directory)
    fresh = any(made["action"] == "fresh" for made in module.report.get("tensors", {}).values())
    if fresh and "training" not in module.provenance:
        for wrapper in model.modules():
            if isinstance(wrapper, ModulesToSaveWrapper):
                wrapper.modules_to_save["default"].load_state_dict(wrapper.original_module.state_dict())
    return model


def detach(model: PeftModel, base: BaseModel, source: str, provenance: dict[str, Any]) -> Module:
    """Take a trained module off its base model."""
    config = model.peft_config["default"]
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    plain |= modules_to_save_once(plain)
    plain |= {"peft_type": PeftType(config.peft_type).value, "base_model_name_or_path": base.name}
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {key: tensor.detach().cpu().clone() for key, tensor in state.items()}
    return Module({**plain, "inference_mode": True}, tensors, source, provenance)


def _with_head(base: BaseModel) -> Any:
    names = dict(enumerate(ner.LABELS))
    return AutoModelForTokenClassification.from_pretrained(
        base.name, num_labels=len(names), id2label=names, label2id={name: i for i, name in names.items()}
    )
