"""The Pfeiffer bottleneck adapter as a PEFT method of its own (``peft_type: BOTTLENECK``).

One adapter per layer, after the feed-forward block (Pfeiffer et al., AdapterFusion, EACL 2021). With z the sum of
feed-forward output and residual that enters a post-LN encoder layer's output LayerNorm, AdapterHub computes
``LN(z + up(act(down(LN(z)))))``: a wrapper around that one LayerNorm. Around any other module (a feed-forward's last
linear layer, say) the adapter acts on what leaves it: ``out + up(act(down(out)))``.

Importing this module registers the method, so that PEFT alone creates, saves and loads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import torch
from aenum import extend_enum
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, PeftType, register_peft_method
from torch import nn
from transformers.activations import ACT2FN

from ..errors import RegraftError, unknown_choice
from ..models.families import FAMILIES
from ..models.sites import site_of

NON_LINEARITIES = ("gelu", "relu", "swish", "tanh")
NO_ADAPTER = "__base__"
"""What PEFT calls a row of a mixed batch that no adapter changes."""

if "BOTTLENECK" not in PeftType.__members__:
    extend_enum(PeftType, "BOTTLENECK", "BOTTLENECK")


@dataclass
class BottleneckConfig(PeftConfig):
    """Configuration of a Pfeiffer bottleneck; the defaults are the paper's.

    Attributes:
        bottleneck_size: width of the bottleneck.
        non_linearity: one of `NON_LINEARITIES`.
        scaling: factor of the adapter's output.
        init_weights: True for AdapterHub's initialisation (weights N(0, 0.02), biases 0), which is close to no change
            of the model but not exactly none; False leaves PyTorch's.
        target_modules: names (or one regular expression) of the modules to wrap; by default each layer's output
            LayerNorm for the post-LN encoders of `regraft.models.families`.
        layers_to_transform: the layers to put adapters into, all by default; only where `target_modules` is no
            regular expression. With the default targets it ends up in the regular expression that they are.
        layers_pattern: name of the list of layers, for a model whose layers are not found without.
        exclude_modules: names (or one regular expression) of modules to leave alone.
        modules_to_save: modules trained and saved whole beside the adapter, such as a task head.
    """

    bottleneck_size: int = 96
    non_linearity: str = "relu"
    scaling: float = 1.0
    init_weights: bool = True
    target_modules: Collection[str] | str | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
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
        for option in ("layers_to_transform", "layers_pattern"):
            if isinstance(self.target_modules, str) and getattr(self, option) is not None:
                # PEFT looks at them for lists of names alone.
                raise RegraftError(
                    f"`{option}` cannot be used when `target_modules` is a str. "
                    "That regular expression has to name the layers itself"
                )
        if self.layers_pattern and self.layers_to_transform is None:
            raise RegraftError("When `layers_pattern` is specified, `layers_to_transform` must also be specified.")


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """Wraps one module; several active adapters add up, as LoRA's do."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("scaling", "activation")

    def __init__(self, base_layer: Any, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer: Any = base_layer
        self.is_norm = base_layer.weight.dim() == 1
        self.in_features, self.out_features = _features(base_layer)
        self.bottleneck_down: Any = nn.ModuleDict({})
        self.bottleneck_up: Any = nn.ModuleDict({})
        self.scaling: dict[str, float] = {}
        self.activation: dict[str, Any] = {}
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter beside those the layer has."""
        down = nn.Linear(self.out_features, config.bottleneck_size)
        up = nn.Linear(config.bottleneck_size, self.out_features)
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

    def forward(
        self, x: torch.Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Compute the base module's output with adapters in place.

        Args:
            x: (..., d), the base module's input.
            args: passed on to the base module.
            adapter_names: the adapter of each row of `x` (`NO_ADAPTER` for none); by default all rows have the active
                ones.
            kwargs: passed on to the base module.

        Raises:
            RegraftError: where there are not as many names as rows.
        """
        out: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return out
        delta = self._active_delta(out) if adapter_names is None else self._delta_by_row(out, adapter_names)
        if delta is None:
            return out
        adapted: torch.Tensor = self.base_layer(x + delta, *args, **kwargs) if self.is_norm else out + delta
        return adapted

    def _active_delta(self, out: torch.Tensor) -> torch.Tensor | None:
        active = [name for name in self.active_adapters if name in self.bottleneck_down]
        return torch.stack([self._delta(out, name) for name in active]).sum(0) if active else None

    def _delta_by_row(self, out: torch.Tensor, adapter_names: Sequence[str]) -> torch.Tensor | None:
        if len(out) != len(adapter_names):
            raise RegraftError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(adapter_names)} and {len(out)} respectively."
            )
        here = set(adapter_names) & set(self.bottleneck_down)
        if not here:
            return None
        delta = torch.zeros_like(out)
        for name in here:
            rows = [row for row, other in enumerate(adapter_names) if other == name]
            delta[rows] = self._delta(out[rows], name)
        return delta

    def _delta(self, out: torch.Tensor, name: str) -> torch.Tensor:
        down, up = self.bottleneck_down[name], self.bottleneck_up[name]
        hidden = self.activation[name](down(self._cast_input_dtype(out, down.weight.dtype)))
        delta: torch.Tensor = up(hidden) * self.scaling[name]
        return delta.to(out.dtype)

    def merge(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse: a bottleneck is not linear, so no weight of the base module can hold it."""
        raise RegraftError("a bottleneck adapter cannot be merged into the base weights; use unload() to take it off")

    unmerge = merge

    def __repr__(self) -> str:
        return f"bottleneck.{super().__repr__()}"


def _features(module: Any) -> tuple[Any, Any]:
    """Widths of what enters and what leaves a normalisation or a linear layer; None and None for any other module."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() > 2:
        return None, None
    if weight.dim() == 1:
        return len(weight), len(weight)
    # GPT-2's Conv1D calls its widths nx and nf.
    names = ("nx", "nf") if hasattr(module, "nf") else ("in_features", "out_features")
    return getattr(module, names[0], None), getattr(module, names[1], None)


class BottleneckModel(BaseTuner):
    """Puts a `BottleneckLayer` around every target module."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, Any] = {  # noqa: RUF012 (PEFT declares it as an instance attribute)
        name: "|".join(family.pattern(site) for site in family.places if site_of(site).is_norm)
        for name, family in FAMILIES.items()
        if "output_norm" in family.sites
    }

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: dict[str, Any]) -> BottleneckConfig:
        layers = peft_config.layers_to_transform
        layers = [layers] if isinstance(layers, int) else layers
        model_type = model_config.get("model_type")
        if peft_config.target_modules is None and model_type in self.target_module_mapping:
            # The default targets are a regular expression, for which PEFT does not look at the layers.
            peft_config.layers_to_transform = peft_config.layers_pattern = None
            if layers:
                family = FAMILIES[model_type]
                places = ((layer, site) for layer in layers for site in family.places if site_of(site).is_norm)
                peft_config.target_modules = family.pattern_of(places)
        prepared: BottleneckConfig = super()._prepare_adapter_config(peft_config, model_config)
        return prepared

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
        if None in _features(target):
            raise RegraftError(
                f"{current_key} is a {type(target).__name__}, expected a normalisation or a linear layer; "
                "name such modules in target_modules"
            )
        layer = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def add_weighted_adapter(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: the sum of two bottlenecks' weights does not compute the sum of their outputs."""
        raise RegraftError(
            "bottleneck adapters cannot be added up into a new one; "
            "base_model.set_adapter() with a list of names makes several active at once, and their outputs add up"
        )

    @contextmanager
    def _enable_peft_forward_hooks(self, *_args: Any, **kwargs: Any) -> Iterator[None]:
        """Tell each wrapped module for one call which adapter each row of a mixed batch has, as PEFT's LoRA does.

        Raises:
            RegraftError: in training, and where `adapter_names` has an adapter that the model has not.
        """
        adapter_names: Sequence[str] | None = kwargs.get("adapter_names")
        if adapter_names is None:
            yield
            return
        if self.training:
            raise RegraftError("Cannot pass `adapter_names` when the model is in training mode.")
        unknown = sorted({*adapter_names} - {*self.peft_config, NO_ADAPTER})
        if unknown:
            raise RegraftError(
                f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}; "
                f"expected {', '.join(self.peft_config)} or {NO_ADAPTER}"
            )
        # Beam search repeats each row, but not in the encoder of an encoder-decoder model.
        repeated = [name for name in adapter_names for _ in range(kwargs.get("num_beams") or 1)]
        encoder = self.model.get_encoder() if hasattr(self.model, "get_encoder") else self.model
        in_encoder = set() if encoder is self.model else set(encoder.modules())
        handles = [
            module.register_forward_pre_hook(
                partial(_name_adapters, adapter_names=adapter_names if module in in_encoder else repeated),
                with_kwargs=True,
            )
            for module in self.modules()
            if isinstance(module, BottleneckLayer | AuxiliaryTrainingWrapper)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _name_adapters(
    _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], adapter_names: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add the adapter of each row to what a module is called with."""
    return args, {**kwargs, "adapter_names": adapter_names}


register_peft_method(name="bottleneck", config_cls=BottleneckConfig, model_cls=BottleneckModel)
