"""Carry out one cell: the only place where an experiment calls the rest of regraft."""

from __future__ import annotations

import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from transformers import set_seed

from ..activations import sampling
from ..activations.options import RunOptions, SampleOptions
from ..distillation.refinement import refine
from ..distillation.students import distill
from ..errors import ModuleFileError, RegraftError
from ..files.fingerprints import versions
from ..files.reading import read_json
from ..files.texts import Text, read_inputs, singly
from ..models.pretrained import resolve
from ..modules import module
from ..port import pipeline, spaces
from ..tasks.kinds import KINDS
from ..tasks.options import DataOptions
from ..training.evaluation import evaluate
from ..training.finetuning import train
from ..training.fresh import fresh_module
from ..training.tracking import Tracking
from .grid import Cell
from .jobs import Distill, Job, Refine, SamplePair, Source, TaskSource, TextSource, Train, Transfer
from .launch import Order, is_launched, launch
from .store import Store

_JOB: TypeAdapter[Job] = TypeAdapter(Job)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        key: of the cell.
        status: ``"done"``; ``"failed"``; ``"busy"`` where another run works on it.
        error: what went wrong, in one sentence.
    """

    key: str
    status: Literal["done", "failed", "busy"]
    error: str = ""


def carry_out(store: Store, cell: Cell, trackers: Sequence[str] = ()) -> Outcome:
    """Do what a cell is there for, unless it is done already, and is what it was, or another process is at it.

    A cell that was interrupted goes on where it was: trainings from their last checkpoint, the others anew. Errors are
    written down, not raised.

    Args:
        store: where results are and go.
        cell: what to do.
        trackers: where to show trainings, see `tracking.TRACKERS`; TensorBoard's files go into the store.
    """
    with store.claim(cell.key) as ours:
        if not ours:
            return Outcome(cell.key, "busy")
        if store.done(cell.key) and not store.unsound(cell.key):
            return Outcome(cell.key, "done")
        described: dict[str, Any] = {
            "kind": cell.kind,
            "label": cell.label,
            "needs": cell.needs,
            "job": _JOB.dump_python(cell.job, mode="json"),
        }
        start = time.perf_counter()
        resumed = store.begun(cell.key)
        try:
            store.set_aside(cell.key)
            described["built_on"] = {need: _sound(store, need) for need in cell.needs}
            store.begin(cell.key, described["built_on"])
            out = store.work(cell.key)
            if not out.exists():  # it appears whole
                make(store, cell.job, out, Tracking(trackers, cell.label, store.root))
            record = {
                "seconds": time.perf_counter() - start,
                "resumed": resumed,  # then the seconds are those of the last attempt
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "host": platform.node(),
                "process": os.getpid(),
                "versions": versions(),
            }
            store.finish(cell.key, {**described, **record, **_result(out)})
        except Exception as error:  # of whatever kind: the other cells go on
            with suppress(RegraftError):  # the disk may be full
                store.fail(cell.key, {**described, "error": sentence(error), "traceback": traceback.format_exc()})
            return Outcome(cell.key, "failed", sentence(error))
    return Outcome(cell.key, "done")


def _sound(store: Store, need: str) -> str | None:
    """Check a cell that is read, and give what tells its output from others."""
    if why := store.flaw(need):
        raise ModuleFileError(
            f"found the cell {need} damaged, which this one reads ({why}); run the same again, which makes it again"
        )
    return store.output_hash(need)


def sentence(error: Exception) -> str:
    """Say what went wrong in one sentence."""
    return str(error) if isinstance(error, RegraftError) else f"{type(error).__name__}: {error}"


Locate = Callable[[Source], str]


def make(store: Store, job: Job, out: Path, tracking: Tracking) -> None:
    """Do a job, in as many processes as it asks for or, within one of these, in this process."""

    def locate(source: Source) -> str:
        return str(store.output(source.where)) if source.made else source.where

    match job:
        case Distill() | Train() if job.processes > 1 and not is_launched():
            launch(Order(store.root, job, out, tracking))
        case Distill():
            _distill(job, locate, out, tracking)
        case Train():
            _train(job, locate, out, tracking)
        case Refine():
            _refine(job, locate, out, tracking, store.root / "answers")
        case SamplePair():
            _sample(job, locate, out)
        case Transfer():
            _transfer(job, locate, out)


def _distill(job: Distill, locate: Locate, out: Path, tracking: Tracking) -> None:
    texts = [text for source in job.texts for text in singly(_texts(source, locate, source.limit))]
    # A checkpoint of an earlier attempt whose paths were others does not count: the directory is ours, start over.
    distill(locate(job.teacher), out, texts, options=job.settings, replace=True, progress=False, tracking=tracking)


def _train(job: Train, locate: Locate, out: Path, tracking: Tracking) -> None:
    train(
        locate(job.model),
        out,
        data=_data(job.data, locate),
        options=job.settings,
        peft=job.peft,
        init=None if job.start is None else locate(job.start),
        replace=True,  # as above
        progress=False,
        tracking=tracking,
    )


def _refine(job: Refine, locate: Locate, out: Path, tracking: Tracking, answers: Path) -> None:
    """Refine a module, and score what it began as and what became of it; labels serve for nothing else."""
    data, refined = _data(job.data, locate), out.with_name("refined")
    start = out.with_name("start") if job.start is None else Path(locate(job.start))
    if job.start is None:
        assert job.fresh is not None
        set_seed(job.fresh.seed)
        fresh_module(resolve(locate(job.model)), data.load().task, job.peft, job.fresh).save(start, replace=True)
    if not refined.exists():  # it appears whole, and an earlier attempt may have ended behind it
        refine(
            start,
            locate(job.module),
            _texts(job.data, locate, job.limit),
            refined,
            options=job.settings,
            model=locate(job.model),
            teacher_model=locate(job.teacher),
            answers=answers,
            progress=False,
            tracking=tracking,
        )

    def score(directory: Path, split: str) -> dict[str, float]:
        model = locate(job.model)
        return evaluate(directory, model, data=data, split=split, options=job.scoring, progress=False)

    scores = {"before training": score(start, "validation")}
    scores |= {split: score(refined, split) for split in ("validation", "test")}
    found = module.load(refined)
    scored = replace(found, provenance={**found.provenance, "scores": scores})
    scored.save(out, replace=True, curve=_curve(refined))


def _data(data: TaskSource, locate: Locate) -> DataOptions:
    columns = tuple(f"{name}={column}" for name, column in data.columns)
    where = locate(data.data) or None
    return DataOptions(task=data.task, data=where, lang=data.language, column=columns, labels=data.labels)


def _sample(job: SamplePair, locate: Locate, out: Path) -> None:
    pair = resolve(locate(job.teacher)), resolve(locate(job.student))
    pairs = spaces.space_pairs(*pair, job.layers)
    texts = _texts(job.reading.texts, locate, job.reading.limit)
    options = SampleOptions.model_validate({"pairing": job.reading.pairing})
    folded = spaces.judged_pairs(pairs)
    sampling.save_sample(sampling.sample(*pair, pairs, texts, options, RunOptions(quiet=True), folded=folded), out)


def _transfer(job: Transfer, locate: Locate, out: Path) -> None:
    update: dict[str, Any] = {"seed": job.seed}
    texts = None
    if job.reading is not None:
        update["pairing"] = job.reading.pairing
        texts = _texts(job.reading.texts, locate, job.reading.limit)
    pipeline.transfer(
        module.load(locate(job.module)),
        locate(job.student),
        locate(job.teacher),
        texts=texts,
        moments=None if job.moments is None else locate(job.moments),
        options=job.start.model_copy(update=update),
        run=RunOptions(quiet=True),
    ).save(out)


def _texts(source: TextSource | TaskSource, locate: Locate, limit: int | None) -> list[Text]:
    """Read texts, or the inputs of the first training rows of a task."""
    if isinstance(source, TextSource):
        return read_inputs(locate(source.source), source.column, limit, source.split)
    loaded = _data(source, locate).load()
    kind = KINDS[loaded.task.task_type]
    return [text for row in islice(loaded.splits["train"], limit) for text in kind.texts(loaded.task, row)]


def _curve(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / module.CURVE).read_text().splitlines()]


def _result(out: Path) -> Mapping[str, Any]:
    """Read what a cell has to say of its result from what it wrote."""
    if not (out / module.PROVENANCE).is_file():
        return {}
    provenance = read_json(out / module.PROVENANCE)
    if "refinement" in provenance:
        said = {
            name: provenance["refinement"][name] for name in ("step", "steps_taken", "texts", "metric", "agreement")
        }
        return {"scores": provenance["scores"], "curve": [], "refined": said}
    if "training" in provenance:
        return {"scores": provenance["training"]["scores"], "curve": [row for row in _curve(out) if "split" in row]}
    if "port" in provenance:
        ported = provenance["port"]
        return {
            "alignment": ported["scores"],
            "sampled": ported["sampled"],
            "expected": ported.get("expected"),  # None where nothing was sampled with covariances
        }
    return {"losses": provenance["distillation"]["losses"]}
