"""The Pfeiffer bottleneck adapter as a PEFT method of its own (``peft_type: BOTTLENECK``).

One adapter per layer, after the feed-forward block (Pfeiffer et al., AdapterFusion, EACL 2021). With z the sum of
feed-forward output and residual that enters a post-LN encoder layer's output LayerNorm, AdapterHub computes
``LN(z + up(act(down(LN(z)))))``: a wrapper around that one LayerNorm. Around any other module (a feed-forward's last
linear layer, say) the adapter acts on what leaves it: ``out + up(act(down(out)))``.

Importing this module registers the method, so that PEFT alone creates, saves and loads it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from aenum import extend_enum
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import nn
from transformers.activations import ACT2FN

from ..errors import RegraftError, unknown_choice
from ..models.families import FAMILIES

NON_LINEARITIES = ("gelu", "relu", "swish", "tanh")

if "BOTTLENECK" not in PeftType.__members__:
    extend_enum(PeftType, "BOTTLENECK", "BOTTLENECK")


@dataclass
class BottleneckConfig(PeftConfig):
    """Configuration of a Pfeiffer bottleneck; the defaults are the paper's.

    Attributes:
        bottleneck_size: width of the bottleneck.
        non_linearity: one of `NON_LINEARITIES`.
        scaling: factor of the adapter's output.
        init_weights: True for AdapterHub's initialisation (weights N(0, 0.02), biases 0); False leaves PyTorch's.
        target_modules: names (or one regular expression) of the modules to wrap; by default each layer's output
            LayerNorm for the post-LN encoders of `regraft.models.families`.
        exclude_modules: names (or one regular expression) of modules to leave alone.
        modules_to_save: modules trained and saved whole beside the adapter, such as a task head.
    """

    bottleneck_size: int = 96
    non_linearity: str = "relu"
    scaling: float = 1.0
    init_weights: bool = True
    target_modules: Collection[str] | str | None = field(default=None)
    exclude_modules: Collection[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]  # PEFT's own has no annotation
        self.peft_type = PeftType["BOTTLENECK"]
        if self.non_linearity not in NON_LINEARITIES:
            raise RegraftError(unknown_choice("non_linearity", self.non_linearity, NON_LINEARITIES))
        if self.bottleneck_size < 1:
            raise RegraftError(f"bottleneck_size is {self.bottleneck_size}, expected a positive number")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """Wraps one module; several active adapters add up, as LoRA's do."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("scaling", "activation")

    def __init__(self, base_layer: Any, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer: Any = base_layer
        self.is_norm = base_layer.weight.dim() == 1
        self.width: Any = _output_width(base_layer)
        self.bottleneck_down: Any = nn.ModuleDict({})
        self.bottleneck_up: Any = nn.ModuleDict({})
        self.scaling: dict[str, float] = {}
        self.activation: dict[str, Any] = {}
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter beside those the layer has."""
        down = nn.Linear(self.width, config.bottleneck_size)
        up = nn.Linear(config.bottleneck_size, self.width)
        if config.init_weights:
            for linear in (down, up):
                nn.init.normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        self.scaling[adapter_name] = config.scaling
        self.activation[adapter_name] = ACT2FN[config.non_linearity]
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the base module's output with the active adapters in place.

        Args:
            x: (..., d), the base module's input.
            args: passed on to the base module.
            kwargs: passed on to the base module.
        """
        out: torch.Tensor = self.base_layer(x, *args, **kwargs)
        active = [name for name in self.active_adapters if name in self.bottleneck_down]
        if self.disable_adapters or not active:
            return out
        delta = torch.stack([self._delta(out, name) for name in active]).sum(0)
        adapted: torch.Tensor = self.base_layer(x + delta, *args, **kwargs) if self.is_norm else out + delta
        return adapted

    def _delta(self, out: torch.Tensor, name: str) -> torch.Tensor:
        down, up = self.bottleneck_down[name], self.bottleneck_up[name]
        hidden = self.activation[name](down(self._cast_input_dtype(out, down.weight.dtype)))
        delta: torch.Tensor = up(hidden) * self.scaling[name]
        return delta.to(out.dtype)

    def merge(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse: a bottleneck is not linear, so no weight of the base module can hold it."""
        raise RegraftError("a bottleneck adapter cannot be merged into the base weights; use unload() to take it off")

    def __repr__(self) -> str:
        return f"bottleneck.{super().__repr__()}"


def _output_width(module: Any) -> int | None:
    """Width of what leaves a normalisation or a linear layer; None for any other module."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() > 2:
        return None
    # GPT-2's Conv1D calls its output width nf.
    return len(weight) if weight.dim() == 1 else getattr(module, "out_features", getattr(module, "nf", None))


class BottleneckModel(BaseTuner):
    """Puts a `BottleneckLayer` around every target module."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, Any] = {  # noqa: RUF012 (PEFT declares it as an instance attribute)
        name: family.pattern("output_norm") for name, family in FAMILIES.items() if "output_norm" in family.sites
    }

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,  # noqa: ARG002 (PEFT passes it by name)
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        if _output_width(target) is None:
            raise RegraftError(
                f"{current_key} is a {type(target).__name__}, expected a normalisation or a linear layer; "
                "name such modules in target_modules"
            )
        layer = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


register_peft_method(name="bottleneck", config_cls=BottleneckConfig, model_cls=BottleneckModel)
