from .results import Alignment, Expected, Point, Result
from .writing import write

__all__ = ["Alignment", "Expected", "Point", "Result", "write"]
