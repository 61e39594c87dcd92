"""From moments of activations to maps between spaces; knows no model, no file and no name of a site."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
