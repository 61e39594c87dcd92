"""Port trained PEFT modules from one pretrained transformer to another."""

from .bottleneck import BottleneckConfig
from .checkpoint import Module, load
from .errors import RegraftError
from .port import foresee, plan, transfer

__version__ = "0.1.0"
__all__ = ["BottleneckConfig", "Module", "RegraftError", "__version__", "foresee", "load", "plan", "transfer"]
