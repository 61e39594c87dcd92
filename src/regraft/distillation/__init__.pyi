from .answers import Answers, ask
from .comparison import Comparison, compare
from .options import AskOptions, DistillOptions, RefineOptions
from .refinement import refine
from .students import Distilled, distill

__all__ = [
    "Answers",
    "AskOptions",
    "Comparison",
    "DistillOptions",
    "Distilled",
    "RefineOptions",
    "ask",
    "compare",
    "distill",
    "refine",
]
