from .evaluation import evaluate
from .finetuning import train
from .options import EvaluateOptions, TrainOptions, preset

__all__ = ["EvaluateOptions", "TrainOptions", "evaluate", "preset", "train"]
