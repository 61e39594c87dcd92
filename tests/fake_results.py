"""Made-up results that look like a real run, for tests of the report."""

from __future__ import annotations

import math

import numpy as np

from regraft.report.results import Alignment, Point, Result

LANGUAGES = ("de", "en", "fr")
SEEDS = (0, 1, 2)
STEPS = (50, 100, 200, 300, 400, 500, 600)

# The level that a row ends at and how fast it gets there, per setting.
_ROWS = {
    "matching": {"student": (70, 220), "tm-avg": (72, 150), "tm-skip": (74, 110)},
    "incompatible": {"student": (80, 200), "tm-skip+copy": (79.2, 210), "tm-skip+lsa": (80.4, 170)},
}


def make_results() -> list[Result]:
    """Return two settings, two tasks, two kinds and three languages; students have three seeds, teachers one."""
    dice = np.random.default_rng(0)
    results = []
    for setting, rows in _ROWS.items():
        for number, (task, metric) in enumerate((("ner", "f1"), ("pi", "accuracy"))):
            for peft in ("bottleneck", "lora"):
                for language, shift in zip(LANGUAGES, (0, 4, -3), strict=True):
                    base = shift - 6 * number - (3 if peft == "lora" else 0)
                    place = {"setting": setting, "task": task, "metric": metric, "peft": peft, "language": language}
                    score = round(84 + base + dice.normal() / 2, 2)
                    results.append(Result(**place, row="teacher", score=score, seed=0, before=2.0, seconds=1900.0))
                    for row, (level, pace) in rows.items():
                        for seed in SEEDS:
                            noise = dice.normal(size=len(STEPS) + 2) / 2
                            scores = [level + base - 45 * math.exp(-step / pace) for step in (*STEPS, 700)]
                            curve = tuple(
                                Point(step, round(score + wobble, 2))
                                for step, score, wobble in zip(STEPS, scores, noise, strict=False)
                            )
                            results.append(
                                Result(
                                    **place,
                                    row=row,
                                    seed=seed,
                                    score=round(scores[-1] + float(noise[-1]), 2),
                                    before=round(20 + 3 * float(noise[-2]), 2),
                                    curve=curve,
                                    alignment=_alignment(peft) if row.endswith("+lsa") else (),
                                    seconds=600 + 20 * float(noise[0]),
                                )
                            )
    return results


def _alignment(peft: str) -> tuple[Alignment, ...]:
    spaces = ("query.in", "query.out", "value.out") if peft == "lora" else ("norm.in", "norm.out")
    return tuple(
        Alignment(
            layer, 2 * layer, space, assigned=0.72 - 0.04 * layer - 0.1 * i, held_out=0.66 - 0.05 * layer - 0.1 * i
        )
        for layer in range(6)
        for i, space in enumerate(spaces)
    )
