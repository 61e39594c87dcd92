"""One rule says what a name stands for: something here, something in an installed package, or an id of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

import regraft
from regraft.errors import TaskError
from regraft.files.hub import HubId, locate

PACKAGE = Path(regraft.__file__).parent


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("org/name", HubId("org/name", None)),
        ("org/name:config", HubId("org/name", "config")),
        (Path("org/name"), Path("org/name")),
        ("org/texts.txt", Path("org/texts.txt")),
        ("org/rows.jsonl", Path("org/rows.jsonl")),
        ("nowhere", Path("nowhere")),
        ("./name", Path("name")),
        ("here/model", Path("here/model")),
        ("~/model", Path.home() / "model"),
        ("package:regraft/demo/models/teacher", PACKAGE / "demo" / "models" / "teacher"),
    ],
)
def test_what_a_name_stands_for(
    name: str | Path, place: Path | HubId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate(name) == place


def test_what_moved_inside_the_package_is_refused() -> None:
    with pytest.raises(TaskError, match="is now at package:regraft/demo/models/teacher; mend the name"):
        locate("package:regraft/micro/models/teacher")
