"""Make a shallower student of a teacher and distill it on plain text: the paper's first step, free of any task.

transformers' Trainer on accelerate does the training, so its launchers work as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import set_seed

from ..errors import ModelError, TaskError, TrainingDivergedError
from ..files.directories import check_writable
from ..files.fingerprints import hash_rows, versions
from ..models.pretrained import resolve
from ..models.sites import depth as layers_in
from ..models.sites import find_sites
from ..modules.card import student_card
from ..modules.model_directory import model_files, save_model
from ..training.checkpoints import last_checkpoint, run
from ..training.devices import mixed_precision, training_arguments
from ..training.display import show_trainer
from ..training.runs import learning_curve, under_way
from ..training.tracking import Tracking, tracked
from .masking import collator, encode, split
from .options import DistillOptions
from .shallower import choose_layers, load_teacher, matched_states, shallower
from .trainer import Distiller


@dataclass(frozen=True)
class Distilled:
    """A student that was distilled and written.

    Attributes:
        path: its directory.
        layers: the teacher's layers that it is made of.
        before: losses on held-out text before training: ``loss`` (the weighted sum), its parts, and for language
            models ``teacher_lm``, the teacher's own loss on the same masks.
        after: the same at the end.
    """

    path: Path
    layers: tuple[int, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]


def distill(
    teacher: str | Path,
    out: Path,
    texts: Sequence[str],
    *,
    options: DistillOptions | None = None,
    trust_remote_code: bool = False,
    replace: bool = False,
    progress: bool = True,
    tracking: Tracking | None = None,
) -> Distilled:
    """Take layers of a teacher, distill them on texts, and write the student as a model directory.

    A teacher with a language-model head, masked or causal by its family, is distilled as DistilBERT was: divergence
    of the predictions, language-model loss, cosine of the last hidden states. One without is distilled by its hidden
    states alone: the cosine, and the mean squared distance of each student layer's output from what the teacher's
    next layer that was taken reads. Then nothing is masked.

    Of the texts 5% (at least one, at most 1000; chosen by the seed) are held out to evaluate on, with the same masks
    every time. Checkpoints are kept in a directory beside `out` until the end: the same call after a kill goes on from
    the last, and on a CPU ends with the very weights of the uninterrupted run.

    Args:
        teacher: a model of any type in `regraft.models.families`.
        out: where the student goes: configuration, weights (in float32), tokenizer, ``regraft.json``, ``curve.jsonl``
            and a model card. transformers loads it with every class that loads the teacher.
        texts: plain texts.
        options: how to train; of its layers, k for every k-th layer, or the layers' numbers (0-based, ascending).
        trust_remote_code: let Python code run that the teacher brings along.
        replace: replace a student that is there already.
        progress: whether to draw progress bars.
        tracking: where to show the training, by default nowhere.

    Returns:
        Where the student is, and its losses before and after.

    Raises:
        RegraftError: a model, texts, layers, options or directories that do not serve.
    """
    options = options or DistillOptions()
    mixed = mixed_precision(options.precision)
    check_writable(out, replace, model_files(out), [teacher])
    base = resolve(teacher, trust_remote_code)
    depth = layers_in(find_sites(base.skeleton(), base.family))
    if base.family.stacks or depth != base.config.num_hidden_layers:
        raise ModelError(
            f"{base.name} ({base.config.model_type}) has several lists of layers, or layers that share weights, "
            "expected one list of layers to take some of"
        )
    layers = choose_layers(options.layers, depth)
    parts = split(texts, options.seed)
    described = {
        **options.model_dump(),
        "teacher": base.name,
        "teacher_weights": base.weights_id,
        "layers": list(layers),
        "texts": {"train": len(parts[0]), "held_out": len(parts[1]), "hash": hash_rows(parts)},
        **({"trust_remote_code": True} if trust_remote_code else {}),
    }
    model, has_head = load_teacher(base)
    weights = _weights(options, has_head)
    tokenizer = base.tokenizer()
    masked = has_head and not base.family.causal
    data_collator = collator(tokenizer, options.mlm_probability if masked else None, options.seed)
    train, held_out = (encode(part, tokenizer, min(options.max_length, base.longest), masked) for part in parts)
    set_seed(options.seed)
    student = shallower(model, base.family, layers)
    with under_way(out, described, replace, model_files(out)) as work:
        trainer = Distiller(
            teacher=model,
            weights=weights,
            temperature=options.temperature,
            matched=matched_states(layers, depth),
            model=student,
            args=training_arguments(
                work,
                options,
                num_train_epochs=options.epochs,
                max_steps=options.max_steps or -1,
                per_device_eval_batch_size=options.batch_size,
                eval_strategy="steps",
                eval_steps=options.save_every,
                eval_on_start=last_checkpoint(work) is None,
                save_strategy="steps",
                save_steps=options.save_every,
                logging_strategy="steps",  # in step with the checkpoints, so a resumed curve is the uninterrupted one
                logging_steps=options.save_every,
                remove_unused_columns=False,  # masking reads which tokens are special
                ddp_find_unused_parameters=False,  # the losses reach every weight that is not frozen
            ),
            train_dataset=train,
            eval_dataset=held_out,
            data_collator=data_collator,
        )
        show_trainer(trainer, "Distilling", progress)
        with tracked(trainer, tracking):
            run(trainer, work)
        curve = learning_curve(trainer.state.log_history, trainer.reported, split="held-out")
        evaluated = [{name: row[name] for name in ("loss", *trainer.reported)} for row in curve if "split" in row]
        before, after = evaluated[0], evaluated[-1]
        if not math.isfinite(after["loss"]):
            raise TrainingDivergedError(f"the distillation diverged (loss {after['loss']}); use a lower learning rate")
        report = {**described, "language_model": has_head, "weights": weights, "mixed_precision": mixed}
        if trainer.is_world_process_zero():
            report["losses"] = {"before": before, "after": after}
            student.config.use_cache = getattr(base.config, "use_cache", True)  # the Trainer turned it off
            provenance = {"distillation": report, "versions": versions()}
            # A tokenizer that cuts nothing.
            save_model(Path(out), student, base.tokenizer(), provenance, student_card, replace, curve)
        trainer.accelerator.wait_for_everyone()
    return Distilled(Path(out), layers, before, after)


def _weights(options: DistillOptions, has_head: bool) -> dict[str, float]:
    if has_head:
        weights = {"kl": options.weight_kl, "lm": options.weight_lm, "cosine": options.weight_cosine}
    else:
        weights = {"cosine": options.weight_cosine, "hidden": options.weight_hidden}
    if not any(weights.values()):
        raise TaskError(f"the weights of {', '.join(weights)} are all 0, expected a positive one: nothing would train")
    return weights
