"""Tasks: where their data are, what their labels are called and how they are scored."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
