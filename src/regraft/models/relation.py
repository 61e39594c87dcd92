"""How two models are related: told by their weights, of which a few slices are read, and no model is run.

Models that were trained apart share no dimensions, whatever their widths: the cosine of their weights is about 0, and
what is copied from one to the other means nothing there. A model that was cut, distilled or trained on from another
shares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor
from torch.nn import Embedding
from torch.nn.functional import cosine_similarity, normalize

from ..errors import ModelError, ModuleFileError, quoted
from ..files.reading import sliceable_tensors
from .adapters import bare_parameters
from .pretrained import Pretrained
from .sites import Place, SiteShape, attention_heads, depth, find_sites, site_of

Kind = Literal["same", "cut", "distilled", "related", "unrelated", "unknown"]

# From which mean cosine of weights two models share their dimensions. Of models trained apart it is 0 up to chance:
# with the thousands of values per layer that are read even in tiny ones, the best of many layers stays below 0.1.
ALIKE = 0.2
# How many values of a weight are read: of a 7B model 16 rows, of a small one all.
VALUES = 65_536
# In how many places of the vocabulary embeddings are read: the first tokens are often unused ones.
STRETCHES = 16


@dataclass(frozen=True)
class Relation:
    """How a student is related to a teacher.

    Attributes:
        kind: ``"same"``; ``"cut"``: its layers are some of the teacher's; ``"distilled"``: alike, of another depth;
            ``"related"``: alike, of one depth; ``"unrelated"``; ``"unknown"``: weights that cannot be read from here.
        layers: for each of its layers the teacher's that is most like it; empty where that is not known.
        cosine: the mean cosine of the weights of these layers; None where it is not known.
        embeddings: likewise of the token embeddings.
        reason: why it is unknown, or unrelated without a look at the weights; else empty.
    """

    kind: Kind
    layers: tuple[int, ...] = ()
    cosine: float | None = None
    embeddings: float | None = None
    reason: str = ""


def relate(teacher: Pretrained, student: Pretrained) -> Relation:
    """Tell how a student is related to a teacher, by slices of their weights.

    Raises:
        ModelError: a model that cannot be built, or whose checkpoint is not whole.
    """
    try:
        with weights_of(teacher) as weights_t, weights_of(student) as weights_s:
            return _compared(teacher, student, weights_t, weights_s)
    except ModuleFileError as error:  # a port needs no weights of its models
        return Relation("unknown", reason=str(error))


def _compared(
    teacher: Pretrained, student: Pretrained, weights_t: Mapping[str, Any], weights_s: Mapping[str, Any]
) -> Relation:
    for base, weights in ((teacher, weights_t), (student, weights_s)):
        if base.gguf_file:
            if teacher.weights_id == student.weights_id:
                return Relation("same", tuple(range(depth(find_sites(base.skeleton(), base.family)))))
            return Relation("unknown", reason=f"the weights of {base.name} are quantised, in GGUF")
        if not weights:
            return Relation("unknown", reason=f"the weights of {base.name} are not on this machine")
    skeletons = teacher.skeleton(), student.skeleton()
    for base, skeleton, weights in ((teacher, skeletons[0], weights_t), (student, skeletons[1], weights_s)):
        if all(find_weight(weights, path) is None for path, _ in skeleton.named_parameters()):
            raise ModelError(
                f"{base.name} holds no weight of a {base.config.model_type} model (found {quoted(min(weights))}), "
                "expected all of them; use a whole checkpoint"
            )
    sites_t, sites_s = find_sites(skeletons[0], teacher.family), find_sites(skeletons[1], student.family)
    site_names = _common(sites_t, sites_s)
    if not site_names:
        return Relation("unrelated", reason="no linear layer of the one has the size of the other's")
    counts = attention_heads(student, teacher)
    if any(heads_s != heads_t for heads_s, heads_t in counts.values()):
        heads_s, heads_t = counts["query_output"]
        return Relation("unrelated", reason=f"their attention heads differ: {heads_t} and {heads_s}, or in keys")
    layers_t = _layers(teacher, weights_t, sites_t, site_names)
    layers_s = _layers(student, weights_s, sites_s, site_names)
    if layers_t is None or layers_s is None:
        base = teacher if layers_t is None else student
        return Relation("unknown", reason=f"the weights of {base.name} are quantised, or named otherwise")
    tables = [_table(skeleton) for skeleton in skeletons]
    count = min(size for _, size in tables)
    tokens_t, tokens_s = (
        _embeddings(weights, path, count) for weights, (path, _) in zip((weights_t, weights_s), tables, strict=True)
    )
    return _judged(layers_t, layers_s, tokens_t, tokens_s, teacher.config_hash == student.config_hash)


def _judged(
    layers_t: Tensor, layers_s: Tensor, tokens_t: Tensor | None, tokens_s: Tensor | None, one_config: bool
) -> Relation:
    """Judge by the values of each layer, (L_t, N) and (L_s, N), and of the embeddings."""
    cosines = normalize(layers_s, dim=1) @ normalize(layers_t, dim=1).T
    best = cosines.argmax(1)
    layers, cosine = tuple(best.tolist()), float(cosines.amax(1).mean())
    tokens, equal = None, False
    if tokens_t is not None and tokens_s is not None and tokens_t.shape == tokens_s.shape:
        tokens = float(cosine_similarity(tokens_t, tokens_s, dim=1).mean())
        equal = torch.equal(tokens_t, tokens_s) and torch.equal(layers_t[best], layers_s)
    if equal and len(layers_s) < len(layers_t):
        kind: Kind = "cut"
    elif equal and one_config and layers == tuple(range(len(layers_t))):
        kind = "same"
    elif cosine < ALIKE:
        kind = "unrelated"
    else:
        kind = "related" if len(layers_t) == len(layers_s) else "distilled"
    return Relation(kind, layers, cosine, tokens)


def _common(sites_t: Mapping[Place, SiteShape], sites_s: Mapping[Place, SiteShape]) -> list[str]:
    """Name up to two kinds of linear layers that are of one size in both models."""

    def sizes(sites: Mapping[Place, SiteShape]) -> dict[str, tuple[int, int]]:
        """Of those that every layer has."""
        first = {name: (shape.in_width, shape.out_width) for (layer, name), shape in sites.items() if layer == 0}
        layers = range(depth(sites))
        return {name: size for name, size in first.items() if all((layer, name) in sites for layer in layers)}

    sizes_t, sizes_s = sizes(sites_t), sizes(sites_s)
    common = [name for name in sizes_t if not site_of(name).is_norm and sizes_t[name] == sizes_s.get(name)]
    return list(dict.fromkeys([*common[:1], *common[-1:]]))


@contextmanager
def weights_of(base: Pretrained) -> Iterator[Mapping[str, Any]]:
    """Give what of a model's weights can be sliced, by name; empty where they are not on this machine."""
    if base.loaded is not None:
        yield bare_parameters(base.loaded)
        return
    if base.gguf_file:
        yield {}
        return
    directory = Path(base.name)
    if not directory.is_dir():
        try:
            directory = Path(snapshot_download(base.name, local_files_only=True))
        except LocalEntryNotFoundError:
            yield {}
            return
    with sliceable_tensors(directory) as tensors:
        yield tensors


def _layers(
    base: Pretrained, weights: Mapping[str, Any], sites: Mapping[Place, SiteShape], names: Sequence[str]
) -> Tensor | None:
    """Read some of the weights of every layer, (L, N); None where they cannot be compared.

    Raises:
        ModelError: some layers have them and others do not, or they are no numbers.
    """
    columns = []
    for name in names:
        shapes = [sites[layer, name] for layer in range(depth(sites))]
        column = [_slice(weights, f"{shape.path}.weight", shape.in_width) for shape in shapes]
        absent = [shape.path for shape, values in zip(shapes, column, strict=True) if values is None]
        if 0 < len(absent) < len(shapes):
            raise ModelError(
                f"{base.name} lacks {absent[0]}.weight, which other layers of it have; use a whole checkpoint"
            )
        columns.append([values for values in column if values is not None])
    if not columns or not all(columns) or any(len({len(values) for values in column}) > 1 for column in columns):
        return None
    rows = [torch.cat(row) for row in zip(*columns, strict=True)]
    layers = torch.stack(rows)
    if not layers.isfinite().all():
        raise ModelError(f"{base.name} has NaN or infinity in its layers, expected numbers; use another checkpoint")
    return layers


def _slice(weights: Mapping[str, Any], path: str, width: int) -> Tensor | None:
    """Read the first rows of a weight, flat."""
    weight = find_weight(weights, path)
    if weight is None:
        return None
    values = weight[: max(1, VALUES // width)]
    return values.detach().cpu().float().flatten() if values.is_floating_point() else None


def _table(skeleton: Any) -> tuple[str, int]:
    """Find the token embeddings: their path, and how many; none of a model that embeds something else."""
    tables = [(path, len(module.weight)) for path, module in skeleton.named_modules() if isinstance(module, Embedding)]
    return max(tables, key=lambda table: table[1], default=("", 0))


def _embeddings(weights: Mapping[str, Any], path: str, count: int) -> Tensor | None:
    """Read the embeddings of some of the first `count` tokens, (n, d)."""
    weight = find_weight(weights, f"{path}.weight") if count else None
    if weight is None:
        return None
    size = max(1, min(count, VALUES // weight[:1].shape[-1]) // STRETCHES)
    parts = [weight[start : start + size] for start in range(0, count - size + 1, max(1, count // STRETCHES))]
    return torch.cat([part.detach().cpu() for part in parts]).float() if parts[0].is_floating_point() else None


def find_weight(weights: Mapping[str, Any], path: str) -> Any:
    """Find a weight of the bare model in a checkpoint that may be of one with a head, whose names are longer."""
    name = path if path in weights else next((name for name in weights if name.endswith(f".{path}")), None)
    return None if name is None else weights[name]
