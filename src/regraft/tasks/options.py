"""Which labelled rows."""

from __future__ import annotations

from ..schema import Options


class TaskOptions(Options):
    """A task and its data."""

    task: str = "ner"
    """ner, pi, nli or classification."""
    data: str | None = None
    """Folder or hub data set with labelled rows."""
    lang: str = "en"
    """Language of the data."""
