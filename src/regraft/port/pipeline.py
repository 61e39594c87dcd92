"""A port in small steps: plan, fit, execute, forecast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..activations.options import RunOptions
from ..activations.sampling import Sample, check_same_pair, load_sample, sample
from ..alignment.methods import METHODS, Method
from ..errors import PlanError, SamplingError, unknown_choice
from ..files.texts import Text
from ..models.pretrained import ModelLike, Pretrained, resolve
from ..models.relation import Relation, relate
from ..modules.module import Module, base_of
from ..schema import make
from .advice import copy_refused
from .bases import bases_refused
from .execution import check_sizes, move, port_module, put_together
from .forecast import Forecast, fidelity
from .limits import copy_advice
from .memory import Memory, expected_memory
from .options import Evidence, PortOptions
from .parts import Target, copied_action
from .plan import Plan, make_plan
from .sequential import Fitted, fit_in_sequence
from .spaces import fit_pairs, judged_pairs

Moments = Sample | str | Path | Sequence[str | Path]
"""A sample, or one or more directories that ``regraft sample`` wrote."""


@dataclass(frozen=True)
class Port:
    """A module on its way from a teacher to a student; each step is worked out once, when it is first asked for.

    Attributes:
        module: the teacher's module.
        teacher: the model it was trained on.
        student: the model it goes to.
        options: how it is ported, settled.
        texts: to compare activations on.
        moments: what was sampled before, instead of texts.
        run: where the models run.
        judge: scores a port, to choose the scale by.
        covariances: whether to sample them whatever the method needs; a forecast needs them.
        relation: how the two models are related; None where their weights may not be there yet.
        by_name: whether the user named the alignment.
    """

    module: Module
    teacher: Pretrained
    student: Pretrained
    options: PortOptions
    texts: Sequence[Text] | None = None
    moments: Sample | None = None
    run: RunOptions = field(default_factory=RunOptions)
    judge: Callable[[Module], float] | None = None
    covariances: bool = False
    relation: Relation | None = None
    by_name: bool = True

    @classmethod
    def of(
        cls,
        module: Module,
        student: ModelLike,
        teacher: ModelLike | None = None,
        *,
        texts: Sequence[Text] | None = None,
        moments: Moments | None = None,
        options: PortOptions | None = None,
        run: RunOptions | None = None,
        judge: Callable[[Module], float] | None = None,
        covariances: bool = False,
        **fields: Any,
    ) -> Port:
        """Find the models, and check what was said; arguments as for `transfer`.

        Raises:
            RegraftError: models, moments or options that do not serve.
        """
        if texts is not None and moments is not None:
            raise SamplingError("got both texts and moments, expected one of them")
        options, run = _with_fields(options or PortOptions(), run or RunOptions(), fields)
        if judge is not None and options.factor is not None:
            raise PlanError(
                f"found a judge beside scale {options.scale}; it chooses a scale: scale='auto', or leave it out"
            )
        models = (
            base_of(module, teacher, run.trust_remote_code, "--teacher", run.loading),
            resolve(student, run.trust_remote_code, run.loading),
        )
        relation, by_name = relate(*models), options.align is not None
        evidence: Evidence = "texts" if texts is not None else "moments" if moments is not None else "none"
        options = options.settled(evidence, relation.kind == "same")
        if moments is not None and not isinstance(moments, Sample):
            moments = load_sample(*([moments] if isinstance(moments, str | Path) else moments))
        if moments is not None:
            check_same_pair(moments, *models)
        return cls(module, *models, options, texts, moments, run, judge, covariances, relation, by_name)

    @property
    def method(self) -> Method:
        """The alignment method."""
        return METHODS[str(self.options.align)]

    @cached_property
    def plan(self) -> Plan:
        """Who gets what; loads no weights. What it refuses is in its ``problems``."""
        plan = make_plan(self.module, self.teacher, self.student, self.options)
        if self.relation is None or plan.problems:
            return plan
        if self.method.identity and not self.by_name and self.relation.kind == "unrelated":
            return replace(
                plan, problems=(copy_refused(self.relation, plan.teacher, plan.student, copy_advice(self.module)),)
            )
        refused = bases_refused(plan, self.module, self.teacher, self.student)
        return replace(plan, problems=(refused,)) if refused else plan

    @cached_property
    def memory(self) -> Memory | None:
        """What it is expected to take; loads no weights. None unless it is fitted in sequence."""
        if not self.options.sequential or self.texts is None:
            return None
        return expected_memory(self.plan, self.teacher, self.student, self.texts, self.options, self.run)

    @cached_property
    def fitted(self) -> Fitted:
        """What its maps made of the module, and what they were fitted on.

        Raises:
            RegraftError: the plan is refused, or texts do not serve.
        """
        self.plan.check()
        if self.judge is not None and self.plan.head == "fresh":
            raise PlanError(
                f"the port of {self.module.source} scores with a head drawn at random; use --head teacher, or leave "
                "out --data"
            )
        models, options, run = (self.teacher, self.student), self.options, self.run
        if options.sequential and self.texts is not None:
            return fit_in_sequence(self.plan, self.module, *models, self.texts, options, run, self.judge)
        moments = self.moments
        if self.texts is not None:
            full = self.covariances or self.method.needs == "covariances"
            # What a module reads may not be what its map is fitted on.
            pairs = {*self.plan.widths, *(self.plan.reads if full else ())}
            folded = judged_pairs(self.plan.reads) if full else ()
            moments = sample(*models, sorted(pairs), self.texts, options, run, covariances=full, folded=folded)
        sampled = moments.moments if moments else None
        structure = self.plan.attention_heads, self.plan.ranks, self.plan.writes
        sites = {target.place[1] for target in self.plan.targets if target.place is not None}
        maps, scores = fit_pairs(str(options.align), self.plan.widths, sampled, options.seed, *structure, sites)
        places = None
        if sampled and any(split.held_out.full for split in sampled.values()):
            places = fidelity(self.plan, self.module.tensors, maps, sampled)
        moved = move(self.plan, self.plan.targets, self.module.tensors, maps)
        return Fitted(moved, scores, moments, places, 1.0 if options.factor is None else options.factor, {})

    @cached_property
    def ported(self) -> Module:
        """The student's module; its ``report`` accounts for every tensor and scores every map."""
        fitted = self.fitted
        made = put_together(self.plan.targets, fitted.moved, self.options.seed, fitted.scale)
        check_sizes(self.plan, made, self.module.tensors, fitted.scale, fitted.places or ())
        return port_module(self.plan, self.module, made, port=_account(self))

    @cached_property
    def forecast(self) -> Forecast | None:
        """How well it will work; None where nothing was sampled with covariances."""
        fitted = self.fitted
        if fitted.sample is None or fitted.places is None:
            return None
        silent = self.method.silent or fitted.scale == 0
        return Forecast.of(fitted.places, silent and self.plan.head != "teacher", fitted.sample.held_out_texts)


def transfer(module: Module, student: ModelLike, teacher: ModelLike | None = None, **given: Any) -> Module:
    """Port a teacher's module to a student.

    Args:
        module: what `regraft.load` gave.
        student: the model it goes to: a model id, a directory, a loaded model or a pair (model, tokenizer).
        teacher: the model it was trained on; by default the one its configuration names.
        given: any of these.

            - ``texts``: plain texts to compare activations on; needed by all methods that align, unless there are
              moments.
            - ``moments``: what `regraft sample` wrote, instead of texts: one directory, or several to add up.
            - ``options``: a `PortOptions`, how the module is ported.
            - ``run``: a `RunOptions`, where the models run.
            - ``judge``: scores a port, for ``scale="auto"``: such as `training.evaluate` of it on a few labelled
              examples.
            - Single fields of `PortOptions` and `RunOptions`, such as ``align="lsa"``; ``progress=False`` is
              ``quiet=True``.

    Returns:
        The student's module; its ``report`` accounts for every tensor and scores every map.

    Raises:
        RegraftError: one sentence with what was found, what was expected and what to do.
    """
    return Port.of(module, student, teacher, **given).ported


def plan(module: Module, student: ModelLike, teacher: ModelLike | None = None, **given: Any) -> Plan:
    """Plan a port without loading any weights; arguments as for `transfer`.

    Raises:
        RegraftError: the module, the models or the options do not serve. What the plan itself refuses is in its
            ``problems``.
    """
    return Port.of(module, student, teacher, **given).plan


def forecast(module: Module, student: ModelLike, teacher: ModelLike | None = None, **given: Any) -> Forecast | None:
    """Say how well a port will work before any training; arguments as for `transfer`.

    Texts are sampled with covariances.

    Returns:
        None where there is nothing to say it by.

    Raises:
        RegraftError: as for `transfer`.
    """
    return Port.of(module, student, teacher, covariances=True, **given).forecast


def _with_fields(options: PortOptions, run: RunOptions, fields: Mapping[str, Any]) -> tuple[PortOptions, RunOptions]:
    """Lay single fields over records of options."""
    fields = dict(fields)
    if "progress" in fields:
        fields["quiet"] = not fields.pop("progress")
    for name in ("dtype", "device"):
        if fields.get(name) is not None:
            fields[name] = str(fields[name]).removeprefix("torch.")
    known = (*PortOptions.model_fields, *RunOptions.model_fields)
    for name in fields:
        if name not in known:
            raise PlanError(unknown_choice("option", name, known))
    mine = {name: value for name, value in fields.items() if name in PortOptions.model_fields}
    runs = {name: value for name, value in fields.items() if name in RunOptions.model_fields}
    return make(PortOptions, mine, PlanError).over(options), make(RunOptions, runs, PlanError).over(run)


def _account(port: Port) -> dict[str, Any]:
    """Account for every tensor, and for all that made it: what ``regraft.json`` says of a port."""
    options, plan, fitted, forecast = port.options, port.plan, port.fitted, port.forecast
    account = {
        **plan.describe(),
        "module": port.module.source,
        "module_commit": port.module.commit or None,
        "module_hash": port.module.hash(),
        "teacher_config": port.teacher.config_hash,
        "teacher_weights": port.teacher.weights_id,
        "student_config": port.student.config_hash,
        "student_weights": port.student.weights_id,
        "relation": asdict(port.relation) if port.relation else None,
        "options": options.model_dump(mode="json"),
        "layers": options.layers if isinstance(options.layers, str) else ",".join(map(str, options.layers)),
        "align": options.align,
        "spaces": "not needed" if port.method.identity else options.spaces,
        "sequential": options.sequential,
        "scale": fitted.scale,
        "candidates": [{**one.describe(), "chosen": one is fitted.chosen} for one in fitted.candidates],
        "scales": {str(factor): share for factor, share in fitted.scales.items()},
        "seed": options.seed,
        "sampled": fitted.sample.describe() if fitted.sample else None,
        "sample": asdict(fitted.sample.source) if fitted.sample else None,
        "scores": [{**asdict(score), "space": str(score.space)} for score in fitted.scores],
        "tensors": {target.key: _made(target, fitted) for target in plan.targets},
    }
    if port.teacher.trusts_code or port.student.trusts_code:
        account["trust_remote_code"] = True
    if forecast is not None:
        account |= {"fidelity": [asdict(place) for place in forecast.places], "expected": forecast.expected}
    return account


def _made(target: Target, fitted: Fitted) -> dict[str, Any]:
    action, factor = target.action, fitted.scale if target.scaled else 1.0
    # What a plan does not know: which body and which head are chosen, and a scale that is searched.
    if fitted.chosen is not None and action == "mapped":
        part = fitted.chosen.head if target.place is None else fitted.chosen.body
        action = copied_action(target.parts) if part.origin == "copied" else action
    return {
        **target.describe(),
        "action": "scaled" if action == "copied" and factor != 1 else action,
        "from": {part.tensor: part.weight * factor for part in target.parts},
    }
