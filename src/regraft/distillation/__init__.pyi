from .answers import Answers, ask
from .comparison import Comparison, compare
from .options import AskOptions, DistillOptions, RefineOptions
from .refinement import refine
from .students import Distilled, distill
from .writing import Writing, Written, written_texts

__all__ = [
    "Answers",
    "AskOptions",
    "Comparison",
    "DistillOptions",
    "Distilled",
    "RefineOptions",
    "Writing",
    "Written",
    "ask",
    "compare",
    "distill",
    "refine",
    "written_texts",
]
