"""Published results to set beside one's own, and to check the publication against itself."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReportError, unknown_choice
from ..groups import BASELINE, TEACHER, Group, groups
from ..results import Result, read_results
from ..table import NONE, Column, Table, columns, fixed, of_task, proper, texts

# Klimaszewski, Andruszkiewicz, Birch, "Is Modularity Transferable? A Case Study through the Lens of Knowledge
# Distillation", LREC-COLING 2024: per_language.csv holds its Tables 4 to 6, tables_2_and_3.csv its Tables 2 and 3.
_FOLDERS = {"paper": Path(__file__).parents[1] / "paper"}
_SOURCES = {"paper": "Klimaszewski, Andruszkiewicz and Birch, LREC-COLING 2024 (arXiv 2403.18804)"}

# A published average, and one of published scores, are each off by half a hundredth at most.
_ROUNDING = 0.01 + 1e-9


@dataclass(frozen=True)
class Reference:
    """Published results.

    Attributes:
        name: as the user chooses it.
        source: whom to cite.
        results: per language.
        printed: (setting, task, peft, row) -> number of the table that prints an average there, and the average.
    """

    name: str
    source: str
    results: Sequence[Result]
    printed: Mapping[tuple[str, str, str, str], tuple[str, float]]

    def discrepancies(self, setting: str | None = None) -> list[str]:
        """Say which printed averages, of one setting or all, are not those of the published scores per language."""
        notes = []
        for group in groups(self.results):
            if setting not in (None, group.setting):
                continue
            wrong = []
            for row in group.rows:
                printed = self.printed.get((group.setting, group.task, group.peft, row))
                spread = group.average(row, group.shared())
                if printed and spread and abs(printed[1] - spread.mean) > _ROUNDING:
                    table, average = printed
                    wrong.append(f"{row} {fixed(average)} (printed) and {fixed(spread.mean)}")
            if wrong:
                notes.append(
                    f"Table {table} of the {self.name} does not agree with its scores per language for "
                    f"{group.setting} {of_task(group.task)} {proper(group.peft)}: {'; '.join(wrong)} (their average, "
                    "used here)."
                )
        return notes


def load_reference(name: str) -> Reference:
    """Load published results that come with regraft.

    Raises:
        ReportError: there are none of that name.
    """
    if name not in _FOLDERS:
        raise ReportError(unknown_choice("reference", name, _FOLDERS))
    with (_FOLDERS[name] / "tables_2_and_3.csv").open(encoding="utf-8", newline="") as file:
        printed = {
            (line["setting"], line["task"], line["peft"], line["row"]): (line["table"], float(line["average"]))
            for line in csv.DictReader(file)
        }
    return Reference(name, _SOURCES[name], read_results(_FOLDERS[name] / "per_language.csv"), printed)


def published(results: Sequence[Result]) -> Reference | None:
    """Return the reference that all the results are taken from, if there is one."""
    references = map(load_reference, _FOLDERS)
    return next((reference for reference in references if set(results) <= set(reference.results)), None)


def beside(own: Sequence[Group], reference: Reference) -> Table:
    """Set the averages of a run beside published ones, over the languages that both have."""
    theirs = {(group.setting, group.task, _peft(group.peft)): group for group in groups(reference.results)}
    rows = []
    for group in own:
        other = theirs.get((group.setting, group.task, _peft(group.peft)))
        languages = {language for language, _ in group.shared() if other and language in other.languages}
        for row in group.rows:
            # The paper prunes and aligns wherever models are incompatible, so its rows need not say so.
            theirs_row = row.removesuffix("+lsa") if group.setting == "incompatible" else row
            if other and languages and theirs_row in other.rows:
                labels = (group.setting, of_task(group.task), proper(group.peft), row)
                numbers = zip(_numbers(group, row, languages), _numbers(other, theirs_row, languages), strict=True)
                rows.append(texts(*labels, str(len(languages)), *(number for pair in numbers for number in pair)))
    pairs = [Column(head, group) for group in ("average", "REL", "gain") for head in ("run", reference.name)]
    nothing = "Nothing to compare: no row of this run has the setting, task and languages of one there."
    return Table(
        name="reference",
        title=f"Beside the {reference.name}",
        columns=[*columns("setting", "task", "module", "row", "languages"), *pairs],
        labels=4,
        rows=rows,
        notes=[
            *([] if rows else [nothing]),
            f"{reference.name.capitalize()}: {reference.source}, averaged over the languages that the run has too. Its "
            "adapter is the bottleneck here, and its tm-skip in the incompatible setting is tm-skip+lsa. Other data "
            "splits, models or settings make the numbers differ; the gain over the baseline compares best.",
            *reference.discrepancies(),
        ],
    )


def _numbers(group: Group, row: str, languages: Collection[str]) -> list[str]:
    places = [place for place in group.shared() if place[0] in languages]
    score, teacher, baseline = (group.average(name, places) for name in (row, TEACHER, BASELINE))
    better, digits = group.measured.gain, group.measured.digits
    gap = better(score.mean, teacher.mean) if score and teacher and row != TEACHER else None
    gain = better(score.mean, baseline.mean) if score and baseline and row in group.transferred else None
    return [fixed(score.mean, digits) if score else NONE, fixed(gap, digits), fixed(gain, digits, signed=True)]


def _peft(name: str) -> str:
    return "bottleneck" if name == "adapter" else name
