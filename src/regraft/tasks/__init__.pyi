from .data import Loaded, load_task
from .options import DataOptions, TaskOptions
from .records import TASKS, Task

__all__ = ["TASKS", "DataOptions", "Loaded", "Task", "TaskOptions", "load_task"]
