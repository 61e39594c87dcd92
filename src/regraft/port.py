"""The one-call form: plan, sample, align, transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .alignment import Score, fit_maps, method_named
from .checkpoint import Module
from .errors import ModuleFileError, SamplingError
from .evidence import Evidence, best_layers
from .fidelity import Fidelity, fidelity, spaces_read, summary
from .fingerprints import may_be_same
from .layers import BEST
from .models import BaseModel, ModelLike, resolve
from .plan import Plan, make_plan
from .roles import Convention
from .samples import Sample, load_sample
from .sampling import sample
from .transfer import transfer_tensors


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
    scores: Sequence[Score]
    fidelity: Sequence[Fidelity]
    expected: Mapping[str, float | None] | None
    module: Module


def plan(
    module: Module,
    student: ModelLike,
    teacher: ModelLike | None = None,
    layers: str | Sequence[int] = "skip",
    align: str = "none",
    spaces: Convention = "released",
    head: str | None = None,
    labels: Sequence[str] | None = None,
) -> Plan:
    """Plan a port without loading any weights; arguments as for `transfer`.

    Raises:
        RegraftError: the module, the models or the options do not serve. What the plan itself refuses is in its
            ``problems``.
    """
    method_named(align)
    base, target = _teacher(module, teacher), resolve(student)
    paired, _ = chosen_layers(module, base, target, layers)
    return make_plan(module, base, target, paired, align, spaces, head, labels)


def chosen_layers(
    module: Module,
    teacher: BaseModel,
    student: BaseModel,
    layers: str | Sequence[int],
    texts: Sequence[str] | None = None,
    pairing: str = "offsets",
    **sampling: Any,
) -> tuple[str | Sequence[int], Evidence | None]:
    """Turn ``"best"`` into the layers that it stands for; anything else stays as it is.

    Args:
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        layers: as for `transfer`.
        texts: as for `transfer`.
        pairing: as for `transfer`.
        sampling: as for `transfer`.

    Returns:
        What `make_plan` takes, and why; None where nothing was compared.

    Raises:
        SamplingError: ``"best"`` without texts, or with such as do not serve.
    """
    if layers != BEST:
        return layers, None
    if texts is None:
        raise SamplingError(
            f"layers {BEST!r} compares all pairs of layers, which moments do not hold; give --texts FILE"
        )
    evidence = best_layers(module, teacher, student, texts, pairing, **sampling)
    return evidence.chosen, evidence


def transfer(
    module: Module,
    student: ModelLike,
    teacher: ModelLike | None = None,
    layers: str | Sequence[int] = "skip",
    align: str = "none",
    texts: Sequence[str] | None = None,
    pairing: str = "offsets",
    spaces: Convention = "released",
    seed: int = 0,
    moments: Sample | str | Path | Sequence[str | Path] | None = None,
    head: str | None = None,
    labels: Sequence[str] | None = None,
    **sampling: Any,
) -> Module:
    """Port a teacher's module to a student.

    Args:
        module: what `regraft.load` gave.
        student: the model it goes to: a model id, a directory, a loaded model or a pair (model, tokenizer).
        teacher: the model it was trained on; by default the one its configuration names.
        layers: ``"skip"``, ``"avg"``, ``"avg_released"``, ``"last"``, or one teacher layer per student layer; or
            ``"best"``, which chooses such a list by comparing activations, see `evidence.best_layers`.
        align: how dimensions are matched, a key of `alignment.METHODS`; ``"none"`` for students distilled from the
            teacher.
        texts: plain texts to compare activations on; needed by ``"lsa"`` and ``"ridge"``, and by
            layers ``"best"``.
        pairing: ``"offsets"`` or ``"position"`` (the paper).
        spaces: ``"released"`` maps LoRA's B (and both sides of a bottleneck) as the authors' code does,
            ``"measured"`` by the spaces they live in.
        seed: of everything that is drawn.
        moments: what `regraft sample` wrote, instead of texts: one directory, or several to add up.
        head: ``"teacher"`` ports the task head, its input through the final hidden states; ``"fresh"`` (the paper)
            initialises the student's; by default the teacher's wherever it can be ported and the label sets agree.
        labels: names of the student's labels in the order of its head's rows; by default the teacher's.
        sampling: passed to `sampling.sample`: ``batch_size``, ``max_length``, ``device``, ``dtype``, ``progress``.

    Returns:
        The student's module; its ``report`` accounts for every tensor and scores every map.

    Raises:
        RegraftError: one sentence with what was found, what was expected and what to do.
    """
    full = method_named(align).needs == "covariances"
    return _work_out(
        module, student, teacher, layers, align, texts, pairing, spaces, seed, moments, head, labels, full, **sampling
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
    align: str = "none",
    texts: Sequence[str] | None = None,
    pairing: str = "offsets",
    spaces: Convention = "released",
    seed: int = 0,
    moments: Sample | str | Path | Sequence[str | Path] | None = None,
    head: str | None = None,
    labels: Sequence[str] | None = None,
    covariances: bool = False,
    **sampling: Any,
) -> Foresight:
    """Plan, sample, align, transfer; arguments as for `transfer`, and whether to sample covariances."""
    method_named(align)
    base, target = _teacher(module, teacher), resolve(student)
    if texts is not None and moments is not None:
        raise SamplingError("got both texts and moments, expected one of them")
    paired, evidence = chosen_layers(module, base, target, layers, texts, pairing, **sampling)
    drawn = make_plan(module, base, target, paired, align, spaces, head, labels)
    drawn.check()
    taken = None
    if moments is not None:
        taken = _loaded(moments)
        _check_same_pair(taken, base, target)
    elif texts is not None:
        # What a module reads may not be what its map is fitted on.
        watched = {*drawn.widths, *(spaces_read(drawn) if covariances else ())}
        taken = sample(base, target, sorted(watched), texts, pairing, covariances=covariances, **sampling)
    maps, scores = fit_maps(align, drawn.widths, taken.moments if taken else None, seed)
    tensors = transfer_tensors(drawn, module.tensors, maps, seed)
    kept: list[Fidelity] = []
    if taken and any(split.held_out.full for split in taken.moments.values()):
        kept = fidelity(drawn, module.tensors, maps, taken.moments)
    expected = summary(kept) if kept else None
    report = _report(drawn, module, base, target, layers, align, spaces, seed, taken, scores)
    if expected:
        report |= {"fidelity": [asdict(one) for one in kept], "expected": expected}
    if evidence is not None:
        report["layer_evidence"] = asdict(evidence)
    provenance: dict[str, Any] = {"port": report}
    if drawn.labels:
        provenance["labels"] = list(drawn.labels)
    ported = Module(drawn.config, tensors, f"port of {module.source}", provenance)
    return Foresight(drawn, scores, kept, expected, ported)


def _teacher(module: Module, teacher: ModelLike | None) -> BaseModel:
    if teacher is not None:
        return resolve(teacher)
    if not module.base_model:
        raise ModuleFileError(f"{module.source} does not name its base model; name it as the teacher (--teacher)")
    return resolve(module.base_model)


def _loaded(moments: Sample | str | Path | Sequence[str | Path]) -> Sample:
    if isinstance(moments, Sample):
        return moments
    return load_sample(moments) if isinstance(moments, str | Path) else load_sample(*moments)


def _check_same_pair(taken: Sample, teacher: BaseModel, student: BaseModel) -> None:
    source = taken.source
    for who, sampled, config_hash, weights, base in (
        ("teacher", source.teacher, source.teacher_config, source.teacher_weights, teacher),
        ("student", source.student, source.student_config, source.student_weights, student),
    ):
        if config_hash != base.config_hash or not may_be_same(weights, base.weights_id):
            what = "weights differ" if config_hash == base.config_hash else "architecture differs"
            raise SamplingError(
                f"the moments were sampled with {who} {sampled}, whose {what} from those of {base.name}; "
                "sample this pair"
            )


def _report(
    drawn: Plan,
    module: Module,
    teacher: BaseModel,
    student: BaseModel,
    layers: str | Sequence[int],
    align: str,
    spaces: str,
    seed: int,
    taken: Sample | None,
    scores: Sequence[Score],
) -> dict[str, Any]:
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
        "spaces": spaces if align != "none" else "not needed",
        "head": drawn.head,
        "seed": seed,
        "sampled": taken.describe() if taken else None,
        "sample": asdict(taken.source) if taken else None,
        "scores": [{**asdict(score), "space": str(score.space)} for score in scores],
        "tensors": {
            target.key: {
                "action": target.action,
                "shape": list(target.shape),
                "from": {part.tensor: part.weight for part in target.parts},
            }
            for target in drawn.targets
        },
        "left": dict(drawn.left),
    }
