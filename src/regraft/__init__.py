"""Port trained PEFT modules from one pretrained transformer to another."""

import lazy_loader as _lazy

from .modules.registration import register_bottleneck as _register_bottleneck

__version__ = "0.1.0"
# Names are loaded when they are first used: PyTorch and PEFT take seconds.
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
_register_bottleneck()
