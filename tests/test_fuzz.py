"""Bad inputs of every kind: each command ends with 0 or 2, says one sentence, and leaves nothing behind."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from fuzz.cases import cases
from fuzz.known import known
from fuzz.runner import Case, Found, Try, try_all
from fuzz.world import World, make_world
from hypothesis import HealthCheck, Phase, given, seed, settings

CASES = int(os.environ.get("REGRAFT_FUZZ_CASES", "2000"))
SEED = int(os.environ.get("REGRAFT_FUZZ_SEED", "0"))
SIZE = 100


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def check(found: list[Found], expected: int) -> None:
    """Say what went wrong in all of them, and what took how long."""
    wrong = [f"{one.kind}, {one.label}: {one.wrong}\n{one.said}" for one in found if one.wrong]
    seconds: Counter[str] = Counter()
    for one in found:
        seconds[one.kind] += one.seconds
    numbers = Counter(one.kind for one in found)
    print("\n".join(f"{numbers[kind]:5} of {kind}: {spent:.1f} s" for kind, spent in seconds.most_common()))
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)
    assert len(found) == expected


PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_what_was_found_once_is_refused(part: int, world: World, tmp_path: Path) -> None:
    every = list(known(world))[part::PARTS]
    check(try_all(tmp_path, lambda attempt: [attempt(case) for case in every] and None), len(every))


@pytest.mark.parametrize("number", range(-(-CASES // SIZE)))
def test_drawn_cases(number: int, world: World, tmp_path: Path) -> None:
    size = min(SIZE, CASES - number * SIZE)

    def draw(attempt: Try) -> None:
        @seed(SEED * 1_000_000 + number)
        @settings(
            max_examples=size,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )
        @given(cases(world))
        def each(case: Case) -> None:
            attempt(case)

        each()

    check(try_all(tmp_path, draw), size)
