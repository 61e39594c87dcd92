"""Score a language model's module on the tasks of lm-evaluation-harness, beside its base model."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import TaskError, first_line
from ..models.weights import moved
from ..modules.module import base_of, load
from ..progress import with_progress
from ..tasks.records import TASKS
from .attachment import attach, check_head
from .options import EvaluateOptions

_TASK = TASKS["lm"]
_DRAWING = ("lm_eval.api.model", "lm_eval.api.task", "lm_eval.models.huggingface")  # bars, whatever the output is


@dataclass(frozen=True)
class HarnessScore:
    """One score of one task.

    Attributes:
        task: its name.
        metric: its name and, where it has one, that of its filter, as the harness writes them: ``"acc,none"``.
        base: the score of the base model alone.
        module: with the module on it.
        error: standard error of the latter; None where the harness gives none.
        more_is_better: None where the harness does not say.
    """

    task: str
    metric: str
    base: float
    module: float
    error: float | None
    more_is_better: bool | None


def compare_on_harness(
    directory: str | Path,
    tasks: Sequence[str],
    model: str | Path | None = None,
    *,
    options: EvaluateOptions | None = None,
    trust_remote_code: bool = False,
) -> list[HarnessScore]:
    """Run lm-evaluation-harness (Gao et al., EleutherAI) on a module and on its base model.

    Args:
        directory: the module.
        tasks: names of tasks or groups of the harness, or YAML files of one's own tasks.
        model: its base model; by default the one its configuration names.
        options: batch size; how many rows of each task; how many tokens fit, by default as many as the model reads.
        trust_remote_code: let Python code run that the model brings along.

    Raises:
        RegraftError: the harness is not installed, has no such task or cannot get its data; a module that is for
            something else, or does not fit.
    """
    if find_spec("lm_eval") is None:
        raise TaskError("lm-evaluation-harness is not installed; install it with: pip install 'regraft[eval]'")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    options = options or EvaluateOptions()
    manager, names = _find(tasks)
    module = load(directory)
    check_head(module, _TASK)
    base = base_of(module, model, trust_remote_code)
    adapted = moved(attach(base, module, _TASK), None, None).eval()
    longest = min(options.max_length, base.longest) if "max_length" in options.model_fields_set else None
    runs = HFLM(adapted, tokenizer=base.tokenizer(), batch_size=options.batch_size, max_length=longest)
    found = []
    for alone in (True, False):
        with adapted.disable_adapter() if alone else nullcontext(), _shown_as_ours():
            try:
                scores = simple_evaluate(
                    runs, tasks=names, task_manager=manager, limit=options.max_eval, log_samples=False
                )
            except Exception as error:  # those of the tasks' data sets and of their own code
                raise TaskError(
                    f"lm-evaluation-harness cannot run {', '.join(names)}: {first_line(error) or type(error).__name__}"
                ) from error
        found.append(scores)
    return [
        HarnessScore(
            task,
            metric,
            float(before),
            float(found[1]["results"][task][metric]),
            _error(found[1]["results"][task], metric),
            found[1]["higher_is_better"].get(task, {}).get(metric.partition(",")[0]),
        )
        for task, scores in found[0]["results"].items()
        for metric, before in scores.items()
        if "," in metric and "_stderr," not in metric
    ]


@contextmanager
def _shown_as_ours() -> Iterator[None]:
    """Show how far the harness is as regraft does, and keep what it prints out of stdout, where results go."""
    modules: list[Any] = [import_module(name) for name in _DRAWING]
    bars = [module.tqdm for module in modules]
    for module in modules:
        module.tqdm = _line
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for module, bar in zip(modules, bars, strict=True):
            module.tqdm = bar


def _line(
    steps: Iterable[Any] | None = None, *, desc: str = "Reading rows", total: int | None = None, disable: bool = False
) -> Any:
    """Take what the harness says of a bar."""
    return with_progress(steps, desc, total, "requests", shown=not disable)


def _find(tasks: Sequence[str]) -> tuple[Any, list[str]]:
    """Give the harness's index of tasks, and the names in it."""
    from lm_eval.tasks import TaskManager

    files = {task: Path(task).absolute() for task in tasks if task.endswith(".yaml")}
    manager = TaskManager(include_path=sorted({str(file.parent) for file in files.values() if file.is_file()}) or None)
    places = {
        str(place): name
        for name, entry in manager.task_index.items()
        if files and (place := getattr(entry, "yaml_path", None))
    }
    names = [places.get(str(files[task]), task) if task in files else task for task in tasks]
    for name in names:
        if name not in manager.all_tasks:
            nearest = difflib.get_close_matches(name, manager.all_tasks, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise TaskError(
                f"unknown harness task {name!r}, expected one that 'lm-eval ls tasks' lists, or a YAML file of a task"
                f"{hint}"
            )
    return manager, names


def _error(scores: dict[str, Any], metric: str) -> float | None:
    name, _, chosen = metric.partition(",")
    error = scores.get(f"{name}_stderr,{chosen}")
    return float(error) if isinstance(error, int | float) else None
