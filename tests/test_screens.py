"""What the page of a report looks like, on a desktop, a phone and at night: beside pictures that were looked at.

Chromium's versions draw letters differently, so what is compared is how dark patches of 80 x 80 pixels are; the kept
pictures have a pixel for each 16 x 16. With other fonts lines break elsewhere, and nothing is compared.
After a change that is meant: ``REGRAFT_SCREENS=write pytest -n 0 tests/test_screens.py``, and look at them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fake_results import make_results
from PIL import Image
from test_report_page import NEEDS_CHROMIUM, chromium

from regraft.report.contents import contents
from regraft.report.page import to_html

KEPT = Path(__file__).parent / "fixtures" / "screens"
PATCH, BLOCK, HEIGHT = 16, 5, 1600
# Of 255 shades. Serifs everywhere make 10, a picture or a table that is missing 28, no style 41.
MOST = 18
FONT = "DejaVu Sans"
SCREENS = {"desktop": (1280, 1), "phone": (400, 1), "night": (1280, 0)}


def patches(page: str, width: int, scheme: int, tmp_path: Path) -> np.ndarray:
    """Give the shades of the top of a page, in a frame, as windows of Chromium have a least width."""
    (tmp_path / "report.html").write_text(page)
    style = f"width: {width}px; height: {HEIGHT}px; border: 0; display: block"
    frame = f'<style>body {{ margin: 0 }}</style><iframe src="report.html" style="{style}"></iframe>'
    (tmp_path / "screen.html").write_text(f"<!doctype html>{frame}")
    shot = tmp_path / "shot.png"
    size = f"--window-size={max(width, 800)},{HEIGHT}"
    chromium(tmp_path, size, f"--screenshot={shot}", (tmp_path / "screen.html").as_uri(), scheme=scheme)
    with Image.open(shot) as image:
        return means(np.asarray(image.convert("L"), dtype=np.float32)[:HEIGHT, :width], PATCH)


def means(shades: np.ndarray, side: int) -> np.ndarray:
    """Give the mean of each square."""
    high, wide = (size // side for size in shades.shape)
    return shades.reshape(high, side, wide, side).mean((1, 3))


def difference(found: np.ndarray, kept: np.ndarray) -> float:
    """Give the largest difference of a block of patches."""
    return float(np.abs(means(found, BLOCK) - means(kept, BLOCK)).max())


def sans_serif() -> str:
    """Name the font that stands for sans-serif on this machine."""
    match = shutil.which("fc-match")
    said = subprocess.run([match, "-f", "%{family}", "sans-serif"], capture_output=True, text=True) if match else None
    return said.stdout if said else "unknown"


@pytest.mark.slow
@NEEDS_CHROMIUM
@pytest.mark.parametrize("name", SCREENS)
def test_the_page_looks_as_it_did(name: str, tmp_path: Path) -> None:
    if (font := sans_serif()) != FONT:
        pytest.skip(f"the pictures were taken with {FONT}, this machine has {font}")
    page = to_html(contents(make_results(), "A run", "paper"))
    kept = KEPT / f"{name}.png"
    found = patches(page, *SCREENS[name], tmp_path)
    if os.environ.get("REGRAFT_SCREENS") == "write":
        Image.fromarray(found.round().astype(np.uint8)).save(kept)
    with Image.open(kept) as image:
        expected = np.asarray(image, dtype=np.float32)
    assert difference(found, expected) <= MOST
    if name == "desktop":  # one would see it if a picture were missing
        without = re.sub(r"<svg[^>]*role=\"img\".*?</svg>", "", page, count=1, flags=re.S)
        assert difference(patches(without, *SCREENS[name], tmp_path), expected) > MOST
