"""Scores by steps of a group, of modules that were refined beside those trained with labels, ready to be drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ...experiment.starts import without_refining
from ..comparison import best, whole_curve
from ..groups import BASELINE, TEACHER, Group, Place, split_by
from ..results import Point
from ..table import fixed, of_task, proper
from .curves import BOTTOM, LEFT, TOP, Mean, ScorePanel, averaged, ends_of, mean_curve, score_name
from .scales import WIDTH, Frame, scale


@dataclass(frozen=True)
class StepsLine:
    """How far a start gets, in one of two ways.

    Attributes:
        row: the start.
        labelled: whether it learns from labels; else from its teacher's answers.
        points: in pixels.
        band: outline of mean ± deviation, in pixels; empty where there is one seed.
    """

    row: str
    labelled: bool
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class StepsPanel(ScorePanel):
    """Scores by steps of one group.

    Attributes:
        x_name: what steps are of, and from how many texts modules learn that are refined.
        lines: two per start, or one.
        goal: height of the teacher's best score, where it is known.
    """

    x_name: str
    lines: Sequence[StepsLine]
    goal: float | None


Curves = Mapping[Place, tuple[Point, ...]]


@dataclass(frozen=True)
class _Steps:
    """What is to be drawn of one group.

    Attributes:
        group: whose.
        means: (row, whether it learns from labels) -> its scores.
        goal: the teacher's best score, where it is known.
        trainings: how many each is the mean of.
    """

    group: Group
    means: Mapping[tuple[str, bool], Mean]
    goal: float | None
    trainings: int


def steps_panels(groups: Sequence[Group]) -> list[StepsPanel]:
    """Draw scores by steps over the trainings that all rows have, where modules were refined; of a task on one scale.

    Rows that differ only in how long they are refined are the points of one line. Beside the lines stand the same
    starts as they learn from labels, and the baseline.
    """
    panels = []
    for of_one_task in split_by("task", groups):
        found = [steps for group in of_one_task if (steps := _steps(group))]
        means = [mean for steps in found for mean in steps.means.values()]
        panels += [_drawn(steps, *ends_of(means, [steps.goal for steps in found])) for steps in found]
    return panels


def _steps(group: Group) -> _Steps | None:
    refined: dict[str, list[Curves]] = defaultdict(list)
    beside = {BASELINE}
    for row in group.label_free:
        ends = {place: curve for place, curve in _curves(group, row).items() if curve[0].step == 0 < curve[-1].step}
        if ends:
            start, with_labels = without_refining(row)
            refined[start].append(ends)
            beside.add(with_labels)
    rows = {row: curves for row in (BASELINE, *group.transferred) if row in beside and (curves := _curves(group, row))}
    every = [*(curves for several in refined.values() for curves in several), *rows.values()]
    shared = set.intersection(*map(set, every)) if refined else set()
    if not shared:
        return None
    means = {
        **{(row, True): mean_curve({place: curves[place] for place in shared}) for row, curves in rows.items()},
        **{(start, False): _mean_of_ends(several, shared) for start, several in refined.items()},
    }
    return _Steps(group, means, _of_teacher(group, {language for language, _ in shared}), len(shared))


def _drawn(steps: _Steps, across: Sequence[float], levels: Sequence[float]) -> StepsPanel:
    group, goal = steps.group, steps.goal
    frame = Frame(LEFT, TOP, WIDTH - 14, BOTTOM)
    y = scale(levels, frame.bottom, frame.top)
    x = scale([0.0, *across], frame.left, frame.right, margin=0)
    return StepsPanel(
        title=f"{of_task(group.task)} {proper(group.peft)}, {proper(group.metric)}",
        description=_described(steps),
        frame=frame,
        x=x.ticks(5),
        y=y.ticks(5),
        y_name=score_name(group),
        x_name=f"training steps; without labels on {_texts(group)} texts",
        lines=[StepsLine(row, labelled, *mean.drawn(x, y)) for (row, labelled), mean in steps.means.items()],
        goal=None if goal is None else y(goal),
    )


def _curves(group: Group, row: str) -> Curves:
    """The learning curves of a row by language and seed, with the score before training."""
    return {place: curve for place, result in group.cells.get(row, {}).items() if (curve := whole_curve(result))}


def _mean_of_ends(several: Sequence[Curves], shared: set[Place]) -> Mean:
    """Average the start that rows have in common, and the end of each at the steps that it takes on average."""

    def taken(curves: Curves) -> float:
        return fmean(curves[place][-1].step for place in shared)

    rows = sorted(several, key=taken)
    by_place = {
        place: np.array([rows[0][place][0].score, *(curves[place][-1].score for curves in rows)]) for place in shared
    }
    return averaged(np.array([0.0, *map(taken, rows)]), by_place)


def _of_teacher(group: Group, languages: set[str]) -> float | None:
    """Average the teacher's best scores in some languages, seeds first; None where one is not known."""
    by_language = defaultdict(list)
    for (language, _), curve in _curves(group, TEACHER).items():
        by_language[language].append(best(curve, group.measured))
    if not languages <= {*by_language}:
        return None
    return fmean(fmean(by_language[language]) for language in languages)


def _texts(group: Group) -> str:
    """Say how many texts modules learn from that are refined, in this group."""
    counts = sorted(result.refined.texts for row in group.label_free for result in group.results(row) if result.refined)
    return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def _described(steps: _Steps) -> str:
    def score(value: float) -> str:
        return fixed(value, steps.group.measured.digits)

    lines = []
    for (row, labelled), mean in steps.means.items():
        points = [f"{score(value)} at {fixed(step, 0)}" for value, step in zip(mean.scores, mean.steps, strict=True)]
        told = [points[0], points[-1]] if labelled else points  # a curve may have many
        lines.append(f"{row} {'with' if labelled else 'without'} labels {', '.join(told)}")
    teacher = "" if steps.goal is None else f" The teacher: {score(steps.goal)}."
    return f"Validation scores at so many steps: {'; '.join(lines)}.{teacher} Trainings per row: {steps.trainings}."
