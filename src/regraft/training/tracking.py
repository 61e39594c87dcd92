"""Show trainings in TensorBoard, Weights & Biases or Trackio, by the Trainer's integrations. Off unless asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from ..errors import TaskError, unknown_choice

TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True)
class Tracking:
    """Where a training is shown. It changes nothing of the outcome.

    Attributes:
        to: names of `TRACKERS`.
        name: of the run.
        directory: TensorBoard's files go to ``tensorboard/NAME`` there; Weights & Biases has its own settings
            (``WANDB_PROJECT``, ``WANDB_DIR``, ``WANDB_MODE``), and so has Trackio (``TRACKIO_DIR``,
            ``TRACKIO_SPACE_ID``).

    Raises:
        TaskError: an unknown tracker, or one that is not installed.
    """

    to: Sequence[str]
    name: str
    directory: Path

    def __post_init__(self) -> None:
        check_trackers(self.to)

    @classmethod
    def beside(cls, out: Path, to: Sequence[str]) -> Self:
        """Name the run after what it makes, and put TensorBoard's files next to that."""
        return cls(tuple(to), out.name, out.absolute().parent)


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed.

    Raises:
        TaskError: so they are.
    """
    for name in names:
        if name not in TRACKERS:
            raise TaskError(unknown_choice("tracker", name, TRACKERS))
        if find_spec(name) is None:
            raise TaskError(f"{name} is not installed; install it with: pip install 'regraft[tracking]'")


@contextmanager
def tracked(trainer: Any, tracking: Tracking | None) -> Iterator[None]:
    """Show what a Trainer does while the block lasts."""
    from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

    if tracking is None or not tracking.to:
        yield
        return
    callbacks: list[Any] = []
    if "tensorboard" in tracking.to:
        callbacks.append(TensorBoardCallback())
        callbacks[-1].logging_dir = str(tracking.directory / "tensorboard" / tracking.name)
    if "wandb" in tracking.to:
        callbacks.append(WandbCallback())
    if "trackio" in tracking.to:

        class Trackio(TrackioCallback):  # type: ignore[misc]
            """It prints where it writes, and stdout is for results."""

            def setup(self, *args: Any, **kwargs: Any) -> None:
                with redirect_stdout(sys.stderr):
                    super().setup(*args, **kwargs)

            def on_train_end(self, *args: Any, **kwargs: Any) -> None:
                with redirect_stdout(sys.stderr):
                    super().on_train_end(*args, **kwargs)

        callbacks.append(Trackio())
    trainer.args.run_name = tracking.name
    for callback in callbacks:
        trainer.add_callback(callback)
    try:
        yield
    finally:
        for callback in callbacks:
            trainer.remove_callback(callback)
        if "wandb" in tracking.to:
            import wandb

            wandb.finish()  # the next training of this process is a run of its own
