"""Checkpoints of a training under way: whole and on the disk, or not counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..errors import first_line
from ..files.writing import flush, told, write_json
from ..stopping import undisturbed

# Written into a checkpoint last, when all else is on the disk.
_WHOLE = "regraft-checkpoint.json"


def last_checkpoint(work: Path) -> str | None:
    """Find the last whole checkpoint in a directory."""
    whole = [path for path in work.glob("checkpoint-*") if (path / _WHOLE).is_file()]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def remove(directory: Path) -> None:
    """Remove a directory with checkpoints; none of them counts from the first moment on."""
    with undisturbed():
        for mark in directory.rglob(_WHOLE):
            mark.unlink()
        for inside in directory.iterdir():
            if inside.is_dir():
                shutil.rmtree(inside)
        shutil.rmtree(directory)


def run(trainer: Any, work: Path) -> None:
    """Let a Trainer train, from the last whole checkpoint on where there is one.

    Only the last checkpoint and the best one are kept, and an older one goes when the new one is on the disk.

    Args:
        trainer: transformers' Trainer, or one of its kind.
        work: where its checkpoints go.

    Raises:
        ModuleFileError: a checkpoint cannot be written.
    """
    save = trainer._save_checkpoint

    def save_whole(model: Any, trial: Any) -> None:
        checkpoint = work / f"checkpoint-{trainer.state.global_step}"
        try:
            with told(checkpoint):
                try:
                    save(model, trial)
                except RuntimeError as error:  # torch's writer does not say why it fails
                    raise OSError(first_line(error)) from error
                flush(checkpoint)
        except BaseException:
            with undisturbed():
                shutil.rmtree(checkpoint, ignore_errors=True)
            raise
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            write_json(checkpoint / _WHOLE, {"step": trainer.state.global_step})
            kept = {checkpoint, Path(trainer.state.best_model_checkpoint or checkpoint)}
            for older in set(work.glob("checkpoint-*")) - kept:
                remove(older)

    trainer._save_checkpoint = save_whole
    trainer.train(resume_from_checkpoint=last_checkpoint(work))
