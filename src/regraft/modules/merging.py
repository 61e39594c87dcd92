"""A base model and a module on it as one model, for whoever loads no modules."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import transformers
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from ..errors import ModuleFileError, first_line
from ..models.pretrained import ModelLike, Pretrained
from .card import merged_card
from .config import check_portable, parse_config
from .inventory import labels_of_base, take_inventory
from .model_directory import save_model
from .module import FILES, GGUF_WEIGHTS, Module, base_of
from .tensors import head_rows


def save_merged(
    module: Module,
    path: str | os.PathLike[str],
    base: ModelLike | None = None,
    replace: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Merge a module into its base model (PEFT's ``merge_and_unload``), and write the model with its tokenizer.

    Args:
        module: of a type that merges into weights; its task head, if any, becomes the model's.
        path: the directory; it appears whole or not at all. transformers loads it.
        base: the base model; by default the one that the module names.
        replace: replace a module, or what was merged there before.
        trust_remote_code: let Python code run that the base model brings along.

    Returns:
        The directory.

    Raises:
        ModuleFileError: a module that does not fit its base, one that cannot be merged, or a directory that may not be
            replaced.
        ModelError: the base model cannot be loaded.
    """
    check_portable(module.config, module.source)
    resolved = base_of(module, base, trust_remote_code)
    model = _merged(module, resolved)
    merged = {"module": module.source, "peft_type": module.peft_type, "base": resolved.name}
    provenance = {**module.stamped(), "merged": {**merged, "class": type(model).__name__}}
    modules = (*FILES, GGUF_WEIGHTS)
    save_model(Path(path), model, resolved.tokenizer(), provenance, merged_card, replace, instead_of=modules)
    return Path(path)


def _merged(module: Module, base: Pretrained) -> Any:
    inventory, rows = take_inventory(module, base.family), head_rows(module.tensors)
    names = module.labels or labels_of_base(module, base)
    options: dict[str, Any] = {} if rows is None else {"num_labels": rows, "ignore_mismatched_sizes": True}
    if names:
        options |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    model, _ = base.load(getattr(transformers, f"AutoModel{inventory.head_class}"), **options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, parse_config(module.config))
        wrong = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() ^ module.tensors.keys()
        if wrong:
            raise ValueError(f"{min(wrong)} is missing or not expected")
        set_peft_model_state_dict(adapted, dict(module.tensors))
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ModuleFileError(
            f"{module.source} does not fit {base.name} ({first_line(error)}); name the model that it was trained on "
            "(--model)"
        ) from error
    return adapted.merge_and_unload(safe_merge=True)
