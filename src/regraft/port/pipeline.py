"""The one-call form: plan, sample, align, transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..activations.sampling import Sample, _check_same_pair, _loaded, sample
from ..alignment.fitting import Score
from ..alignment.methods import method_named
from ..errors import ModuleFileError, PlanError, SamplingError
from ..models.pretrained import BaseModel, ModelLike, resolve
from ..models.sites import Space
from ..modules.module import Module
from ..modules.peft_types import Convention
from .execution import transfer_tensors
from .forecast import Fidelity, fidelity, summary, verdict
from .options import default_align, default_spaces, how_to_fit
from .parts import Target
from .plan import Plan, make_plan
from .sequential import Fitted, fit_in_sequence
from .spaces import fit_spaces, spaces_read


def account(
    drawn: Plan,
    module: Module,
    teacher: BaseModel,
    student: BaseModel,
    layers: str | Sequence[int],
    align: str,
    spaces: str,
    seed: int,
    sequential: bool,
    fitted: Fitted,
) -> dict[str, Any]:
    """Account for every tensor, and for all that made it.

    Args:
        drawn: the plan.
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        layers: as the user named them.
        align: name of the method.
        spaces: ``"released"`` or ``"measured"``.
        seed: of everything that was drawn.
        sequential: whether the maps were fitted in sequence.
        fitted: the maps.
    """
    taken = fitted.sample
    return {
        "module": module.source,
        "module_hash": module.hash(),
        "teacher": teacher.name,
        "teacher_config": teacher.config_hash,
        "student": student.name,
        "student_config": student.config_hash,
        "layers": layers if isinstance(layers, str) else ",".join(map(str, layers)),
        "groups": [[asdict(share) for share in group] for group in drawn.groups],
        "align": align,
        "spaces": "not needed" if method_named(align).identity else spaces,
        "head": drawn.head,
        "sequential": sequential,
        "scale": fitted.scale,
        "scales": {str(factor): share for factor, share in fitted.scales.items()},
        "seed": seed,
        "sampled": taken.describe() if taken else None,
        "sample": asdict(taken.source) if taken else None,
        "scores": [{**asdict(score), "space": str(score.space)} for score in fitted.scores],
        "tensors": {target.key: _made(target, fitted.scale) for target in drawn.targets},
        "left": dict(drawn.left),
    }


def _made(target: Target, scale: float) -> dict[str, Any]:
    factor = scale if target.writes else 1.0
    return {
        # A plan does not know a scale that is still to be searched.
        "action": "scaled" if target.action == "copied" and factor != 1 else target.action,
        "shape": list(target.shape),
        "from": {part.tensor: part.weight * factor for part in target.parts},
    }


@dataclass(frozen=True)
class Foresight:
    """What is known of a port before any training.

    Attributes:
        plan: who gets what.
        scores: how well each map fits.
        fidelity: how much of what the module reads it keeps, per place; empty without moments with covariances.
        expected: the same summed up, see `fidelity.summary`; None without.
        module: the student's module.
    """

    plan: Plan
    scores: Sequence[Score[Space]]
    fidelity: Sequence[Fidelity]
    expected: Mapping[str, float | None] | None
    module: Module

    @property
    def verdict(self) -> str | None:
        """Whether it will help, in a sentence; None where it is not known, or nothing is ported that could."""
        report = self.module.report
        silent = method_named(report["align"]).silent or report["scale"] == 0
        return None if silent and self.plan.head != "teacher" else verdict(self.expected)


def plan(
    module: Module,
    student: ModelLike,
    teacher: ModelLike | None = None,
    layers: str | Sequence[int] = "skip",
    align: str | None = None,
    spaces: Convention | None = None,
    head: str | None = None,
    labels: Sequence[str] | None = None,
) -> Plan:
    """Plan a port without loading any weights; arguments as for `transfer`.

    Raises:
        RegraftError: the module, the models or the options do not serve. What the plan itself refuses is in its
            ``problems``.
    """
    align = align or default_align(sampled=False)
    spaces = spaces or default_spaces(align)
    base, target = _teacher(module, teacher), resolve(student)
    return make_plan(module, base, target, layers, align, spaces, head, labels)


def transfer(
    module: Module,
    student: ModelLike,
    teacher: ModelLike | None = None,
    layers: str | Sequence[int] = "skip",
    align: str | None = None,
    texts: Sequence[str] | None = None,
    pairing: str = "offsets",
    spaces: Convention | None = None,
    seed: int = 0,
    moments: Sample | str | Path | Sequence[str | Path] | None = None,
    head: str | None = None,
    labels: Sequence[str] | None = None,
    sequential: bool | None = None,
    scale: float | str = 1.0,
    judge: Callable[[Module], float] | None = None,
    **sampling: Any,
) -> Module:
    """Port a teacher's module to a student.

    Args:
        module: what `regraft.load` gave.
        student: the model it goes to: a model id, a directory, a loaded model or a pair (model, tokenizer).
        teacher: the model it was trained on; by default the one its configuration names.
        layers: ``"skip"``, ``"avg"``, ``"avg_released"``, ``"last"``, or one teacher layer per student layer.
        align: how dimensions are matched, a key of `methods.METHODS`; by default ``"auto"`` with texts or moments,
            ``"none"`` (for students distilled from the teacher) without.
        texts: plain texts to compare activations on; needed by all methods that align, unless there are moments.
        pairing: ``"offsets"`` or ``"position"`` (the paper).
        spaces: ``"released"`` maps LoRA's B (and both sides of a bottleneck) as the authors' code does,
            ``"measured"`` by the spaces they live in; by default the former for one-to-one maps.
        seed: of everything that is drawn.
        moments: what `regraft sample` wrote, instead of texts: one directory, or several to add up.
        head: ``"teacher"`` ports the task head, its input through the final hidden states; ``"fresh"`` (the paper)
            initialises the student's; by default the teacher's wherever it can be ported and the label sets agree.
        labels: names of the student's labels in the order of its head's rows; by default the teacher's.
        sequential: whether to fit layer by layer with the module in place, see `sequential.fit_in_sequence`; by
            default where ``"auto"`` has texts.
        scale: factor of all that the module writes; ``"auto"`` searches it, see `sequential.Fitted`.
        judge: scores a port, for ``scale="auto"``: such as `training.evaluate` of it on a few labelled examples.
        sampling: passed to `sampling.sample`: ``batch_size``, ``max_length``, ``device``, ``dtype``, ``progress``.

    Returns:
        The student's module; its ``report`` accounts for every tensor and scores every map.

    Raises:
        RegraftError: one sentence with what was found, what was expected and what to do.
    """
    return _work_out(
        module,
        student,
        teacher=teacher,
        layers=layers,
        align=align,
        texts=texts,
        pairing=pairing,
        spaces=spaces,
        seed=seed,
        moments=moments,
        head=head,
        labels=labels,
        sequential=sequential,
        scale=scale,
        judge=judge,
        **sampling,
    ).module


def foresee(module: Module, student: ModelLike, **options: Any) -> Foresight:
    """Say how well a port will work before any training.

    Args:
        module: as for `transfer`.
        student: as for `transfer`.
        options: as for `transfer`; texts are sampled with covariances, whatever the method needs.

    Raises:
        RegraftError: as for `transfer`.
    """
    return _work_out(module, student, covariances=True, **options)


def _work_out(
    module: Module,
    student: ModelLike,
    teacher: ModelLike | None = None,
    layers: str | Sequence[int] = "skip",
    align: str | None = None,
    texts: Sequence[str] | None = None,
    pairing: str = "offsets",
    spaces: Convention | None = None,
    seed: int = 0,
    moments: Sample | str | Path | Sequence[str | Path] | None = None,
    head: str | None = None,
    labels: Sequence[str] | None = None,
    sequential: bool | None = None,
    scale: float | str = 1.0,
    judge: Callable[[Module], float] | None = None,
    covariances: bool = False,
    **sampling: Any,
) -> Foresight:
    """Plan, sample, align, transfer; arguments as for `transfer`, and whether to sample covariances in any case."""
    if texts is not None and moments is not None:
        raise SamplingError("got both texts and moments, expected one of them")
    align = align or default_align(texts is not None or moments is not None)
    method = method_named(align)
    spaces = spaces or default_spaces(align)
    sequential, factor = how_to_fit(align, texts is not None, sequential, scale)
    if judge is not None and factor is not None:
        raise PlanError(f"found a judge beside scale {scale}; it chooses a scale: scale='auto', or leave it out")
    base, target = _teacher(module, teacher), resolve(student)
    drawn = make_plan(module, base, target, layers, align, spaces, head, labels)
    drawn.check()
    if judge is not None and drawn.head == "fresh":
        raise PlanError(
            f"the port of {module.source} scores with a head drawn at random; use --head teacher, or leave out --data"
        )
    labelled: dict[str, Any] = {"labels": list(drawn.labels)} if drawn.labels else {}
    name = f"port of {module.source}"
    if sequential and texts is not None:
        scores_of = None if judge is None else lambda tensors: judge(Module(drawn.config, tensors, name, labelled))
        fitted = fit_in_sequence(
            drawn, module, base, target, texts, align, pairing, seed, factor, scores_of, **sampling
        )
    else:
        taken = None
        full = covariances or method.needs == "covariances"
        if moments is not None:
            taken = _loaded(moments)
            _check_same_pair(taken, base, target)
        elif texts is not None:
            # What a module reads may not be what its map is fitted on.
            watched = {*drawn.widths, *(spaces_read(drawn) if full else ())}
            taken = sample(base, target, sorted(watched), texts, pairing, covariances=full, **sampling)
        maps, scores = fit_spaces(align, drawn.widths, taken.moments if taken else None, seed, drawn.attention_heads)
        fitted = Fitted(maps, scores, taken, 1.0 if factor is None else factor, {})
    tensors = transfer_tensors(drawn, module.tensors, fitted.maps, seed, fitted.scale)
    report = account(drawn, module, base, target, layers, align, spaces, seed, sequential, fitted)
    taken = fitted.sample
    kept: list[Fidelity] = []
    if taken and any(split.held_out.full for split in taken.moments.values()):
        kept = fidelity(drawn, module.tensors, fitted.maps, taken.moments)
    expected = summary(kept) if kept else None
    if expected:
        report |= {"fidelity": [asdict(one) for one in kept], "expected": expected}
    ported = Module(drawn.config, tensors, name, {"port": report, **labelled})
    return Foresight(drawn, fitted.scores, kept, expected, ported)


def _teacher(module: Module, teacher: ModelLike | None) -> BaseModel:
    if teacher is not None:
        return resolve(teacher)
    if not module.base_model:
        raise ModuleFileError(f"{module.source} does not name its base model; name it as the teacher (--teacher)")
    return resolve(module.base_model)
