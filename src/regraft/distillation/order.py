"""In which order a training meets its examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .rows import Ints

# So many batches are sorted by length together.
_POOL = 16


def drawn(numbers: Ints, lengths: Sequence[int], size: int, batches: int, dice: torch.Generator) -> list[int]:
    """Draw the examples of so many batches; those of a batch are of like length.

    Each comes once in a pass, but for those that fill no batch. All are drawn before the first step, so that a resumed
    training goes on with the examples that are left.

    Args:
        numbers: of the examples to draw from.
        lengths: of all examples, by number.
        size: examples per batch.
        batches: how many to draw.
        dice: what draws.
    """
    repeated = torch.from_numpy(numbers).repeat(-(-size // len(numbers)))
    a_pass = len(repeated) // size
    pool = min(max(a_pass // 4, 1), _POOL)
    order: list[list[int]] = []
    while len(order) < batches:
        shuffled = repeated[torch.randperm(len(repeated), generator=dice)][: a_pass * size].tolist()
        for start in range(0, a_pass * size, pool * size):
            some = sorted(shuffled[start : start + pool * size], key=lengths.__getitem__)
            places = torch.randperm(len(some) // size, generator=dice).tolist()
            order += [some[batch * size : (batch + 1) * size] for batch in places]
    return [number for batch in order[:batches] for number in batch]
