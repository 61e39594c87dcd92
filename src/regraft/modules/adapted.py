"""A base model with a module in place, which runs wherever a base model does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from peft import get_peft_model, set_peft_model_state_dict
from torch import Tensor

from ..models.pretrained import Pretrained
from ..models.sites import Place
from .config import PREFIX, parse_config, with_sizes
from .inventory import take_inventory
from .module import Module
from .peft_types import PEFT_TYPES

# What a configuration says of modules by their names in the whole model, or of its head.
_OF_THE_WHOLE_MODEL = ("exclude_modules", "modules_to_save", "task_type")


@dataclass(frozen=True)
class AdaptedModel(Pretrained):
    """A base model whose `running` has a module active. The module's task head is not part of it.

    Attributes:
        config_of: the PEFT configuration of the module.
        tensors: the module's tensors on sites, by their keys.
    """

    config_of: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(base: Pretrained, module: Module) -> AdaptedModel:
        """Put a module on its base model; nothing is loaded yet.

        Raises:
            ModuleFileError: a module of a kind that cannot be ported.
        """
        inventory = take_inventory(module, base.family)
        holdings = inventory.holdings
        paths = {place: base.family.path(*place) for place in holdings}
        sizes = {paths[place]: (holding.size, holding.alpha) for place, holding in holdings.items()}
        method = PEFT_TYPES[module.peft_type]
        # The bare model's paths lack the class's prefix, whatever the configuration says of them.
        other = {*_OF_THE_WHOLE_MODEL, *method.of_layers}
        config = {
            **{key: value for key, value in module.config.items() if key not in other},
            **method.patterns(with_sizes(module.config), sizes),
            "target_modules": base.family.pattern_of(holdings),
        }
        if method.gains_read:
            gains = {place: holding for place, holding in holdings.items() if holding.gains_what_is_read}
            config[method.gains_read] = base.family.pattern_of(gains) if gains else []
        tensors = {
            f"{PREFIX}{paths[place]}.{role.suffix}": module.tensors[key]
            for place, holding in holdings.items()
            for role, key in holding.tensors.items()
        }
        tensors |= {key: module.tensors[key] for key in inventory.shared}
        own = {entry.name: getattr(base, entry.name) for entry in fields(base)}
        return AdaptedModel(**own, config_of=config, tensors=tensors)

    @contextmanager
    def running(self, dtype: torch.dtype | None, device: str | torch.device | None) -> Iterator[Any]:
        """Give the bare model with the module active; afterwards it is taken off again."""
        with super().running(dtype, device) as model:
            # Where gradients are checkpointed PEFT hooks into the embeddings, and does not let go.
            hook = getattr(model, "_require_grads_hook", None)
            trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a model that had a module before
                adapted = get_peft_model(model, parse_config(self.config_of))
            try:
                set_peft_model_state_dict(adapted, dict(self.tensors))
                yield model.eval()
            finally:
                adapted.unload()
                if getattr(model, "_require_grads_hook", None) is not hook:
                    model.disable_input_require_grads()
                for name, parameter in model.named_parameters():
                    parameter.requires_grad_(name in trained)

    def put(self, model: Any, tensors: Mapping[tuple[Place, str], Tensor]) -> None:
        """Give some tensors of the module other values.

        Args:
            model: what `running` gave, and has not taken back.
            tensors: (place, key behind the path of its site) -> values.
        """
        with torch.no_grad():
            for (place, name), tensor in tensors.items():
                # PEFT names the adapter behind the first part: lora_A.weight, but ia3_l alone.
                first, dot, rest = name.partition(".")
                model.get_parameter(f"{self.family.path(*place)}.{first}.default{dot}{rest}").copy_(tensor)
