from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import PlanError
from regraft.port.layers import MATCHINGS, Share, match_layers


def layers(groups: tuple) -> list[list[int]]:
    return [[share.layer for share in group] for group in groups]


def test_skip_takes_every_second_layer() -> None:
    assert layers(match_layers("skip", 12, 6)) == [[0], [2], [4], [6], [8], [10]]


def test_last_takes_the_last_of_each_group() -> None:
    assert layers(match_layers("last", 12, 6)) == [[1], [3], [5], [7], [9], [11]]


def test_avg_is_the_mean_of_the_group() -> None:
    assert match_layers("avg", 6, 2) == (
        (Share(0, 1 / 3), Share(1, 1 / 3), Share(2, 1 / 3)),
        (Share(3, 1 / 3), Share(4, 1 / 3), Share(5, 1 / 3)),
    )


def test_avg_released_never_adds_the_last_layer_of_a_group() -> None:
    assert match_layers("avg_released", 4, 2) == ((Share(0, 0.5),), (Share(2, 0.5),))
    assert match_layers("avg_released", 3, 1) == ((Share(0, 1 / 3), Share(1, 1 / 3)),)


def test_avg_released_refuses_groups_of_one() -> None:
    with pytest.raises(PlanError, match=r"use 'avg' or 'skip'"):
        match_layers("avg_released", 6, 6)


def test_depths_that_do_not_divide_are_paired_proportionally() -> None:
    assert layers(match_layers("skip", 12, 5)) == [[0], [2], [4], [7], [9]]
    assert layers(match_layers("avg", 7, 3)) == [[0, 1], [2, 3], [4, 5, 6]]


def test_a_deeper_student_repeats_layers() -> None:
    assert layers(match_layers("skip", 2, 4)) == [[0], [0], [1], [1]]


def test_explicit_list() -> None:
    assert layers(match_layers([3, 0, 3], 4, 3)) == [[3], [0], [3]]


@pytest.mark.parametrize(
    ("given_layers", "message"),
    [
        ([0, 1], "names 2 teacher layers, expected 3: one per student layer"),
        ([0, 1, 4], "names layer 4, expected 0 to 3"),
        ([0, 1, -1], "names layer -1, expected 0 to 3"),
        ("skpi", "expected one of avg, avg_released, last, skip; did you mean 'skip'"),
    ],
)
def test_mistakes_are_refused_in_words(given_layers: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        match_layers(given_layers, 4, 3)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["skip", "avg", "last"]))
def test_groups_are_ordered_weigh_one_and_avg_uses_every_layer(deep: int, shallow: int, name: str) -> None:
    groups = match_layers(name, deep, shallow)
    assert len(groups) == shallow
    assert all(sum(share.weight for share in group) == pytest.approx(1) for group in groups)
    flat = [share.layer for group in groups for share in group]
    assert flat == sorted(flat)
    if name == "avg" and deep >= shallow:
        assert flat == list(range(deep))


def test_registry_is_what_the_error_lists() -> None:
    assert set(MATCHINGS) == {"skip", "avg", "avg_released", "last"}
