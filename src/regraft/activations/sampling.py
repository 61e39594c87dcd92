"""Take the moments of every needed space from a pair of models."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import reduce
from operator import add, eq
from pathlib import Path

import torch

from ..alignment.moments import Moments, SplitMoments
from ..alignment.soundness import flaw
from ..errors import SamplingError, quoted
from ..files.directories import new_directory
from ..files.fingerprints import may_be_same
from ..files.reading import read_json, read_safetensors
from ..files.texts import Text
from ..files.writing import write_json, write_tensors
from ..models.pretrained import Pretrained
from ..models.sites import PER_TEXT, SpacePair
from ..schema import make
from .batches import Texts, in_order
from .manifest import Manifest
from .observation import Activations, observe
from .options import RunOptions, SampleOptions


def sample(
    teacher: Pretrained,
    student: Pretrained,
    pairs: Sequence[SpacePair],
    texts: Sequence[Text],
    options: SampleOptions | None = None,
    run: RunOptions | None = None,
    covariances: bool = True,
    folded: Collection[SpacePair] = (),
    title: str = "Sampling",
) -> Sample:
    """Run both models over `texts` and collect the moments of `pairs`.

    Args:
        teacher: the model that the module was trained on.
        student: the model that it goes to.
        pairs: pairs of spaces to observe.
        texts: at least two; sorted by length internally to save padding, which changes no result but the held-out
            split.
        options: which tokens go together, of how much of a text.
        run: where the models run; a loaded model stays where it is unless this says otherwise.
        covariances: whether to take the covariances within either model, which alignments by linear maps need:
            O((d_s + d_t)^2) memory per pair of spaces. `lsa` does without, in O(d_s d_t).
        folded: those of the pairs whose held-out moments are kept in folds too, for `FOLDS` times the memory of those.
        title: of the progress bar.

    Raises:
        SamplingError: texts, tokenizers or activations that do not serve, or too few tokens paired.
    """
    options, run = options or SampleOptions(), run or RunOptions()
    ordered = in_order(texts)
    sums = Sums(pairs, covariances, folded)
    counts = observe(teacher, student, pairs, ordered, sums.add, options, run, title)
    return Sample(source_of(teacher, student, options, ordered), sums.moments(), *counts, sums.held_out_texts)


class Sums:
    """The moments of some pairs of spaces, batch by batch.

    Attributes:
        held_out_texts: how many texts were held out so far.
    """

    def __init__(self, pairs: Collection[SpacePair], covariances: bool, folded: Collection[SpacePair]) -> None:
        """Begin with none; arguments as for `sample`."""
        self._pairs, self._covariances, self._folded = pairs, covariances, folded
        self._totals: dict[SpacePair, list[Moments]] = {}
        self._folds: dict[SpacePair, list[Moments]] = {}
        self.held_out_texts = 0

    def add(self, x_s: Activations, x_t: Activations, held_out: Texts | None) -> None:
        """Add a batch: activations of the student and the teacher, one row per pair, and its texts if held out."""
        first, self.held_out_texts = self.held_out_texts, self.held_out_texts + (held_out.count if held_out else 0)
        for pair in self._pairs:
            s, t = x_s.get((pair.student_layer, pair.name)), x_t.get((pair.teacher_layer, pair.name))
            if s is None or t is None:
                continue  # no pooler
            t = t.to(s.device)
            moments = Moments.of(s, t, self._covariances)
            if pair not in self._totals:
                # Of each its own: what gets no rows is written as it is, and no two may share their memory.
                size = s.shape[1], t.shape[1], moments.cross.device, self._covariances
                self._totals[pair] = [Moments.zeros(*size) for _ in range(2)]
                self._folds[pair] = [Moments.zeros(*size) for _ in range(FOLDS)] if pair in self._folded else []
            self._totals[pair][held_out is not None] += moments
            if held_out is not None and self._folds[pair]:
                text = torch.arange(held_out.count) if pair.name in PER_TEXT else held_out.of_pair
                fold = ((first + text) % FOLDS).to(s.device)
                for number in range(FOLDS):
                    here = fold == number
                    self._folds[pair][number] += Moments.of(s[here], t[here], self._covariances)

    def moments(self) -> dict[SpacePair, SplitMoments]:
        """Give the moments so far."""
        return {
            pair: SplitMoments(fit.to("cpu"), held_out.to("cpu"), tuple(fold.to("cpu") for fold in self._folds[pair]))
            for pair, (fit, held_out) in self._totals.items()
        }


def source_of(teacher: Pretrained, student: Pretrained, options: SampleOptions, ordered: Sequence[str]) -> Source:
    """Say what moments are taken from; `ordered` is what `in_order` gave."""
    return Source(
        teacher=teacher.name,
        student=student.name,
        teacher_config=teacher.config_hash,
        student_config=student.config_hash,
        teacher_weights=teacher.weights_id,
        student_weights=student.weights_id,
        pairing=options.pairing,
        texts=(hashlib.sha256("\n".join(ordered).encode()).hexdigest()[:16],),
    )


# Held-out texts are dealt out to so many: more are surer how sure they are, and take more memory.
FOLDS = 5
FORMAT = 2
_TENSORS = "moments.safetensors"
MANIFEST = "moments.json"
FILES = (_TENSORS, MANIFEST)
"""What a sample consists of; a directory that holds anything else is never replaced."""


@dataclass(frozen=True)
class Source:
    """What a sample was taken from; two samples add up where all but the texts agree.

    Attributes:
        teacher: name of the teacher.
        student: name of the student.
        teacher_config: hash of its architecture.
        student_config: likewise.
        teacher_weights: what tells its weights from others of the same shape, see `Pretrained.weights_id`.
        student_weights: likewise.
        pairing: how tokens were paired.
        texts: hash of the texts, one per shard.
    """

    teacher: str
    student: str
    teacher_config: str
    student_config: str
    teacher_weights: str
    student_weights: str
    pairing: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """The moments of a pair of models.

    Attributes:
        source: what they were taken from.
        moments: per pair of spaces.
        pairs: number of paired tokens (or spans).
        paired_tokens: student tokens that were paired ...
        student_tokens: ... of how many.
        held_out_texts: how many texts were held out; None where an older sample does not say.
    """

    source: Source
    moments: Mapping[SpacePair, SplitMoments]
    pairs: int
    paired_tokens: int
    student_tokens: int
    held_out_texts: int | None = None

    def __add__(self, other: Sample) -> Sample:
        mine, theirs = asdict(self.source), asdict(other.source)
        for field in mine.keys() - {"texts", "teacher", "student"}:
            same = may_be_same if field.endswith("_weights") else eq
            if not same(mine[field], theirs[field]):
                raise SamplingError(
                    f"the samples differ in {field} ({mine[field]} and {theirs[field]}); add up samples of one pair"
                )
        if set(mine["texts"]) & set(theirs["texts"]):
            raise SamplingError("the samples share a shard of texts; give each shard of texts once")
        if self.moments.keys() != other.moments.keys():
            raise SamplingError("the samples cover different spaces; take them with the same --sites and --layers")
        texts = (self.held_out_texts, other.held_out_texts)
        return Sample(
            Source(**{**mine, "texts": (*self.source.texts, *other.source.texts)}),
            {pair: moments + other.moments[pair] for pair, moments in self.moments.items()},
            self.pairs + other.pairs,
            self.paired_tokens + other.paired_tokens,
            self.student_tokens + other.student_tokens,
            None if None in texts else sum(filter(None, texts)),
        )

    def describe(self) -> str:
        """Say in one line how much was paired."""
        share = self.paired_tokens / max(self.student_tokens, 1)
        return (
            f"{self.pairs:,} token pairs by {self.source.pairing}, "
            f"from {self.paired_tokens:,} of {self.student_tokens:,} student tokens ({share:.0%})"
        )


def save_sample(sample: Sample, path: str | os.PathLike[str], replace: bool = False) -> None:
    """Write a sample to a directory of its own: ``moments.safetensors`` and ``moments.json``.

    Raises:
        ModuleFileError: the directory exists and `replace` is False.
    """
    tensors, counts = {}, {}
    for pair, split in sample.moments.items():
        parts = {"fit": split.fit, "held_out": split.held_out}
        parts |= {f"fold{number}": fold for number, fold in enumerate(split.folds)}
        for part, moments in parts.items():
            counts[f"{pair}.{part}"] = moments.n
            for name in _STORED:
                tensors[f"{pair}.{part}.{name}"] = getattr(moments, name).contiguous()
    manifest = {
        "format": FORMAT,
        "source": asdict(sample.source),
        "pairs": sample.pairs,
        "paired_tokens": sample.paired_tokens,
        "student_tokens": sample.student_tokens,
        "held_out_texts": sample.held_out_texts,
        "spaces": [str(pair) for pair in sample.moments],
        "counts": counts,
    }
    with new_directory(path, replace, FILES) as directory:
        write_tensors(directory / _TENSORS, tensors)
        write_json(directory / MANIFEST, manifest)


_STORED = [field.name for field in fields(Moments) if field.name != "n"]


def load_sample(*paths: str | os.PathLike[str]) -> Sample:
    """Read one or more sample directories of the same pair of models and add them up.

    Raises:
        SamplingError: no directory, one that holds no sample, or samples that do not belong together.
    """
    if not paths:
        raise SamplingError("found an empty list of moments, expected directories that 'regraft sample' wrote")
    return reduce(add, (_load_one(Path(path)) for path in paths))


def _load_one(path: Path) -> Sample:
    if not (path / MANIFEST).is_file():
        raise SamplingError(f"{path} holds no {MANIFEST}, expected a directory that 'regraft sample' wrote")
    content = read_json(path / MANIFEST)
    told = content.get("format") if isinstance(content, dict) else None
    if told != FORMAT:
        raise SamplingError(f"{path} has moments of format {quoted(told)}, expected {FORMAT}; sample again")
    manifest = make(Manifest, content, _damaged(path))
    tensors, counts = read_safetensors(path / _TENSORS), manifest.counts

    def read(key: str) -> Moments:
        names = [f"{key}.{name}" for name in _STORED]
        absent = next((name for name in names if name not in tensors), None)
        if absent is not None or key not in counts:
            raise _damaged(path)(f"lacks {quoted(absent or key)}")
        moments = Moments(counts[key], *(tensors[name] for name in names))
        if problem := flaw(moments):
            raise _damaged(path)(f"{quoted(key)} {problem}")
        return moments

    moments = {}
    for pair in manifest.spaces:
        # Those of an older regraft have none.
        folds = [fold for number in range(FOLDS) if f"{pair}.{(fold := f'fold{number}')}" in counts]
        fit, held_out, *rest = (read(f"{pair}.{part}") for part in ("fit", "held_out", *folds))
        if any((part.cross.shape, part.full) != (fit.cross.shape, fit.full) for part in (held_out, *rest)):
            raise _damaged(path)(f"the parts of {quoted(pair)} are of several widths")
        moments[SpacePair.parse(pair)] = SplitMoments(fit, held_out, tuple(rest))
    numbers = {name: getattr(manifest, name) for name in ("pairs", "paired_tokens", "student_tokens", "held_out_texts")}
    return Sample(Source(**manifest.source.model_dump()), moments, **numbers)


def _damaged(path: Path) -> Callable[[str], SamplingError]:
    """Give what makes an error of a problem of a sample."""
    return lambda problem: SamplingError(
        f"the moments in {path} are not what 'regraft sample' writes: {problem}; sample again"
    )


def check_same_pair(sample: Sample, teacher: Pretrained, student: Pretrained) -> None:
    """Refuse moments of another pair of models.

    Raises:
        SamplingError: of another architecture, or of other weights.
    """
    source = sample.source
    for who, name, config_hash, weights, base in (
        ("teacher", source.teacher, source.teacher_config, source.teacher_weights, teacher),
        ("student", source.student, source.student_config, source.student_weights, student),
    ):
        if config_hash != base.config_hash or not may_be_same(weights, base.weights_id):
            what = "weights differ" if config_hash == base.config_hash else "architecture differs"
            raise SamplingError(
                f"the moments were sampled with {who} {name}, whose {what} from those of {base.name}; sample this pair"
            )
