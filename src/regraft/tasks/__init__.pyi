from .agreement import Agreement, agree
from .data import Loaded, load_task
from .options import DataOptions, TaskOptions
from .records import TASKS, Task

__all__ = ["TASKS", "Agreement", "DataOptions", "Loaded", "Task", "TaskOptions", "agree", "load_task"]
