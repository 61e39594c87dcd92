from .adapted import AdaptedModel
from .bottleneck import BottleneckConfig
from .inventory import Inventory, take_inventory
from .module import Module, load
from .peft_method import PeftMethod
from .peft_types import PEFT_TYPES
from .to_lora import convert_to_lora

__all__ = [
    "PEFT_TYPES",
    "AdaptedModel",
    "BottleneckConfig",
    "Inventory",
    "Module",
    "PeftMethod",
    "convert_to_lora",
    "load",
    "take_inventory",
]
