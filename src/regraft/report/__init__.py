"""Tables and pages of results."""

from .results import Alignment, Point, Result
from .writing import write

__all__ = ["Alignment", "Point", "Result", "write"]
