from .options import DistillOptions
from .students import Distilled, distill

__all__ = ["DistillOptions", "Distilled", "distill"]
