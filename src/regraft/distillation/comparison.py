"""How good a module is at being another one: its answers beside the other's, on texts that nobody labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from ..errors import ModuleFileError, TaskError
from ..files.texts import Text
from ..models.pretrained import ModelLike, Pretrained
from ..modules.module import Module, base_of
from ..modules.tensors import head_rows
from ..tasks.agreement import Agreement, agree
from .answer_kinds import ANSWERS, AnswerKind
from .answers import Answers, answer_kind, ask, labels_of
from .likelihood import bits_per_byte
from .options import AskOptions
from .vectors import by_halves
from .writing import Writing, written_texts

Floats = NDArray[np.floating]

# With fewer, an interval says nothing.
FEWEST_TEXTS = 10
# Of the calibration error, as in its paper.
_BINS = 15


@dataclass(frozen=True)
class LabelAgreement:
    """How a student gives one label, the teacher's answers standing for the right ones.

    Attributes:
        label: its name.
        share: of the answers of the teacher, in percent.
        precision: of the student's answers with it, the share that are the teacher's, in percent; None where it never
            gives it.
        recall: of the teacher's answers with it, the share that are the student's, in percent; None likewise.
    """

    label: str
    share: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Calibration:
    """How sure two modules are of their answers, and how far the student is right to be.

    Attributes:
        teacher: mean probability of the teacher's answers.
        student: of the student's.
        error: expected calibration error: how far the probability of the student's answer is, on average, from how
            often answers of that probability are the teacher's (Guo et al., ICML 2017, 15 bins); 0 to 1.
    """

    teacher: float
    student: float
    error: float


@dataclass(frozen=True)
class Comparison:
    """How far a student's answers are the teacher's.

    Attributes:
        teacher: where the teacher's module comes from.
        student: where the student's does.
        task_type: what both are for, as PEFT calls it.
        texts: how many both answered.
        rows: how many answers were compared: words, or texts.
        cut: how many more answers of the teacher have none beside them, since the student's text was cut.
        matched: by what labels were matched: ``"names"`` or ``"positions"``.
        agreement: of the student with the teacher.
        head_alone: of the student's task head on its bare model, without the rest of the module; of that model alone
            where no task head answers.
        commonest: what who knows nothing would answer: the teacher's most frequent label, ``"the whole context"`` or
            ``"the teacher's mean vector"``; None of numbers.
        floor: what always answering it would score, in percent; of numbers, 0.
        calibration: None where no labels are answered.
        labels: one by one; empty where there are none.
        bits_per_byte: of language models, of the ``teacher``, the ``student`` and the student's model ``alone``: the
            bits that each needs for a byte of the texts; None of others.
        written: the file of the texts where the teacher wrote them; None where they were given.
    """

    teacher: str
    student: str
    task_type: str
    texts: int
    rows: int
    cut: int
    matched: str
    agreement: Agreement
    head_alone: Agreement
    commonest: str | None
    floor: float
    calibration: Calibration | None
    labels: tuple[LabelAgreement, ...]
    bits_per_byte: Mapping[str, float] | None = None
    written: str | None = None

    @property
    def bare(self) -> str:
        """What of the student answers without the rest of its module: its ``"head"`` or its ``"model"``."""
        return "head" if ANSWERS[self.task_type].has_head else "model"

    @property
    def always(self) -> str:
        """What who knows nothing answers, in words; of no use of language models."""
        return "one number for all" if self.commonest is None else f"always {self.commonest}"


def compare(
    teacher: Module,
    student: Module,
    texts: Sequence[Text] | Writing,
    *,
    teacher_model: ModelLike | None = None,
    model: ModelLike | None = None,
    options: AskOptions | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare what two modules of one task answer, on whichever models and tokenizers.

    Args:
        teacher: the module whose answers stand for the right ones.
        student: the module that is judged by them.
        texts: plain texts of the kind that the modules are for, or pairs of them where they were trained on pairs; or
            how many the teacher, a language model, is to write, see `written_texts`.
        teacher_model: the teacher's base model; by default the one that its configuration names.
        model: the student's.
        options: batch size and length.
        seed: of texts that are written.
        trust_remote_code: let Python code run that the models bring along.
        device: where to run; by default a GPU where there is one.
        progress: whether to draw progress bars.

    Raises:
        ModuleFileError: a module that does not answer, or two that answer with other labels.
        TaskError: too few texts, none that both answer, or a teacher that gives one answer to all.
    """
    bases = (
        base_of(teacher, teacher_model, trust_remote_code, "--teacher-model"),
        base_of(student, model, trust_remote_code),
    )
    columns = _match(teacher, student, *bases)
    options, file = options or AskOptions(), None
    where: dict[str, Any] = {"device": device, "progress": progress}
    if isinstance(texts, Writing):
        own = written_texts(texts, teacher, model=bases[0], max_length=options.max_length, seed=seed, **where)
        texts, file = own.texts, str(own.file)
    if len(texts) < FEWEST_TEXTS:
        raise TaskError(f"found {len(texts)} texts, expected at least {FEWEST_TEXTS}, some hundred better; give more")
    how = {**options.model_dump(), **where}
    its = ask(bases[0], teacher, texts, **how)
    mine, alone = (ask(bases[1], student, texts, head_alone=bare, **how) for bare in (False, True))
    found = replace(_compared(teacher, student, columns, its, mine, alone), written=file)
    if not ANSWERS[its.task_type].in_bits:
        return found
    said = {"teacher": its, "student": mine, "alone": alone}
    bits = {name: bits_per_byte(one.logits, one.text, one.word, texts) for name, one in said.items()}
    return replace(found, bits_per_byte=bits)


@dataclass(frozen=True)
class _Columns:
    """The columns of the student's answers in the order of the teacher's.

    Attributes:
        names: of the labels; empty where nobody names them.
        order: the student's column of each.
        by: what they are matched by, as in `Comparison.matched`.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    by: str


def _match(teacher: Module, student: Module, base_t: Pretrained, base_s: Pretrained) -> _Columns:
    """Match the labels of two heads: by name where both have the same names, else by position.

    The names in a base model's configuration count only where those of the other module confirm them: it may have
    been fine-tuned for something else before.
    """
    for module in (teacher, student):
        answer_kind(module)
    kinds = [str(module.config["task_type"]) for module in (teacher, student)]
    rows = [head_rows(module.tensors) or 0 for module in (teacher, student)]
    if len({*kinds}) > 1 or len({*rows}) > 1:
        said = [f"{kind} with {count} labels" for kind, count in zip(kinds, rows, strict=True)]
        raise ModuleFileError(
            f"{teacher.source} is for {said[0]}, {student.source} for {said[1]}, expected modules of one task"
        )
    its, mine = labels_of(teacher, base_t), labels_of(student, base_s)
    if sorted(its) == sorted(mine) and its:
        return _Columns(its, tuple(mine.index(name) for name in its), "names")
    if teacher.labels and student.labels:
        raise ModuleFileError(
            f"{teacher.source} answers with the labels {', '.join(its)}, {student.source} with {', '.join(mine)}, "
            "expected the same ones; compare modules of one task"
        )
    return _Columns(teacher.labels or student.labels or its or mine, tuple(range(max(rows[0], 1))), "positions")


def _compared(
    teacher: Module, student: Module, columns: _Columns, its: Answers, mine: Answers, alone: Answers
) -> Comparison:
    """Work out a comparison from the answers of the teacher, the student and the student's head alone."""
    here, there, text = mine.beside(its)
    right = there.numpy().astype(np.float64)
    kind = ANSWERS[its.task_type]
    given, bare = (_in_terms_of(there, one, columns, kind) for one in (here, alone.beside(its)[0]))
    found, head = (agree(its.task_type, right, one, text, columns.names) for one in (given, bare))
    best = right.argmax(1)
    labelled = kind.has_labels and right.shape[1] > 1
    names = columns.names or tuple(f"LABEL_{row}" for row in range(right.shape[1]))
    if found.constant:
        only = f", {names[best[0]] if labelled else f'{right[0, 0]:g}'}," if kind.has_labels else ""
        raise TaskError(
            f"{teacher.source} gives one answer{only} to all of {len(right)} {kind.of}, so that agreeing with it says "
            "nothing; give texts of the kind it was trained for, and check that it was trained"
        )
    uninformed = kind.uninformed
    if labelled:
        commonest = int(np.bincount(best).argmax())
        uninformed = names[commonest], lambda _, rows: np.tile(np.eye(right.shape[1])[commonest], (len(rows), 1))
    floor = uninformed and agree(its.task_type, right, uninformed[1](right, text), text, columns.names).percent
    return Comparison(
        teacher.source,
        student.source,
        its.task_type,
        found.texts,
        len(right),
        len(its.logits) - len(right),
        columns.by,
        found,
        head,
        uninformed[0] if uninformed else None,
        floor or 0.0,
        _calibration(right, given) if labelled else None,
        _by_label(names, best, given.argmax(1)) if labelled else (),
    )


def _in_terms_of(teacher: Tensor, student: Tensor, columns: _Columns, kind: AnswerKind) -> Floats:
    """Bring the columns of a student's answers to those of its teacher's."""
    if kind.bridge is not None:
        student = by_halves(kind.bridge, student, teacher)
    elif kind.has_labels:
        student = student[:, list(columns.order)]
    return student.numpy().astype(np.float64)


def _by_label(names: Sequence[str], its: NDArray[np.int64], mine: NDArray[np.int64]) -> tuple[LabelAgreement, ...]:
    found = []
    for row, name in enumerate(names):
        given, right, both = (int(which.sum()) for which in (mine == row, its == row, (mine == row) & (its == row)))
        precision, recall = (100 * both / count if count else None for count in (given, right))
        found.append(LabelAgreement(name, 100 * right / len(its), precision, recall))
    return tuple(found)


def _calibration(teacher: Floats, student: Floats) -> Calibration:
    its, mine = softmax(teacher, axis=1), softmax(student, axis=1)
    sure, same = mine.max(1), mine.argmax(1) == its.argmax(1)
    bins = np.minimum((sure * _BINS).astype(np.int64), _BINS - 1)
    # Of each bin the share of the answers times the distance of the two means: the counts cancel out.
    apart = np.bincount(bins, sure - same)
    return Calibration(float(its.max(1).mean()), float(sure.mean()), float(np.abs(apart).sum() / len(sure)))
