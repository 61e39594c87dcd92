"""Named entity recognition on WikiNEuRal, from local files or the hub, scored by span F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from numpy.typing import NDArray
from seqeval.metrics import f1_score, precision_score, recall_score

from ..errors import TaskError
from .conllu import read_sentences

HUB_ID = "Babelscape/wikineural"
# The order of the hub's integer tags.
LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
SPLITS = ("train", "validation", "test")
_FILES = {"train": "train.conllu", "validation": "val.conllu", "test": "test.conllu"}
# Where there is no training file, this share of the validation file stays for validation (the last sentences).
_KEPT_FOR_VALIDATION = 0.1
IGNORED = -100


def load_splits(data: Path | None, language: str) -> dict[str, Dataset]:
    """Load the three splits, each with columns ``words`` (strings) and ``tags`` (indices into `LABELS`).

    Args:
        data: a folder with ``train.conllu`` (optional), ``val.conllu`` and ``test.conllu``, itself or in a subfolder
            named by the language; None for the hub. Without a training file the validation file is split: the last
            tenth stays validation, the rest is trained on.
        language: e.g. ``"en"``.

    Raises:
        TaskError: missing files, unreadable lines or unknown tags, with file and line.
    """
    if data is None:
        return _from_hub(language)
    folder = data / language if (data / language).is_dir() else data
    missing = [_FILES[split] for split in ("validation", "test") if not (folder / _FILES[split]).is_file()]
    if missing:
        raise TaskError(
            f"{folder} has no {' and no '.join(missing)}, expected files in WikiNEuRal's format there, "
            f"or in a subfolder named by the language ({language})"
        )
    splits = {split: _from_file(folder / name) for split, name in _FILES.items() if (folder / name).is_file()}
    if "train" not in splits:
        whole = splits["validation"]
        kept = max(1, round(len(whole) * _KEPT_FOR_VALIDATION))
        splits["train"] = whole.select(range(len(whole) - kept))
        splits["validation"] = whole.select(range(len(whole) - kept, len(whole)))
    return splits


def _from_file(path: Path) -> Dataset:
    index = {label: i for i, label in enumerate(LABELS)}
    words, tags = [], []
    for number, (sentence, names) in enumerate(read_sentences(path), start=1):
        unknown = [name for name in names if name not in index]
        if unknown:
            raise TaskError(f"{path}, sentence {number}: found tag {unknown[0]!r}, expected one of {', '.join(LABELS)}")
        words.append(sentence)
        tags.append([index[name] for name in names])
    if not words:
        raise TaskError(f"{path} holds no sentence")
    return Dataset.from_dict({"words": words, "tags": tags})


def _from_hub(language: str) -> dict[str, Dataset]:
    names = {"train": f"train_{language}", "validation": f"val_{language}", "test": f"test_{language}"}
    try:
        loaded = {split: load_dataset(HUB_ID, split=name) for split, name in names.items()}
    except Exception as error:  # the hub's client raises those of many libraries
        reason = str(error).strip().split("\n")[0]
        raise TaskError(
            f"cannot load {HUB_ID} ({language}) from the hub; pass local files with --data ({reason})"
        ) from error
    return {
        split: dataset.rename_columns({"tokens": "words", "ner_tags": "tags"}).select_columns(["words", "tags"])
        for split, dataset in loaded.items()
    }


def encode_split(dataset: Dataset, tokenizer: Any, max_length: int) -> Dataset:
    """Tokenize; the first piece of a word carries its tag, everything else is ignored.

    Args:
        dataset: with columns ``words`` and ``tags``.
        tokenizer: a fast tokenizer.
        max_length: tokens after which a sentence is cut.

    Raises:
        TaskError: the tokenizer cannot tell which piece belongs to which word.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TaskError(
            f"{type(tokenizer).__name__} cannot tell which piece belongs to which word; use a fast tokenizer"
        )

    def encode(batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        encoded = tokenizer(batch["words"], is_split_into_words=True, truncation=True, max_length=max_length)
        labels = []
        for row, tags in enumerate(batch["tags"]):
            words = encoded.word_ids(row)
            first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
            labels.append([tags[word] if new else IGNORED for word, new in zip(words, first, strict=True)])
        return {**encoded, "labels": labels}

    return dataset.map(encode, batched=True, remove_columns=dataset.column_names, desc="Tokenizing")


def score(predictions: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> dict[str, float]:
    """Score spans, as conlleval does.

    Args:
        predictions: (sentences, tokens, labels) logits.
        labels: (sentences, tokens) indices into `LABELS`, `IGNORED` where no word begins.

    Returns:
        Precision, recall and F1, micro-averaged over spans, in percent.
    """
    best = predictions.argmax(-1)
    kept = labels != IGNORED
    names = np.array(LABELS)
    found = [names[row[mask]].tolist() for row, mask in zip(best, kept, strict=True)]
    truth = [names[row[mask]].tolist() for row, mask in zip(labels, kept, strict=True)]
    metrics = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    return {name: 100 * float(metric(truth, found, zero_division=0)) for name, metric in metrics.items()}
