from .comparison import Comparison, compare
from .options import AskOptions, DistillOptions
from .students import Distilled, distill

__all__ = ["AskOptions", "Comparison", "DistillOptions", "Distilled", "compare", "distill"]
