"""Finish a port without labels: train it on what the teacher answers to plain texts.

transformers' Trainer on accelerate does the training, so its launchers work as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from peft import PeftModel, set_peft_model_state_dict
from transformers import set_seed

from ..errors import TaskError
from ..files.directories import check_writable
from ..files.fingerprints import hash_rows
from ..files.texts import Text
from ..models.pretrained import ModelLike, Pretrained
from ..modules.module import FILES, Module, base_of, load
from ..schema import make
from ..tasks.data import Loaded
from ..tasks.options import TaskOptions
from ..training.attachment import attach, check_head, detach
from ..training.checkpoints import last_checkpoint, run
from ..training.devices import mixed_precision, processes, training_arguments
from ..training.display import show_trainer
from ..training.runs import learning_curve, under_way
from ..training.tracking import Tracking, tracked
from .answers import answer_kind
from .checks import check_losses, check_pair, in_order_of, with_changes
from .growth import grown
from .kept_answers import kept_answers
from .labelled import LabelledRows, labelled_rows
from .lesson import Lesson, distinct, held_out_texts
from .likeliest import tokens_of
from .options import AUTO, RefineOptions
from .refiner import METRICS, STANDING, Refiner, StopWhereNothingIsGained, measured, standing
from .writing import Writing, written_texts

# Of a training of known length: how often it looks at the held-out texts, and after how many steps at the least.
_LOOKS, _BETWEEN = 10, 25
# Of one that ends by itself: after how many steps it looks, for how many it warms up, where it ends at the latest.
_AUTO_BETWEEN, _AUTO_WARM_UP, _AUTO_END = 50, 20, 3000


def refine(
    module: Module | str | Path,
    teacher: Module | str | Path,
    texts: Sequence[Text] | Writing,
    out: Path | None = None,
    *,
    options: RefineOptions | None = None,
    model: str | Path | None = None,
    teacher_model: ModelLike | None = None,
    answers: Path | None = None,
    trust_remote_code: bool = False,
    replace: bool = False,
    progress: bool = True,
    tracking: Tracking | None = None,
    data: TaskOptions | None = None,
    by_texts: Sequence[int] = (),
    **fields: Any,
) -> Module:
    """Train a student's module on what the teacher's module answers to plain texts, without a label or beside some.

    The loss is the divergence of the student's answers from the teacher's (Hinton et al. 2015, arXiv 1503.02531), word
    by word or text by text; of numbers their squared difference, of answers to questions that of their starts and
    ends, of sentence embeddings one minus the cosine; of language models the approximate likelihood matching of
    `likelihood` or, where both have one tokenizer, the divergence of `likeliest`; beside it, where asked, the distance
    of last hidden states, see `hidden.HiddenDistance`. A tenth of the texts, 20 to 1,000, is held out: of the states on
    the way, the start among them, the one is kept that gives most of the teacher's answers to them.

    With labelled rows as well, a step takes a batch of texts and one of rows, and the loss is the mean of the
    divergence and of the task's own loss; what is kept is judged by agreement all the same.

    Args:
        module: the student's module, with a task head for the teacher's labels: what `regraft.transfer` gives.
        teacher: the teacher's module.
        texts: plain texts, or pairs of them, of the kind that the module is for. Those that occur twice count once. Or
            how many a language model is to write, see `written_texts`.
        out: where the module goes, with ``curve.jsonl``; checkpoints are kept beside it until the end, so that the
            same call after a kill goes on from the last. By default nothing is written.
        options: how to train.
        model: the student's base model, by default the one that its module names.
        teacher_model: the teacher's, likewise.
        answers: where the teacher's answers are kept, by default in the user's cache, see `kept_answers`.
        trust_remote_code: let Python code run that the models bring along.
        replace: replace `out` where it exists.
        progress: whether to draw progress bars.
        tracking: where to show the training, by default nowhere.
        data: a task and its data, to learn from the training rows as well but for those of held-out texts.
        by_texts: numbers of texts; the start is refined on the first so many as well, to tell what their number limits.
        fields: single fields of `RefineOptions`, such as ``steps=200``.

    Returns:
        The student's module. ``provenance["refinement"]`` says who answered, on which texts, the ``step`` that is kept
        (0 for the start) of how many ``steps_taken``, and the ``agreement`` before, after, and after on as many of the
        texts that were ``learnt``; of labelled rows what was ``labelled``; ``by_texts`` what was reached on how many
        texts; and where the texts are that the teacher has ``written``.

    Raises:
        RegraftError: modules, models, texts, options or directories that do not serve.
    """
    options = make(RefineOptions, fields, TaskError).over(options or RefineOptions())
    mixed = mixed_precision(options.precision)  # refuses what this machine cannot do before any work
    if out is not None:
        check_writable(out, replace, FILES, [module, teacher, model, teacher_model, data and data.data])
    start, teaches = (one if isinstance(one, Module) else load(one) for one in (module, teacher))
    check_pair(start, teaches)
    check_losses(teaches, options)
    loaded = None if data is None else data.load()
    if loaded is not None:
        check_head(start, loaded.task)
    base = base_of(start, model, trust_remote_code)
    larger = grown(start, base, options.grow, options.rank, options.seed)
    of_teacher: dict[str, Any] = {}
    if isinstance(texts, Writing):
        held_out_texts(texts.count, options.seed)  # so few are refused before they are written
        own = written_texts(
            texts,
            teaches,
            answers,
            model=teacher_model,
            max_length=options.max_length,
            seed=options.seed,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
        of_teacher["written"] = {"asked": texts.count, "prompts": len(texts.prompts), "file": str(own.file)}
        texts = own.texts
    texts = distinct(texts)
    held_out = held_out_texts(len(texts), options.seed)
    sizes = _checked_sizes(by_texts, len(texts) - len(held_out))
    asked = partial(
        kept_answers,
        teaches,
        texts,
        answers,
        model=teacher_model,
        max_length=options.max_length,
        hidden=options.hidden > 0,
        tokens=tokens_of(base, texts) if answer_kind(teaches).one_tokenizer else "",
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    given = in_order_of(start, asked(), teaches.source)
    if options.weigh_changes:
        given = with_changes(given, asked(alone=True), teaches.source)
    rows: LabelledRows | None = None
    labelled: dict[str, Any] = {}
    if data is not None and loaded is not None:
        judged = [texts[number] for number in held_out]
        rows = labelled_rows(loaded, given.labels, teaches, base, judged, options.max_length)
        given = dataclasses.replace(given, labels=rows.order.labels)
        labelled["labelled"] = _described(data, loaded, rows)
    lesson = Lesson(texts, given, held_out, options.max_length, options.batch_size, rows)
    metric = lesson.check(teaches.source)
    described = {
        **options.model_dump(mode="json"),
        "teacher": teaches.source,
        "teacher_hash": teaches.hash(),
        "teacher_model": str(teacher_model) if isinstance(teacher_model, str | Path) else teaches.base_model,
        "texts": {"learnt": len(lesson.learnt), "held_out": len(held_out), "hash": hash_rows(texts), **of_teacher},
        "model": base.name,
        "model_weights": base.weights_id,
        "start": start.source,
        "start_hash": start.hash(),
        "mixed_precision": mixed,
        **labelled,
        **({"teacher_commit": teaches.commit} if teaches.commit else {}),
        **({"one_tokenizer": given.one_tokenizer} if given.kind.in_bits else {}),
        **({"trust_remote_code": True} if trust_remote_code else {}),
    }
    with ExitStack() as stack:
        if out is None:
            work = Path(stack.enter_context(TemporaryDirectory()))
        else:
            work = stack.enter_context(under_way(out, described, replace, FILES))
        reached = {}
        for size in sizes:
            few = dataclasses.replace(lesson, limit=size)
            reached[size] = _looks(_learn(few, base, larger, work / f"texts-{size}", options, progress)[-1])[-1]
        trainer, adapted, curve = _learn(lesson, base, larger, work, options, progress, tracking)
        before, best = _looks(curve)
        learnt = trainer.lesson.agreement(adapted.eval(), base, trainer.lesson.learnt_beside)
        refinement = {
            **described,
            "step": best["step"],
            "steps_taken": trainer.state.global_step,
            "metric": metric,
            "agreement": {"before": _scores(before), "after": _scores(best)},
        }
        if learnt.metric == metric:  # else there is no span in them, and their words are counted instead
            refinement["agreement"]["learnt"] = _scores(measured(learnt))
        if reached:
            reached[len(lesson.learnt)] = best
            refinement["by_texts"] = [{"texts": size, **_scores(row)} for size, row in reached.items()]
        named = {"labels": list(lesson.answers.labels)} if lesson.answers.labels else {}
        provenance = {**start.provenance, **named, "refinement": refinement}
        source = f"{start.source}, refined" if out is None else str(out)
        refined = detach(adapted, base, source, provenance)
        if out is not None and trainer.is_world_process_zero():
            refined.save(out, replace, curve=curve)
        trainer.accelerator.wait_for_everyone()
    return refined


def _learn(
    lesson: Lesson,
    base: Pretrained,
    start: Module,
    work: Path,
    options: RefineOptions,
    progress: bool,
    tracking: Tracking | None = None,
) -> tuple[Refiner, PeftModel, list[dict[str, Any]]]:
    """Train a module, from the last checkpoint where there is one.

    Returns:
        The trainer, the model with the module in the state that is kept, and the learning curve.
    """
    set_seed(options.seed)
    adapted = attach(base, start, lesson.task)
    trainer = _trainer(lesson, base, adapted, work, options, progress)
    with tracked(trainer, tracking):
        run(trainer, work)
    curve = learning_curve(trainer.state.log_history, METRICS, split="held-out")
    if _looks(curve)[-1]["step"] == 0:
        set_peft_model_state_dict(adapted, dict(start.tensors))
    return trainer, adapted, curve


def _looks(curve: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Take the look at the start, and the best one, from a learning curve."""
    looks = [row for row in curve if "split" in row]
    return looks[0], max(looks, key=lambda row: standing(row[METRICS[-1]], row["loss"]))


def _trainer(
    lesson: Lesson, base: Pretrained, adapted: Any, work: Path, options: RefineOptions, progress: bool
) -> Refiner:
    """Set up the training, with looks, and checkpoints beside them."""
    if options.steps == AUTO:
        length = {"max_steps": _AUTO_END, "warmup_steps": _AUTO_WARM_UP, "lr_scheduler_type": "constant_with_warmup"}
        between, callbacks = _AUTO_BETWEEN, [StopWhereNothingIsGained()]
    else:
        length, callbacks = {"max_steps": options.steps}, []
        between = max(_BETWEEN, math.ceil(options.steps / _LOOKS))
    batches = length["max_steps"] * processes().num_processes
    trainer = Refiner(
        lesson,
        base,
        lesson.distance(options),
        options.hidden,
        model=adapted,
        args=training_arguments(
            work,
            options,
            **length,
            eval_strategy="steps",
            eval_steps=between,
            eval_on_start=last_checkpoint(work) is None,
            save_strategy="steps",
            save_steps=between,
            load_best_model_at_end=True,
            metric_for_best_model=STANDING,
            logging_strategy="steps",  # in step with the checkpoints, so that a resumed curve is the uninterrupted one
            logging_steps=between,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,  # the collator reads the numbers of texts
            ddp_find_unused_parameters=False,  # the loss reaches every weight that is trained
        ),
        train_dataset=Dataset.from_dict(lesson.examples(batches, options.seed)),
        callbacks=callbacks,
    )
    show_trainer(trainer, "Refining", progress)
    return trainer


def _scores(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high, percent = (row[name] for name in METRICS)
    return {"percent": percent, "interval": [low, high], "divergence": row["loss"]}


def _checked_sizes(by_texts: Sequence[int], learnt: int) -> list[int]:
    for size in by_texts:
        if not 0 < size < learnt:
            raise TaskError(
                f"found {size} among the numbers of texts to refine on as well, expected each from 1 to {learnt - 1}: "
                f"there are {learnt} to learn from (--by-texts)"
            )
    return sorted({*by_texts})


def _described(data: TaskOptions, loaded: Loaded, rows: LabelledRows) -> dict[str, Any]:
    said = {"task": data.task, "data": loaded.source, "data_hash": loaded.fingerprint, "rows": rows.count}
    return {**said, "labels": [*rows.order.labels], "labels_said_by": rows.order.said_by}
