"""Loaded models as they are without the adapters that PEFT has put into them."""

from __future__ import annotations

import sys
from typing import Any


def bare(model: Any) -> Any:
    """Give the model without a task head, and without the wrapper of a `PeftModel`."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(model, "base_model", model)


def base_layer(module: Any) -> Any:
    """Give a submodule without what PEFT has put around it."""
    return getattr(module, "base_layer", module)


def bare_parameters(model: Any) -> dict[str, Any]:
    """Give the parameters of a loaded model by the names they have without a task head and without adapters."""
    alone = bare(model)
    wrapped = [path for path, _ in adapters(alone)]
    parameters = {}
    for name, parameter in alone.named_parameters():
        path = next((path for path in wrapped if name.startswith(f"{path}.")), None)
        if path is None:
            parameters[name] = parameter
        elif (inside := name.removeprefix(f"{path}.")).startswith(("base_layer.", "original_module.")):
            parameters[f"{path}.{inside.partition('.')[2]}"] = parameter
    return parameters


def adapters(model: Any) -> list[tuple[str, Any]]:
    """List the layers that PEFT has put around modules, by their paths, the outermost first."""
    peft = sys.modules.get("peft")  # where it is not imported, there are none
    if peft is None:
        return []
    kinds = (peft.tuners.tuners_utils.BaseTunerLayer, peft.utils.ModulesToSaveWrapper)
    return [(path, module) for path, module in model.named_modules() if isinstance(module, kinds)]


def unwrapped(model: Any) -> Any:
    """Take all that PEFT has put around modules off again."""
    for path, layer in adapters(model):
        if getattr(layer, "merged", False):
            layer.unmerge()
        model.set_submodule(path, layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer.original_module)
    return model
