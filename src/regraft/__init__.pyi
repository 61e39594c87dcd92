from .distillation.comparison import compare
from .distillation.options import RefineOptions
from .distillation.refinement import refine
from .errors import RegraftError
from .models.families import register_family
from .modules.bottleneck import BottleneckConfig
from .modules.module import Module, load
from .port.options import PortOptions
from .port.pipeline import Port, forecast, plan, transfer
from .training.loaded import loaded

__version__: str
__all__ = [
    "BottleneckConfig",
    "Module",
    "Port",
    "PortOptions",
    "RefineOptions",
    "RegraftError",
    "compare",
    "forecast",
    "load",
    "loaded",
    "plan",
    "refine",
    "register_family",
    "transfer",
]
