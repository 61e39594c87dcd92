"""What is checked before a module learns from another: that the two belong together, and that losses fit answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import ModuleFileError, TaskError
from ..files.texts import Text
from ..modules.module import Module
from ..modules.tensors import head_rows
from .answers import Answers, answer_kind
from .lesson import distinct, held_out_texts
from .options import RefineOptions


def check_lesson(teacher: Module, texts: Sequence[Text]) -> None:
    """Check, before models run, that a teacher's module answers and that there are enough texts.

    Raises:
        RegraftError: so it is not.
    """
    answer_kind(teacher)
    held_out_texts(len(distinct(texts)), 0)


def check_pair(student: Module, teacher: Module) -> None:
    """Check that a student's module can learn from a teacher's: both have a task head, for the same labels.

    Raises:
        ModuleFileError: so it is not.
    """
    kinds = [str(module.config.get("task_type")) for module in (student, teacher)]
    if kinds[0] != kinds[1]:
        raise ModuleFileError(
            f"{student.source} has task type {kinds[0]}, its teacher {teacher.source} {kinds[1]}, expected the same"
        )
    rows = [head_rows(module.tensors) for module in (student, teacher)]
    if rows[0] is None and answer_kind(teacher).has_head:
        raise ModuleFileError(
            f"{student.source} has no task head that could learn answers; port the teacher's with its head"
        )
    if rows[0] != rows[1]:
        raise ModuleFileError(
            f"{student.source} has a head of {rows[0]} labels, its teacher {teacher.source} one of {rows[1]}, "
            "expected as many"
        )


def check_losses(teacher: Module, options: RefineOptions) -> None:
    """Check that a teacher's answers are of the kind that the losses are for.

    Raises:
        TaskError: they have no largest, or two options contradict each other.
    """
    asked = [f"--{name}" for name in ("hard", "certainty") if getattr(options, name)]
    if asked and (head_rows(teacher.tensors) == 1 or not answer_kind(teacher).has_labels):
        raise TaskError(
            f"found {asked[0]}, but {teacher.source} does not answer with labels, one of which would be its answer; "
            f"leave out {asked[0]}"
        )
    if options.weigh_changes and not answer_kind(teacher).in_bits:
        raise TaskError(
            f"found --weigh-changes, but {teacher.source} is no language model's module, which makes some tokens "
            "likelier and others not; leave out --weigh-changes"
        )
    if options.hidden and answer_kind(teacher).states is None:
        raise TaskError(
            f"found --hidden {options.hidden:g}, but the answers of {teacher.source} are its last hidden states "
            "already; leave out --hidden"
        )
    if options.hard and options.temperature != 1:
        raise TaskError(
            f"found --temperature {options.temperature:g} beside --hard, which learns answers that nothing softens; "
            "leave out one of them"
        )


def in_order_of(student: Module, answers: Answers, teacher: str) -> Answers:
    """Bring the columns of a teacher's answers into the order of the rows of a student's head, by name.

    Args:
        student: the student's module.
        answers: the teacher's.
        teacher: what to call the teacher's module.

    Returns:
        The answers as they are, where one of the two has no names; with the names that are known.

    Raises:
        ModuleFileError: the two have other labels.
    """
    # A port may have been told what the teacher's own files do not say.
    told = (student.report.get("options") or {}).get("teacher_labels") or ()
    its, mine = answers.labels or tuple(told), student.labels or answers.labels
    if not its or its == mine:
        return replace(answers, labels=mine)
    if {*its} != {*mine}:
        raise ModuleFileError(
            f"{student.source} has the labels {', '.join(mine)}, its teacher {teacher} {', '.join(its)}, expected the "
            "same; port the teacher's head"
        )
    return replace(answers, logits=answers.logits[:, [its.index(name) for name in mine]], labels=mine)


def with_changes(answers: Answers, alone: Answers, teacher: str) -> Answers:
    """Add to a language model's answers, as the last column, what the model says without its module.

    Args:
        answers: with its module.
        alone: without.
        teacher: what to call the module.

    Raises:
        TaskError: the module changes nothing, so there is nothing to weigh by.
    """
    if torch.equal(answers.judged, alone.logits):
        raise TaskError(
            f"{teacher} changes nothing of what its base model says of the texts, so nothing can be weighed by that; "
            "leave out --weigh-changes"
        )
    return replace(answers, logits=torch.cat([answers.logits, alone.logits], dim=1))
