"""What a report is about, and what its words mean, for those who come to it from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import PlanError
from ..experiment.starts import Start, parse
from ..port.options import PortOptions
from .groups import BASELINE, TEACHER, Group, ordered
from .table import listed, of_task, plural, proper

_MOST_NAMED = 3
_MOST_PAIRS = 2
_MATCHINGS = {
    "skip": "the first layer of each group",
    "avg": "the mean of each group of layers",
    "avg_released": "the mean of each group of layers, as the paper's code computes it",
    "last": "the last layer of each group",
}


def subject(groups: Sequence[Group]) -> str:
    """Say what was compared: ``from mBERT to DistilmBERT; tm-skip against a random start: NER, LoRA``."""
    rows = ordered(row for group in groups for row in group.rows)
    starts = [row for row in rows if row not in (TEACHER, BASELINE)]
    named = f"{len(starts)} starts" if len(starts) > _MOST_NAMED else listed(starts or rows)
    what = f"{named} against a random start" if starts else named
    tasks = [of_task(task) for task in ordered(group.task for group in groups)]
    kinds = [proper(kind) for kind in ordered(group.peft for group in groups)]
    return f"{_between(groups)}{what}: {listed(tasks)}, {listed(kinds)}"


def _between(groups: Sequence[Group]) -> str:
    """Name the models of the first pairs, and how many pairs are left; nothing where none is known."""
    results = (result for group in groups for row in group.rows for result in group.results(row))
    known = dict.fromkeys(result.models for result in results if result.models)
    pairs = [f"from {models.teacher} to {models.student}" for models in known]
    if not pairs:
        return ""
    if len(pairs) > _MOST_PAIRS:
        return f"{', '.join(pairs[:_MOST_PAIRS])} and {plural(len(pairs) - _MOST_PAIRS, 'more pair')}; "
    return f"{listed(pairs)}; "


def terms(groups: Sequence[Group]) -> dict[str, str]:
    """Explain the words that the page uses, and each start that it has."""
    rows = ordered(row for group in groups for row in group.rows)
    return {
        "module": "a small set of weights that is trained inside a pretrained model, which stays as it is (PEFT).",
        TEACHER: "the model that a module was trained on; as a row, what that module scores there.",
        BASELINE: "the model that it is to work in; as a row, the baseline: a module that starts from random numbers "
        "and is trained on the same labels.",
        "gain": "how much better a start ends than the baseline of the same task, language, kind of module and seed.",
        **_starts([row for row in rows if row not in (TEACHER, BASELINE)]),
    }


def _starts(rows: Sequence[str]) -> Mapping[str, str]:
    """Explain starts by their names, where they are made as `experiment.starts` makes them."""
    explained = {}
    for row in rows:
        try:
            explained[row] = _meaning(parse(row))
        except PlanError:  # in a table of somebody else's results
            continue
    return explained


def _meaning(start: Start) -> str:
    parts = ["a random module" if start.port is None else _ported(start.port)]
    if start.grows:
        parts.append("grown to all linear layers")
    if start.steps is not None:
        length = "until it no longer improves" if start.steps == "auto" else f"for {start.steps} steps"
        parts.append(f"refined on the teacher's answers {length}, without labels")
    return "; ".join(parts) + "."


def _ported(port: PortOptions) -> str:
    from ..alignment.methods import METHODS  # which imports torch

    named = isinstance(port.layers, str)
    layers = _MATCHINGS[str(port.layers)] if named else f"layers {', '.join(map(str, port.layers))}"
    head = "the teacher's task head" if port.head == "teacher" else "a new task head"
    how = METHODS[str(port.align)].summary + (", layer by layer" if port.sequential else "")
    scale = "" if port.scale == 1 else f", scaled by {port.scale}"
    return f"the teacher's module ({layers}{scale}) and {head}; {how}"
