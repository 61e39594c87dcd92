from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.axes import Assignment


def test_identity_changes_nothing() -> None:
    tensor = torch.randn(3, 5)
    identity = Assignment.identity(5)
    assert torch.equal(identity.apply(tensor, 1), tensor)
    assert identity.unmatched == 0


def test_prune_and_align_by_hand() -> None:
    tensor = torch.tensor([[10.0, 11, 12, 13]])
    assert Assignment(torch.tensor([2, 0]), 4).apply(tensor, 1).tolist() == [[12, 10]]
    assert Assignment(torch.tensor([2, -1, 0]), 4).apply(tensor, 1).tolist() == [[12, 0, 10]]


@given(st.permutations(range(7)), st.integers(0, 1))
def test_a_permutation_undone_is_the_identity(order: list[int], axis: int) -> None:
    tensor = torch.randn(7, 7)
    there = Assignment(torch.tensor(order), 7)
    back = Assignment(torch.argsort(torch.tensor(order)), 7)
    assert torch.equal(back.apply(there.apply(tensor, axis), axis), tensor)


def test_maps_that_are_no_assignment_are_refused() -> None:
    with pytest.raises(ValueError, match="more than once"):
        Assignment(torch.tensor([1, 1]), 4)
    with pytest.raises(ValueError, match="outside"):
        Assignment(torch.tensor([4]), 4)
    with pytest.raises(ValueError, match="expects 4"):
        Assignment(torch.tensor([0]), 4).apply(torch.zeros(2, 3), 1)
