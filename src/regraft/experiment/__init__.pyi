from .grid import Grid, make_grid
from .load import read_experiment
from .spec import Experiment
from .store import Store

__all__ = ["Experiment", "Grid", "Store", "make_grid", "read_experiment"]
