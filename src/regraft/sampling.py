"""Take the moments of every needed space from a pair of models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from .alignment.moments import Moments, SplitMoments
from .models.pretrained import BaseModel
from .models.sites import Space
from .observation import Activations, in_order, observe
from .samples import Sample, Source


def sample(
    teacher: BaseModel,
    student: BaseModel,
    spaces: Sequence[Space],
    texts: Sequence[str],
    pairing: str = "offsets",
    batch_size: int = 32,
    max_length: int = 256,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
    covariances: bool = True,
    title: str = "Sampling",
) -> Sample:
    """Run both models over `texts` and collect the moments of `spaces`.

    Args:
        teacher: the model that the module was trained on.
        student: the model that it goes to.
        spaces: pairs of spaces to observe.
        texts: at least two; sorted by length internally to save padding, which changes no result but the held-out
            split.
        pairing: a key of `pairing.PAIRINGS`.
        batch_size: texts per batch, at most.
        max_length: tokens after which a text is cut.
        device: where to run; by default a GPU where there is one, or where a loaded model is.
        dtype: of the weights; by default the checkpoint's own.
        progress: whether to draw a progress bar.
        covariances: whether to take the covariances within either model, which alignments by linear maps need:
            O((d_s + d_t)^2) memory per pair of spaces. `lsa` does without, in O(d_s d_t).
        title: of the progress bar.

    Raises:
        SamplingError: texts, tokenizers or activations that do not serve, or too few tokens paired.
    """
    ordered = in_order(texts)
    totals: dict[Space, list[Moments]] = {}

    def feed(x_s: Activations, x_t: Activations, held_out: bool) -> None:
        for space in spaces:
            s, t = x_s.get((space.student_layer, space.name)), x_t.get((space.teacher_layer, space.name))
            if s is None or t is None:
                continue  # no pooler
            moments = Moments.of(s, t.to(s.device), covariances)
            d_s, d_t = moments.cross.shape
            split = totals.setdefault(space, [Moments.zeros(d_s, d_t, moments.cross.device, covariances)] * 2)
            split[held_out] += moments

    counts = observe(
        teacher,
        student,
        {(space.teacher_layer, space.name) for space in spaces},
        {(space.student_layer, space.name) for space in spaces},
        ordered,
        feed,
        pairing,
        batch_size,
        max_length,
        device,
        dtype,
        progress,
        title,
    )
    source = Source(
        teacher=teacher.name,
        student=student.name,
        teacher_config=teacher.config_hash,
        student_config=student.config_hash,
        teacher_weights=teacher.weights_id,
        student_weights=student.weights_id,
        pairing=pairing,
        texts=(hashlib.sha256("\n".join(ordered).encode()).hexdigest()[:16],),
    )
    moments_of = {space: SplitMoments(split[0].to("cpu"), split[1].to("cpu")) for space, split in totals.items()}
    return Sample(source, moments_of, counts.pairs, counts.paired_tokens, counts.student_tokens)
