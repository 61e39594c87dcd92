"""The last hidden states of two models, laid side by side: what else a student can learn from its teacher.

Answers say little where a teacher is sure; the states that its task head reads say more. Dimensions of two models mean
different things, so they are compared through a map, as in the distillation of models of other widths (Jiao et al.
2020, TinyBERT, arXiv 1909.10351): here it is not learnt, but the one that a port reads by.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..alignment.moments import Moments
from ..errors import ModelError
from .vectors import Bridge


@contextmanager
def last_states(model: Any) -> Iterator[list[Tensor]]:
    """Hold the last hidden states of all runs of a model with its module, (texts, tokens, width) each.

    Args:
        model: of PEFT, with a head or without.

    Raises:
        ModelError: nothing but parts of what is below the head was run.
    """
    held: list[Tensor] = []
    body = model.get_base_model().base_model  # without the head
    handle = body.register_forward_hook(lambda _module, _inputs, output: held.append(output[0]))
    try:
        yield held
    finally:
        handle.remove()
    if not held:
        raise ModelError(
            f"{type(model.get_base_model()).__name__} runs its {type(body).__name__} in parts, so the last hidden "
            "states are not seen; leave out --hidden"
        )


@dataclass(frozen=True)
class HiddenDistance:
    """How far a student's last hidden states are from its teacher's, through a map that is fixed.

    Attributes:
        bridge: takes the student's to the teacher's.
        variance: of the teacher's, over all dimensions.
    """

    bridge: Bridge
    variance: float

    @staticmethod
    def fitted(moments: Moments) -> HiddenDistance:
        """Fit the map as a port fits what a task head reads, by ridge.

        Args:
            moments: of the last hidden states of both, with covariances.

        Raises:
            SamplingError: of fewer than two rows.
        """
        return HiddenDistance(Bridge.ported(moments), float(moments.squares_t.sum() / moments.n))

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Give the squared distance in units of the teacher's variance.

        Args:
            student: (rows, d_s).
            teacher: (rows, d_t).

        Returns:
            (rows,); over all rows that the map was fitted to, their mean is 1 - R2 before anything is learnt.
        """
        return (self.bridge(student.float()) - teacher.float()).square().sum(-1) / self.variance
