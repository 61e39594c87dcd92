from .results import Alignment, Expected, Models, Point, Result
from .writing import write

__all__ = ["Alignment", "Expected", "Models", "Point", "Result", "write"]
