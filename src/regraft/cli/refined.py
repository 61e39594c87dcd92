"""What came of a refinement: what 'regraft refine' and 'regraft transfer --refine' end with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..activations.options import TextOptions
from ..distillation.options import AUTO
from ..schema import Options
from .app import option
from .show import show_written


def show_refinement(console: Console, report: Mapping[str, Any]) -> None:
    """Print how often the student gives the teacher's answer, before and after a refinement."""
    agreement, texts = report["agreement"], report["texts"]
    table = Table(f"on {texts['held_out']} held-out texts", "before", "after")
    for name, measure in (
        (f"agreement with the teacher ({report['metric']})", "percent"),
        ("divergence", "divergence"),
    ):
        table.add_row(name, *(_agreed(agreement[when], measure) for when in ("before", "after")))
    console.print(table)
    if "by_texts" in report:
        table = Table("learnt from texts", f"agreement ({report['metric']})", "divergence")
        for reached in report["by_texts"]:
            table.add_row(str(reached["texts"]), *(_agreed(reached, measure) for measure in ("percent", "divergence")))
        console.print(table)
    if "labelled" in report:
        labelled = report["labelled"]
        console.print(f"Learnt beside it from {labelled['rows']} labelled rows of {labelled['data']}", soft_wrap=True)
    show_written(console, texts["learnt"] + texts["held_out"], texts.get("written", {}).get("file"))
    if report["step"] == 0:
        console.print("Refining did not help: the start agrees best with the teacher, so it is what is kept")
    else:
        console.print(f"Kept step {report['step']} of {report['steps_taken']}, learnt from {texts['learnt']} texts")
        if said := limit_said(report):
            console.print(said, soft_wrap=True)


def _agreed(scores: Mapping[str, Any], measure: str) -> str:
    if measure == "divergence":
        return f"{scores[measure]:.4f}"
    low, high = scores["interval"]
    return f"{scores[measure]:.1f} ({low:.1f} to {high:.1f})"


def limit_said(report: Mapping[str, Any]) -> str:
    """Say what limits a refinement: its texts, or its steps and its module; empty where that is not known.

    What is missing on held-out texts has two parts: what is missing on texts that were learnt too, which more of them
    would not mend, and what is missing on held-out ones besides (as bias and variance are told apart by the errors of
    training and validation). The larger part is named where it is by more than chance the larger one: by intervals.
    """
    learnt, held_out = (report["agreement"].get(which) for which in ("learnt", "after"))
    if learnt is None or held_out["interval"][1] >= 100:  # nothing may be missing
        return ""
    (low, high), missing = learnt["interval"], 100 - learnt["percent"]
    said = f"To texts that it learnt from it gives {learnt['percent']:.1f} of the teacher's answers"
    if low > held_out["interval"][1] and learnt["percent"] - held_out["percent"] > missing:
        return (
            f"{said}, so most of what is missing is on texts that it has not seen: more texts would help before more "
            "steps, or texts more like those that it is for (--by-texts shows what their number is worth)"
        )
    if high - held_out["interval"][0] >= missing:
        count = report["texts"]["held_out"]
        return f"{said}; {count} held-out texts are too few to tell whether more texts would help or more steps"
    taken, kept = report["steps_taken"], report["step"]
    gained = kept == taken if report["steps"] == AUTO else 2 * kept > taken  # near the end chance says which is best
    steps = "more --steps would help, or " if gained else "no more steps, but "
    return (
        f"{said}, so most of what is missing it has not learnt from those it has: {steps}a larger module "
        "(--grow, --rank), before more texts"
    )


def next_command(
    refined: Path,
    teacher: str,
    teacher_model: str | None,
    texts: TextOptions,
    options: Options,
    trust_remote_code: bool,
    families: Path | None,
) -> str:
    """Give the command that goes on from what 'regraft transfer --refine' wrote, for settings that are refine's alone.

    The texts, where they are cut and the seed are the same, and so are the texts that are held out and the teacher's
    answers, which are kept.
    """
    given = {name: getattr(texts, name) for name in texts.model_fields if name in texts.model_fields_set}
    given |= {name: getattr(options, name) for name in ("max_length", "seed") if name in options.model_fields_set}
    places = {"teacher": teacher, "teacher_model": teacher_model, "families": families}
    out = {"out": refined.with_name(f"{refined.name}-again")}
    named = [(option(name), str(value)) for name, value in (places | given | out).items() if value is not None]
    flags = ["--trust-remote-code"] if trust_remote_code else []
    return shlex.join(["regraft", "refine", str(refined), *(word for pair in named for word in pair), *flags])
