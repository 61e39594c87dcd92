"""Run both models over the same texts and feed the moments of every needed space."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .errors import PlanError, SamplingError, unknown_choice
from .families import Family
from .layers import match_layers
from .models import BaseModel, depth, find_sites, find_space
from .moments import Moments
from .pairing import Encoding, Ints, encode, make_pairing, pool
from .roles import HEAD_SPACES, PER_TEXT, SITES, spaces_at
from .samples import Sample, Source, Space, SplitMoments
from .seeding import generator

# One batch in ten is held out, at least one.
HELD_OUT_SHARE = 0.1
MIN_PAIRS = 64
# Where LoRA and the bottleneck sit by default.
DEFAULT_SITES = ("query", "value", "output_norm")


def spaces_of(
    teacher: BaseModel, student: BaseModel, layers: str | Sequence[int], sites: Sequence[str] | None = None
) -> list[Space]:
    """List the pairs of spaces that modules on some sites, and task heads, need, in either convention.

    Args:
        teacher: the model that modules were trained on.
        student: the model that they go to.
        layers: how layers are matched, as in `layers.match_layers`.
        sites: names of sites that both models have; by default those of `DEFAULT_SITES` that they have.

    Raises:
        PlanError: an unknown site, one that a model lacks, or layers that cannot be matched.
    """
    shapes = [find_sites(base.skeleton(), base.family) for base in (teacher, student)]
    known = [site for site in SITES if site in teacher.family.sites and site in student.family.sites]
    chosen = [site for site in DEFAULT_SITES if site in known] if sites is None else sites
    for site in chosen:
        if site not in known:
            raise PlanError(unknown_choice("site", site, known))
    names = {name for site in chosen for name in spaces_at(site)}
    depths = [depth(shape) for shape in shapes]
    groups = match_layers(layers, *depths)
    spaces = {
        Space(layer, share.layer, name) for layer, group in enumerate(groups) for share in group for name in names
    }
    lasts = [count - 1 for count in depths]
    return sorted(
        spaces
        | {
            Space(lasts[1], lasts[0], name)
            for name in HEAD_SPACES
            if all(find_space(shape, last, name) for shape, last in zip(shapes, lasts, strict=True))
        }
    )


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
) -> Sample:
    """Run both models over `texts` and collect the moments of `spaces`.

    Args:
        teacher: the model that the module was trained on.
        student: the model that it goes to.
        spaces: pairs of spaces to observe.
        texts: at least two; sorted by length internally to save padding, which changes no result but the held-out
            split.
        pairing: a key of `pairing.PAIRINGS`.
        batch_size: texts per batch.
        max_length: tokens after which a text is cut.
        device: where to run; by default a GPU where there is one, or where a loaded model is.
        dtype: of the weights; by default the checkpoint's own.
        progress: whether to draw a progress bar.
        covariances: whether to take the covariances within either model, which alignments by linear maps need:
            O((d_s + d_t)^2) memory per pair of spaces. `lsa` does without, in O(d_s d_t).

    Raises:
        SamplingError: texts, tokenizers or activations that do not serve, or too few tokens paired.
    """
    if isinstance(texts, str):
        raise SamplingError("got one string for texts, expected a list of texts")
    texts = [text for text in texts if text.strip()]
    if len(texts) < 2:
        raise SamplingError(
            f"found {len(texts)} non-empty texts, expected at least 2 (a tenth is held out); "
            "give plain text, one per line, some hundred lines"
        )
    tokenizer_t, tokenizer_s = teacher.tokenizer(), student.tokenizer()
    pair_tokens = make_pairing(pairing, tokenizer_t, tokenizer_s)
    ordered = sorted(texts, key=lambda text: (len(text), text))
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    held_out = held_out_batches(len(batches))
    totals: dict[Space, list[Moments]] = {}
    pairs = paired = tokens = 0
    with teacher.running(dtype, device) as model_t, student.running(dtype, device) as model_s:
        # A checkpoint may lack the pooler that its class has; heads that need it are told by `alignment.fit_maps`.
        poolers = all(getattr(model, "pooler", None) is not None for model in (model_t, model_s))
        spaces = [space for space in spaces if poolers or space.name not in PER_TEXT]
        watched_t = _watched(model_t, teacher.family, "teacher", {(s.teacher_layer, s.name) for s in spaces})
        watched_s = _watched(model_s, student.family, "student", {(s.student_layer, s.name) for s in spaces})
        for number, batch in enumerate(tqdm(batches, desc="Sampling", unit="batch", disable=not progress)):
            encoding_t = encode(tokenizer_t, batch, min(max_length, teacher.longest))
            encoding_s = encode(tokenizer_s, batch, min(max_length, student.longest))
            found = pair_tokens(batch, encoding_t, encoding_s)
            pairs += found.count
            paired += found.paired_student_tokens
            tokens += found.student_tokens
            if not found.count:
                continue
            x_t = _pooled(
                _observe(model_t, watched_t, encoding_t), found.teacher_rows, found.teacher_pair, found.count, teacher
            )
            x_s = _pooled(
                _observe(model_s, watched_s, encoding_s), found.student_rows, found.student_pair, found.count, student
            )
            for space in spaces:
                s, t = x_s[space.student_layer, space.name], x_t[space.teacher_layer, space.name]
                moments = Moments.of(s, t.to(s.device), covariances)
                d_s, d_t = moments.cross.shape
                split = totals.setdefault(space, [Moments.zeros(d_s, d_t, moments.cross.device, covariances)] * 2)
                split[number in held_out] += moments
    if pairs < MIN_PAIRS:
        raise SamplingError(
            f"paired {pairs} tokens ({paired} of {tokens} student tokens), expected at least {MIN_PAIRS}; "
            + ("give more texts" if pairing == "offsets" else "give more texts or use pairing 'offsets'")
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
    return Sample(source, moments_of, pairs, paired, tokens)


def held_out_batches(count: int) -> set[int]:
    """Choose the batches to hold out: a tenth, drawn over all lengths of text, the same for the same number."""
    order = torch.randperm(count, generator=generator(0, "held-out batches"))
    return set(order[: max(1, round(count * HELD_OUT_SHARE))].tolist()) if count > 1 else set()


def _pooled(
    observed: Mapping[tuple[int, str], Tensor], rows: Ints, pair: Ints, count: int, base: BaseModel
) -> dict[tuple[int, str], Tensor]:
    """Pool token vectors to one per pair; what stands for a whole text already has one."""
    return {
        key: x if key[1] in PER_TEXT else pool(x, rows, pair, count, base.family.causal) for key, x in observed.items()
    }


def _watched(
    model: Any, family: Family, who: str, wanted: set[tuple[int, str]]
) -> dict[tuple[int, str], tuple[Any, bool]]:
    """Find, for each (layer, space), the submodule to hook and whether the space is its input."""
    sites = find_sites(model, family)
    watched = {}
    for layer, space in wanted:
        found = find_space(sites, layer, space)
        if found is None:
            raise SamplingError(f"the {who} has no {space} in layer {layer}; choose other --sites or --layers")
        shape, side = found
        watched[layer, space] = model.get_submodule(shape.path), side == "in"
    return watched


@contextmanager
def _recording(watched: Mapping[tuple[int, str], tuple[Any, bool]]) -> Iterator[dict[tuple[int, str], Tensor]]:
    seen: dict[tuple[int, str], Tensor] = {}

    def hook(key: tuple[int, str], is_input: bool) -> Any:
        def record(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            value = (args[0] if args else next(iter(kwargs.values()))) if is_input else output
            seen[key] = value.flatten(0, -2)

        return record

    handles = [
        module.register_forward_hook(hook(key, is_input), with_kwargs=True)
        for key, (module, is_input) in watched.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def _observe(
    model: Any, watched: Mapping[tuple[int, str], tuple[Any, bool]], encoding: Encoding
) -> dict[tuple[int, str], Tensor]:
    """Return (texts * tokens, d) activations per (layer, space), (texts, d) for the spaces of a whole text."""
    device = next(model.parameters()).device
    with _recording(watched) as seen:
        model(
            input_ids=torch.from_numpy(encoding.ids).to(device),
            attention_mask=torch.from_numpy(encoding.attention).to(device),
        )
    return seen
