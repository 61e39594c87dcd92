"""A PEFT module: the table of its axes, its file, its inventory, its card."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
