"""Grids of trainings: one file, a plan of cells, a store of results, and who carries them out."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
