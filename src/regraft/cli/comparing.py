"""Compare two modules."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from ..distillation.options import AskOptions, ComparedTexts
from ..errors import SamplingError
from .app import HOW, TEXTS, WHERE, Families, TrustCode, base_words, console, flat, words_of
from .output import Output, Printed, say_next


def compare(
    teacher: str,
    student: str,
    /,
    *,
    teacher_model: str | None = None,
    model: str | None = None,
    options: Annotated[AskOptions, flat(HOW)] = AskOptions(),
    texts: Annotated[ComparedTexts, flat(TEXTS)] = ComparedTexts(),
    device: Annotated[str | None, Parameter(group=WHERE)] = None,
    trust_remote_code: TrustCode = False,
    families: Families = None,
    output: Printed = Output(),
) -> None:
    """Compare what two modules answer, on texts without labels.

    How often does the student give the teacher's answer? Beside it the same of the
    student's head alone, and of always giving the commonest answer. The two may sit
    on any models, with any tokenizers. For modules that were trained on pairs of
    texts name two columns: --column premise,hypothesis. Where there are no texts,
    a teacher that is a language model writes them: --generate 500.

    Example: regraft compare teacher-lora ported --texts texts.txt

    Args:
        teacher: Module whose answers are to be given.
        student: Module that is judged by them.
        teacher_model: Teacher's base. Default: as it says.
        model: Student's base. Default: as it says.
        device: cpu, cuda, cuda:1, mps. Default: a GPU if there is.
    """
    from ..distillation import comparison
    from ..models.families import register_family
    from ..modules.module import load
    from . import show
    from .verdict import compared

    register_family(families)
    read = texts.given()
    if read is None:
        raise SamplingError("found no texts to compare the modules on; give --texts FILE")
    found = comparison.compare(
        load(teacher),
        load(student),
        read,
        teacher_model=teacher_model,
        model=model,
        options=options,
        seed=texts.seed,
        trust_remote_code=trust_remote_code,
        device=device,
    )
    show.show_comparison(console, found)
    console.print(compared(found), soft_wrap=True)
    output.give(asdict(found), f"{found.agreement.percent:.1f}")
    bases = base_words(teacher_model, model)
    say_next("refine", student, "--teacher", teacher, *bases, *words_of(texts), "--out", "FINISHED")
