"""Train and score modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from ..errors import TaskError
from ..schema import names
from ..tasks.options import DataOptions
from ..tasks.records import task_named
from ..training.options import EvaluateOptions, TrainOptions, preset
from .app import (
    DATA,
    HOW,
    Families,
    Out,
    PushTo,
    Replace,
    Track,
    TrustCode,
    console,
    flat,
    option,
    push,
)
from .found import Evaluated, Harnessed, HarnessLine, Trained
from .output import Output, Printed, say_next


def train(
    *,
    model: str,
    out: Out,
    peft: str | None = None,
    init: str | None = None,
    set_up: Annotated[str, Parameter(name="--preset", group=HOW)] = "fast",
    options: Annotated[TrainOptions, flat(HOW)] = TrainOptions(),
    data: Annotated[DataOptions, flat(DATA)] = DataOptions(),
    trust_remote_code: TrustCode = False,
    families: Families = None,
    track: Track = (),
    push_to: PushTo = None,
    replace: Replace = False,
    output: Printed = Output(),
) -> None:
    """Train a module, fresh or ported (--init), and score it.

    The same command after a kill goes on where it was. The preset 'fast' is what is
    shown; 'paper' has batches of 64, learning rate 1e-5, no warm-up, 10 epochs
    (pi: 30), full precision and a fresh head. What you say replaces its values.

    Example: regraft train --model bert-base-cased --data my-data --out my-lora

    For several GPUs: accelerate launch -m regraft train ...

    Args:
        model: Base model: directory or hub id.
        out: Directory for module, scores, learning curve.
        peft: Fresh module: lora (the default), bottleneck.
        init: Module to start from, such as a ported one.
        set_up: What the values start from: fast, paper.
    """
    from ..files.hub import check_pushable
    from ..models.families import register_family
    from ..training.devices import processes
    from ..training.finetuning import train as fine_tune
    from ..training.labels import LabelOrder
    from ..training.tracking import Tracking
    from . import show

    register_family(families)
    check_pushable(push_to)
    _check_fresh(options, peft, init)
    module = fine_tune(
        model,
        out,
        data=data,
        options=options.over(preset(set_up, task_named(data.task))),
        peft=peft or "lora",
        init=init,
        trust_remote_code=trust_remote_code,
        replace=replace,
        tracking=Tracking.beside(out, track),
    )
    if processes().is_main_process:
        training = module.provenance["training"]
        if init is not None:
            head = f" with {'its' if training['head'] == 'teacher' else 'a fresh'} task head"
            console.print(f"Started from {init}{head if training['labels'] else ''}")
        said_by = training.get("labels_said_by", "module")
        if said_by != "module":
            order = LabelOrder(tuple(training["labels"]), said_by).sentence("It")
            console.print(f"{order} (--head fresh for another head)", soft_wrap=True)
        if training["left_out"]:
            console.print(f"Left out {training['left_out']} rows of {training['data']} that are marked as missing")
        show.show_scores(console, training["scores"])
        if training["step"] == 0:
            console.print("Training did not help: the start is better than every checkpoint, so it is what is kept")
        console.print(f"Wrote {out}", soft_wrap=True)
        push(console, module, push_to)
        output.give(Trained(out=str(out), **training), out)
        say_next("plan", out, "--student", "MODEL")


_OF_FRESH: Mapping[str, tuple[str, ...]] = {"lora": ("rank", "alpha", "sites"), "bottleneck": ("bottleneck_size",)}
"""Options of a fresh module by its kind."""


def _check_fresh(options: TrainOptions, peft: str | None, init: str | None) -> None:
    given = {name: kind for kind, its in _OF_FRESH.items() for name in its if name in options.model_fields_set}
    if init is not None and (peft is not None or given):
        first = "--peft" if peft is not None else option(next(iter(given)))
        raise TaskError(f"got {first} beside --init, whose module is what it is; expected one of them")
    chosen = peft or "lora"
    for name, kind in given.items():
        if chosen in _OF_FRESH and chosen != kind:
            raise TaskError(f"got {option(name)}, which a fresh {kind} has, beside --peft {chosen}; leave it out")


def evaluate(
    module: str,
    /,
    *,
    model: str | None = None,
    options: Annotated[EvaluateOptions, flat(HOW)] = EvaluateOptions(),
    data: Annotated[DataOptions, flat(DATA)] = DataOptions(),
    split: Annotated[str, Parameter(group=DATA)] = "test",
    generate: Annotated[int | None, Parameter(group=DATA)] = None,
    harness: Annotated[str | None, Parameter(group=DATA)] = None,
    trust_remote_code: TrustCode = False,
    families: Families = None,
    output: Printed = Output(),
) -> None:
    """Score a module on a task.

    Example: regraft evaluate my-lora --data my-data

    Args:
        module: Directory or hub id of a module.
        model: Base model. Default: as the module says.
        split: train, validation or test.
        generate: Answer so many conversations: exact match, ROUGE-L.
        harness: Tasks of lm-evaluation-harness: arc_easy,hellaswag
    """
    from ..models.families import register_family
    from ..training import evaluation
    from ..training.harness import compare_on_harness
    from . import show

    register_family(families)
    if harness is not None:
        given = sorted(data.model_fields_set) + (["generate"] if generate is not None else [])
        if given:
            raise TaskError(f"got {option(given[0])} beside --harness, whose tasks have their own data")
        tasks, trusts = names(harness), trust_remote_code
        measured = compare_on_harness(module, tasks, model, options=options, trust_remote_code=trusts)
        show.show_harness(console, measured)
        lines = [HarnessLine(**asdict(score)) for score in measured]
        output.give(Harnessed(module=module, harness=lines), *(f"{score.module:.4f}" for score in measured))
        return
    found = evaluation.assess(
        module,
        model,
        data=data,
        split=split,
        options=options,
        generate=generate,
        trust_remote_code=trust_remote_code,
    )
    show.show_order(console, found.order, module)
    show.show_evaluation(console, split, found, "" if found.order.said_by == "module" else "--labels")
    output.give(Evaluated(module=module, split=split, **asdict(found)), f"{[*found.scores.values()][-1]:.2f}")
