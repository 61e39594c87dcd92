"""What is kept of a training: its best checkpoint, or the start where that is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Stranger
from transformers import TrainerCallback

import regraft
from regraft.tasks.options import DataOptions
from regraft.training import finetuning
from regraft.training.evaluation import evaluate
from regraft.training.finetuning import train
from regraft.training.options import TrainOptions
from regraft.training.runs import best_of
from regraft.training.trainer import make_trainer

# So fast that whatever the start knows is lost at once.
WRECK = TrainOptions(epochs=2, batch_size=8, learning_rate=5.0, warmup=0)


@pytest.fixture(scope="module")
def start(stranger: Stranger, tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """Name the labels of the stranger's module."""
    path = tmp_path_factory.mktemp("start") / "start"
    regraft.transfer(regraft.load(stranger.module), stranger.base, teacher_labels=["yes", "no"]).save(path)
    return replace(stranger, module=str(path))


def trained(start: Stranger, out: Path, options: TrainOptions = WRECK) -> regraft.Module:
    data = DataOptions(task="classification", data=start.data)
    return train(start.base, out, init=start.module, data=data, options=options, progress=False)


def test_a_start_that_is_better_than_every_checkpoint_is_kept(start: Stranger, tmp_path: Path) -> None:
    module = trained(start, tmp_path / "out")
    training, before = module.provenance["training"], regraft.load(start.module)
    assert training["step"] == 0
    assert training["scores"]["validation"] == training["scores"]["before training"]
    assert module.hash() == regraft.load(tmp_path / "out").hash() == before.hash()
    data = DataOptions(task="classification", data=start.data)
    assert training["scores"]["test"] == evaluate(start.module, data=data, progress=False) == {"accuracy": 87.5}
    assert "Training did not help: this is its start." in (tmp_path / "out" / "README.md").read_text()


def test_it_is_kept_after_a_kill_too(start: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kill(TrainerCallback):
        def on_save(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

    def killed(*given: Any, **more: Any) -> Any:
        trainer = make_trainer(*given, **more)
        trainer.add_callback(Kill())
        return trainer

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(finetuning, "make_trainer", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(start, tmp_path / "out")
    assert list((tmp_path / "out.training").glob("checkpoint-*/regraft-checkpoint.json"))
    module = trained(start, tmp_path / "out")
    assert module.provenance["training"]["step"] == 0
    assert (
        module.provenance["training"]["scores"] == trained(start, tmp_path / "whole").provenance["training"]["scores"]
    )
    assert module.hash() == regraft.load(start.module).hash()


def test_of_equals_what_was_trained_is_kept(start: Stranger, tmp_path: Path) -> None:
    still = trained(start, tmp_path / "out", WRECK.model_copy(update={"learning_rate": 0.0}))
    training = still.provenance["training"]
    assert training["step"] > 0
    assert training["scores"]["validation"] == training["scores"]["before training"]


def test_a_head_that_is_drawn_at_random_does_not_compete(start: Stranger, tmp_path: Path) -> None:
    module = trained(start, tmp_path / "out", WRECK.model_copy(update={"head": "fresh"}))
    assert module.provenance["training"]["step"] > 0
    curve = [{"step": step, "split": "validation", "f1": f1} for step, f1 in ((0, 2.0), (5, 0.0), (10, 1.0), (15, 1.0))]
    kept = best_of(curve, ("f1",), start_competes=False)
    assert (kept.step, kept.scores) == (10, {"before training": {"f1": 2.0}, "validation": {"f1": 1.0}})
    kept = best_of(curve, ("f1",), start_competes=True)
    assert (kept.step, kept.scores) == (0, {"before training": {"f1": 2.0}, "validation": {"f1": 2.0}})


def test_the_command_says_it_in_one_sentence(
    start: Stranger, stranger: Stranger, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    sentence = "Training did not help: the start is better than every checkpoint, so it is what is kept"
    here = ("train", "--model", start.base, *start.options, "--batch-size", 8, "--epochs", 1, "--quiet")
    wreck, still = ("--learning-rate", 5, "--warmup", 0), ("--learning-rate", 0)
    code, out, error = run(*here, *wreck, "--init", start.module, "--out", tmp_path / "a")
    assert code == 0, error
    assert sentence in out
    code, out, error = run(*here, *still, "--init", start.module, "--out", tmp_path / "b")
    assert code == 0, error
    assert sentence not in out
    # Nobody names this one's labels: the alphabet's order is wrong, and said.
    code, out, error = run(*here, *still, "--init", stranger.module, "--out", tmp_path / "c")
    assert code == 0, error
    assert "It names no labels; taken by the alphabet: no, yes (--head fresh for another head)" in out
    assert regraft.load(tmp_path / "c").provenance["training"]["scores"]["test"] == {"accuracy": 12.5}
