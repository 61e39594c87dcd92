"""Port trained PEFT modules from one pretrained transformer to another."""

from .errors import RegraftError
from .modules.bottleneck import BottleneckConfig
from .modules.module import Module, load
from .port.pipeline import foresee, plan, transfer

__version__ = "0.1.0"
__all__ = ["BottleneckConfig", "Module", "RegraftError", "__version__", "foresee", "load", "plan", "transfer"]
