from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.alignment.maps import Assignment, Linear, Map


def test_identity_changes_nothing() -> None:
    tensor = torch.randn(3, 5)
    identity = Assignment.identity(5)
    assert torch.equal(identity.read(tensor, 1), tensor)
    assert identity.unmatched == 0


def test_prune_and_align_by_hand() -> None:
    tensor = torch.tensor([[10.0, 11, 12, 13]])
    assert Assignment(torch.tensor([2, 0]), 4).read(tensor, 1).tolist() == [[12, 10]]
    assert Assignment(torch.tensor([2, -1, 0]), 4).read(tensor, 1).tolist() == [[12, 0, 10]]


@given(st.permutations(range(7)), st.integers(0, 1))
def test_a_permutation_undone_is_the_identity(order: list[int], axis: int) -> None:
    tensor = torch.randn(7, 7)
    there = Assignment(torch.tensor(order), 7)
    back = Assignment(torch.argsort(torch.tensor(order)), 7)
    assert torch.equal(back.read(there.read(tensor, axis), axis), tensor)


@given(st.permutations(range(7)), st.integers(1, 7), st.integers(0, 1), st.booleans())
def test_linear_maps_of_assignments_act_like_them(order: list[int], matched: int, axis: int, wider: bool) -> None:
    index = torch.tensor(order[:matched])
    assignment = Assignment(torch.cat([index, torch.full((2,), -1)]) if wider else index, 7)
    linear = Linear.of(assignment)
    assert (linear.student_width, linear.teacher_width) == (assignment.student_width, assignment.teacher_width)
    assert linear.unmatched == assignment.unmatched == 2 * wider
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        tensor = torch.randn(7, 7).to(dtype)
        for one, other in ((linear.read, assignment.read), (linear.write, assignment.write)):
            assert one(tensor, axis).dtype == dtype
            assert torch.equal(one(tensor, axis), other(tensor, axis))
    assert torch.equal(linear.write(tensor[0], 0), assignment.write(tensor[0], 0))
    assert torch.equal(linear.without_offset().read(tensor, axis), assignment.without_offset().read(tensor, axis))


def random_linear(d_s: int, d_t: int) -> Linear:
    dice = torch.Generator().manual_seed(0)
    shapes = ((d_t, d_s), (d_t,), (d_s, d_t), (d_s,))
    return Linear(*(torch.randn(shape, generator=dice, dtype=torch.float64) for shape in shapes))


def test_linear_maps_by_hand() -> None:
    linear, tensor = random_linear(3, 5), torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(linear.read(tensor, 1), tensor @ linear.reads)
    torch.testing.assert_close(linear.write(tensor.T, 0), linear.writes @ tensor.T)
    assert linear.write(tensor.T, 0).is_contiguous()
    folded = linear.without_offset()
    expected = tensor @ linear.reads + torch.outer(tensor @ linear.offset, linear.constant)
    torch.testing.assert_close(folded.read(tensor, 1), expected)
    assert not folded.offset.any()
    rough = tensor.to(torch.bfloat16)
    assert torch.equal(linear.read(rough, 1), (rough.float() @ linear.reads.float()).bfloat16())


def test_student_dimensions_that_are_neither_read_nor_written_are_unmatched() -> None:
    linear = random_linear(3, 5)
    assert linear.unmatched == 0
    linear.writes[1] = 0
    assert linear.unmatched == 0
    linear.reads[:, 1] = 0
    assert linear.unmatched == 1


@pytest.mark.parametrize("fitted", [Assignment.identity(4), Linear.of(Assignment.identity(4))])
def test_tensors_of_another_width_are_refused(fitted: Map) -> None:
    for act in (fitted.read, fitted.write):
        with pytest.raises(ValueError, match="axis 1 is 3 wide, the map expects 4"):
            act(torch.zeros(2, 3), 1)


def test_maps_that_are_no_assignment_are_refused() -> None:
    with pytest.raises(ValueError, match="more than once"):
        Assignment(torch.tensor([1, 1]), 4)
    with pytest.raises(ValueError, match="outside"):
        Assignment(torch.tensor([4]), 4)


def test_matrices_that_do_not_belong_together_are_refused() -> None:
    good = random_linear(3, 5)
    with pytest.raises(ValueError, match=r"beside reads of shape \(5, 3\)"):
        Linear(good.reads, good.offset, good.writes.T, good.constant)
