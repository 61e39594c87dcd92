"""Sum up experiments in one table each: a row per start, over all tasks, languages and kinds of module.

    python benchmarks/table.py results/micro results/minilm

Gap closed: gains over the random start, summed over the tasks, as a share of the gaps to the teacher, summed likewise.
Wins: cells (task, language, kind of module) in which the start beats the random one, seeds averaged. Soon: trainings
that reach the random start's best validation score in at most half of its steps. Port: seconds, the models' runs over
texts included where they are for this module alone.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from _common import markdown

from regraft.experiment.store import Store
from regraft.report.collect import collect
from regraft.report.comparison import best, compare, whole_curve
from regraft.report.groups import Group, groups

HEADER = ["start", "bottleneck: gap closed", "LoRA: gap closed", "gain", "wins", "soon", "before training", "port"]


def closed(here: list[Group], row: str, kind: str) -> str:
    gains = gaps = 0.0
    for group in here:
        means = [group.average(name, group.shared()) for name in (row, "student", "teacher")]
        if group.peft == kind and all(means):
            own, random, teacher = (mean.mean for mean in means if mean)
            gains, gaps = gains + own - random, gaps + teacher - random
    return f"{100 * gains / gaps:.0f}%" if gaps >= 1 else ""


def soon(group: Group, row: str) -> list[bool]:
    found = []
    for result, baseline in group.pairs(row):
        curve, other = whole_curve(result), whole_curve(baseline)
        took = next(point.step for point in other if point.score >= best(other, group.measured))
        reached = [point.step for point in curve if point.score >= best(other, group.measured)]
        found.append(bool(reached) and reached[0] <= took / 2)
    return found


def port_seconds(store: Store) -> dict[tuple[str, str], list[float]]:
    seconds = defaultdict(list)
    for number in store.read_index()["numbers"]:
        key = number["start_key"]
        if key and store.done(key) and not store.record(key).get("resumed"):
            seconds[number["setting"], number["row"]].append(store.record(key)["seconds"])
    return seconds


def main(folder: Path) -> None:
    _, results = collect(folder)
    seconds = port_seconds(Store(folder))
    every = groups(results)
    for setting in dict.fromkeys(group.setting for group in every):
        here = [group for group in every if group.setting == setting]
        baseline = {group.peft: [] for group in here}
        for group in here:
            teacher, random = (group.average(row, group.shared()) for row in ("teacher", "student"))
            if teacher and random:
                baseline[group.peft].append(f"{group.task} {random.mean:.1f} of {teacher.mean:.1f}")
        print(f"\n{folder.name}, {setting}; random start of teacher: {baseline}\n")
        rows = []
        for row in dict.fromkeys(row for group in here for row in group.transferred):
            found = [one for group in here for one in compare(group) if one.row == row]
            cells = [gain for one in found for gain in one.by_language.values()]
            quick = [hit for group in here for hit in soon(group, row)]
            before = [result.before for group in here for result, _ in group.pairs(row) if result.before is not None]
            rows.append(
                [
                    row,
                    closed(here, row, "bottleneck"),
                    closed(here, row, "lora"),
                    f"{fmean(cells):+.1f}",
                    f"{sum(one.wins for one in found)} of {len(cells)}",
                    f"{sum(quick)} of {len(quick)}",
                    f"{fmean(before):.1f}",
                    f"{fmean(seconds[setting, row]):.0f} s" if seconds[setting, row] else "",
                ]
            )
        print(markdown(HEADER, rows))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(Path(name))
