"""What came of a refinement: what 'regraft refine' and 'regraft transfer --refine' end with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ..activations.options import TextOptions
from ..distillation.options import AUTO, RefineOptions
from ..port.options import PortOptions
from .app import words_of
from .show import show_written
from .tables import print_table


def show_refinement(console: Console, report: Mapping[str, Any]) -> None:
    """Print how often the student gives the teacher's answer, before and after a refinement."""
    agreement, texts = report["agreement"], report["texts"]
    measures = (f"agreement with the teacher ({report['metric']})", "percent"), ("divergence", "divergence")
    rows = [(name, *(_agreed(agreement[when], measure) for when in ("before", "after"))) for name, measure in measures]
    print_table(console, (f"on {texts['held_out']} held-out texts", "before", "after"), rows)
    if "by_texts" in report:
        measured = [
            (str(one["texts"]), *(_agreed(one, measure) for measure in ("percent", "divergence")))
            for one in report["by_texts"]
        ]
        print_table(console, ("learnt from texts", f"agreement ({report['metric']})", "divergence"), measured)
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
    options: PortOptions,
    trust_remote_code: bool,
    families: Path | None,
) -> list[str]:
    """Give the words of the command that goes on from a port that 'regraft transfer --refine' finished.

    With it come the settings that are refine's alone.

    The texts, where they are cut and the seed are the same, and so are the texts that are held out and the teacher's
    answers, which are kept.
    """
    places = {"--teacher": teacher, "--teacher-model": teacher_model, "--families": families}
    places["--out"] = refined.with_name(f"{refined.name}-again")
    named = [word for name, place in places.items() if place is not None for word in (name, str(place))]
    same = RefineOptions(max_length=options.max_length, seed=options.seed)
    flags = ["--trust-remote-code"] if trust_remote_code else []
    return ["refine", str(refined), *named, *words_of(texts), *words_of(same), *flags]
