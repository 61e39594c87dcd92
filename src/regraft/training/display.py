"""How far a Trainer is, on the line that shows all long work; the Trainer's own bars and dictionaries are not shown."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback

from ..progress import with_progress


class Display(TrainerCallback):  # type: ignore[misc]
    """Show steps, the last loss, and how far the scoring is that a training stops for."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._steps: Any = None
        self._scored: Any = None

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Begin where the training does, which may be a checkpoint."""
        if state.is_world_process_zero:
            self._steps = with_progress(None, self._title, state.max_steps, "steps")
            self._steps.update(state.global_step)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Count a step."""
        if self._steps is not None:
            self._steps.update(state.global_step - self._steps.n)

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Show the loss."""
        if self._steps is not None and "loss" in (logs or {}):
            self._steps.set_postfix_str(f"loss {float(logs['loss']):.4g}")

    def on_train_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Take the line away."""
        if self._steps is not None:
            self._steps.close()

    def on_prediction_step(self, _args: Any, state: Any, _control: Any, eval_dataloader: Any = None, **_: Any) -> None:
        """Count a batch that was scored."""
        if not state.is_world_process_zero:
            return
        if self._scored is None:
            self._scored = with_progress(None, "Scoring", len(eval_dataloader))
        self._scored.update()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Take the line of the scoring away."""
        if self._scored is not None:
            self._scored.close()
        self._scored = None

    on_predict = on_evaluate


def show_trainer(trainer: Trainer, title: str, progress: bool) -> None:
    """Let a Trainer show how far it is in no way but this one.

    Args:
        trainer: one whose arguments say ``disable_tqdm``.
        title: what it does.
        progress: whether it shows anything.
    """
    trainer.remove_callback(PrinterCallback)
    if progress:
        trainer.add_callback(Display(title))
