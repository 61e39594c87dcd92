"""Fine-tune a module and score it: transformers' Trainer on accelerate, so its launchers work as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import get_peft_model, set_peft_model_state_dict
from transformers import set_seed

from ..files.directories import check_writable
from ..models.pretrained import resolve
from ..modules.module import FILES, Module, load
from ..tasks.options import DataOptions
from .attachment import attach, detach, keeps_head, with_head
from .checkpoints import last_checkpoint, run
from .devices import mixed_precision
from .fresh import fresh_config
from .labels import label_order
from .options import TrainOptions
from .runs import best_of, learning_curve, under_way
from .tracking import Tracking, tracked
from .trainer import make_trainer, score_split


def train(
    model: str | Path,
    out: str | Path,
    *,
    data: DataOptions | None = None,
    options: TrainOptions | None = None,
    peft: str = "lora",
    init: str | Path | None = None,
    trust_remote_code: bool = False,
    replace: bool = False,
    progress: bool = True,
    tracking: Tracking | None = None,
) -> Module:
    """Fine-tune a fresh module, or one that was ported, and write it with its learning curve.

    Checkpoints are kept in a directory beside `out` until the end: the same call after a kill goes on from the last.

    Args:
        model: the base model.
        out: where the module goes: what PEFT loads, ``regraft.json`` with all scores, ``curve.jsonl``.
        data: the task and its rows.
        options: how to train.
        peft: ``"lora"`` (query and value) or ``"bottleneck"``, where `init` is None.
        init: a module to start from. By default it keeps a task head that was ported or trained, whose label names are
            those of the task, or which names none and has as many, see `TrainOptions.head`.
        trust_remote_code: let Python code run that the model brings along.
        replace: replace `out` where it exists.
        progress: whether to draw progress bars.
        tracking: where to show the training, by default nowhere.

    Returns:
        The best module by validation score: a checkpoint or, where it is better than all of them and its head was kept,
        the start (a head that is drawn at random scores by chance, so such a start does not compete).
        ``provenance["training"]`` has the ``step`` it is of, 0 for the start, and ``scores``: before training, and of
        what is kept on the validation and on the test split.

    Raises:
        RegraftError: data, model, module or directories that do not serve.
    """
    out, data, options = Path(out), data or DataOptions(), options or TrainOptions()
    mixed_precision(options.precision)  # refuses what this machine cannot do before any work
    check_writable(out, replace, FILES, [model, init, data.data])
    base = resolve(model, trust_remote_code)
    start = None if init is None else load(init)
    loaded = data.load()
    order = None if start is None else label_order(start, base, loaded)
    ordered = loaded if order is None else loaded.ordered(order.labels)
    keep_head = keeps_head(start, ordered, options.head)
    loaded = ordered if keep_head else loaded
    described = {
        **options.model_dump(),
        "head": "teacher" if keep_head else "fresh",
        "model": base.name,
        "model_weights": base.weights_id,
        "start": peft if start is None else start.source,
        "start_hash": None if start is None else start.hash(),
        "task": data.task,
        "data": loaded.source,
        "data_hash": loaded.fingerprint,
        "left_out": loaded.left_out,
        "labels": list(loaded.task.labels),
        **({"start_commit": start.commit} if start is not None and start.commit else {}),
        **({"trust_remote_code": True} if trust_remote_code else {}),
    }
    set_seed(options.seed)
    if start is None:
        adapted = get_peft_model(with_head(base, loaded.task), fresh_config(base, loaded.task, peft, options))
    else:
        adapted = attach(base, start, loaded.task, fresh_head=not keep_head)
    with under_way(out, described, replace, FILES) as work:
        trainer = make_trainer(
            base, adapted, work, options, loaded, progress, trains=True, eval_on_start=last_checkpoint(work) is None
        )
        with tracked(trainer, tracking):
            run(trainer, work)
        curve = learning_curve(trainer.state.log_history, loaded.task.metrics)
        kept = best_of(curve, loaded.task.metrics, start_competes=keep_head)
        if start is not None and kept.step == 0:
            set_peft_model_state_dict(adapted, dict(start.tensors))
        scores = {**kept.scores, "test": score_split(trainer, base, loaded, "test", options)}
        training = {**described, "step": kept.step, "scores": scores}
        if order is not None and order.labels and keep_head:
            training["labels_said_by"] = order.said_by
        provenance: dict[str, Any] = {"labels": described["labels"], "training": training}
        if start is not None:
            provenance |= {key: start.provenance[key] for key in ("port", "refinement") if key in start.provenance}
        module = detach(adapted, base, str(out), provenance)
        if trainer.is_world_process_zero():
            module.save(out, replace, curve=curve)
        trainer.accelerator.wait_for_everyone()
    return module
