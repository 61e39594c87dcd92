from .fitting import Score, fit_maps
from .maps import Assignment, Linear, Map
from .methods import METHODS, Method, Problem
from .moments import Moments, SplitMoments

__all__ = [
    "METHODS",
    "Assignment",
    "Linear",
    "Map",
    "Method",
    "Moments",
    "Problem",
    "Score",
    "SplitMoments",
    "fit_maps",
]
