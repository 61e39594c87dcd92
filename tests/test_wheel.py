"""What is built and installed: the wheel holds all that the package needs, and works away from its sources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TEACHER, STUDENT = (f"package:regraft/demo/models/{name}" for name in ("teacher", "student"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without a network, and unpack it: what installing a wheel of pure Python does."""
    pytest.importorskip("hatchling", reason="pip install 'regraft[dev]'")
    built, unpacked = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("unpacked")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    ZipFile(wheel).extractall(unpacked)
    return unpacked


def test_the_wheel_holds_the_package_and_nothing_else(unpacked: Path) -> None:
    def files(package: Path) -> set[str]:
        return {str(path.relative_to(package)) for path in package.rglob("*.*") if "__pycache__" not in path.parts}

    held = files(unpacked / "regraft")
    assert held == files(ROOT / "src" / "regraft")
    assert {"py.typed", "models/families/bert.yaml", "modules/templates/module.md"} <= held
    assert "demo/models/student/model.safetensors" in held
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"regraft"}
    (entries,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "\nregraft = regraft.__main__:main" in entries.read_text()
    assert "\nhf-regraft = regraft.__main__:main" in entries.read_text()  # what the hub's `hf regraft` runs


@pytest.mark.slow
def test_a_port_is_planned_from_the_wheel(unpacked: Path, make_module: Callable[..., str], tmp_path: Path) -> None:
    from regraft.files.hub import unpacked as path_of

    module = make_module(path_of(TEACHER))
    where = {**os.environ, "PYTHONPATH": str(unpacked)}
    place = [sys.executable, "-c", "import regraft; print(regraft.__file__)"]
    assert subprocess.run(place, env=where, cwd=tmp_path, capture_output=True, text=True).stdout.startswith(
        str(unpacked)
    )
    plan = [sys.executable, "-m", "regraft", "plan", module, "--teacher", TEACHER, "--student", STUDENT]
    done = subprocess.run(plan, env=where, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "copied" in done.stdout


def test_the_lock_pins_what_the_constraints_pin() -> None:
    locked: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        locked.setdefault(package["name"], set()).add(package["version"])
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pins) > 100
    differ = {name: version for name, version in pins if locked.get(canonicalize_name(name)) != {version}}
    assert not differ, "renew it: make lock"
