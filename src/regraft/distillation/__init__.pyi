from .answers import Answers, ask
from .options import DistillOptions, RefineOptions
from .refinement import refine
from .students import Distilled, distill

__all__ = ["Answers", "DistillOptions", "Distilled", "RefineOptions", "ask", "distill", "refine"]
