"""Plain texts to compare two models on."""

from __future__ import annotations

from pathlib import Path

from .errors import SamplingError
from .tasks.conllu import read_sentences


def read_texts(path: Path) -> list[str]:
    """Read one text per line, or one per sentence from a ``.conllu`` file.

    Raises:
        SamplingError: the file cannot be read or holds no text.
        TaskError: a ``.conllu`` file with a malformed line.
    """
    if path.suffix == ".conllu":
        texts = [" ".join(words) for _, words, _ in read_sentences(path)]
    else:
        try:
            texts = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise SamplingError(f"cannot read texts from {path}, expected UTF-8, one text per line: {error}") from error
    if not texts:
        raise SamplingError(f"{path} holds no text, expected one per line, some hundred lines")
    return texts
