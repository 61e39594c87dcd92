"""Nothing of a model's directory ever runs, whatever stands in its files and on standard input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.errors import ModelError
from regraft.models.pretrained import resolve


def hostile(model: str, directory: Path, file: str, changes: dict[str, object]) -> Path:
    """Copy a model, and have one of its files name Python code that leaves a trace when it runs."""
    shutil.copytree(model, directory)
    content = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps({**content, **changes}))
    trace = f"open({str(directory / 'ran')!r}, 'w').close()\n"
    (directory / "own.py").write_text(
        trace + "from transformers import BertConfig as Own\nOwnModel = OwnTokenizer = Own\n"
    )
    return directory


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel"}}),
        ("config.json", {"auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel"}}),
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "OwnTokenizer",
                "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]},
            },
        ),
    ],
    ids=["an unknown type", "a known type", "the tokenizer"],
)
def test_code_of_a_model_never_runs(
    make_model: Callable[..., str], tmp_path: Path, file: str, changes: dict[str, object]
) -> None:
    directory = hostile(make_model(layers=2), tmp_path / "model", file, changes)
    code = (
        "from regraft.models.pretrained import resolve\n"
        f"base = resolve({str(directory)!r})\nbase.skeleton()\nbase.tokenizer()\n"
        "with base.running(None, 'cpu'):\n    print('loaded')"
    )
    ended = subprocess.run([sys.executable, "-c", code], input="y\n" * 9, capture_output=True, text=True, timeout=120)
    assert not (directory / "ran").exists()
    assert "Do you wish to run" not in ended.stdout + ended.stderr
    assert ended.returncode == 0 or "ModelError" in ended.stderr


def test_a_model_that_needs_its_own_code_is_refused_in_a_sentence(
    make_model: Callable[..., str], tmp_path: Path
) -> None:
    changes = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    directory = hostile(make_model(layers=2), tmp_path / "model", "config.json", changes)
    with pytest.raises(ModelError, match=r"needs Python code of its own \(auto_map\), which regraft never runs"):
        resolve(str(directory))
