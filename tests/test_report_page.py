"""The page of a report: it needs nothing else, holds every number, and fits every screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fake_results import make_results

from regraft.report.contents import contents
from regraft.report.page import to_html
from regraft.report.render import minus
from regraft.report.results import Models, Point, Result
from regraft.report.tables.reference import load_reference

PAPER = load_reference("paper")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Checks that tags nest, and collects what the page holds."""

    VOID = frozenset({"meta", "circle", "path", "rect"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[str] = []
        self.headings: list[int] = []
        self.feed(page)
        self.close()
        assert not self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag in ("td", "th"):
            self.cells.append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data.strip()


@pytest.fixture(scope="module")
def page() -> str:
    return to_html(contents(make_results(), "A run", "paper"))


def test_names_of_settings_keep_their_case() -> None:
    named = to_html(contents([replace(r, setting="mBERT-DistilBERT") for r in make_results()[:60]], ""))
    assert "Mbert" not in named
    headings = ("<h2>mBERT-DistilBERT setting</h2>", "<h3>mBERT-DistilBERT setting: ", ">mBERT-DistilBERT setting</a>")
    assert all(heading in named for heading in headings)


def test_names_of_settings_begin_with_a_capital(page: str) -> None:
    assert "<h2>Matching setting</h2>" in page


def test_the_page_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", page)
    assert {value for _, name, value in parsed.attributes if name in ("src", "href")} <= {
        f"#{id_}" for id_ in parsed.ids
    }
    pointed = {id_ for _, name, value in parsed.attributes if name == "aria-labelledby" for id_ in value.split()}
    assert pointed <= set(parsed.ids)


def test_the_page_is_well_formed_and_its_headings_step_down(page: str) -> None:
    levels = Page(page).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    charts = [svg for svg in drawings if svg.get("role") == "img"]
    assert len(charts) == 17  # all starts at once; gains and curves of 2 settings, 2 tasks, 2 kinds
    for svg in charts:
        assert svg.findtext("title")
        assert "." in (svg.findtext("desc") or "")
    numbers = re.findall(r'(?:x|y|cx|d|transform|viewBox)="([^"]*)"', page)
    assert not any("nan" in number or "inf" in number for number in numbers)


def test_the_page_has_every_cell_of_every_table(page: str) -> None:
    shown = Page(page).cells
    tables = contents(make_results(), "A run", "paper").tables
    names = {table.name.split("-")[0] for table in tables}
    assert names == {"wins", "averages", "gains", "training", "alignment", "languages", "reference"}
    wanted = [minus(cell.text) for table in tables for row in table.rows for cell in row[table.labels :]]
    wanted += [row[table.labels - 1].text for table in tables if table.sections[0][0] for row in table.rows]
    for text in set(wanted):
        assert shown.count(text) >= wanted.count(text)


def test_curves_end_at_the_mean_of_their_trainings(page: str) -> None:
    matching = [
        r for r in make_results() if (r.setting, r.task, r.peft, r.row) == ("matching", "ner", "lora", "tm-skip")
    ]
    mean = sum(result.curve[-1].score for result in matching) / len(matching)
    assert f"tm-skip {mean:.2f}" in page


def test_the_title_says_what_was_compared() -> None:
    one = [
        result for result in make_results() if (result.setting, result.task, result.peft) == ("matching", "ner", "lora")
    ]
    heading = "A run: tm-avg and tm-skip against a random start: NER, LoRA"
    shown = to_html(contents(one, "A run"))
    assert f"<h1>{heading}</h1>" in shown
    assert f"<title>{heading}</title>" in shown
    assert "<h1>teacher and student: NER, LoRA</h1>" in to_html(contents([r for r in one if "tm" not in r.row], ""))


def test_the_title_names_the_models() -> None:
    one = [r for r in make_results() if (r.task, r.peft, r.language, r.seed) == ("ner", "lora", "de", 0)]
    rest = "4 starts against a random start: NER, LoRA"

    def title(settings: Mapping[str, Models], results: Sequence[Result] = one) -> str:
        page = to_html(contents([replace(r, models=settings.get(r.setting)) for r in results], "A run"))
        (heading,) = re.findall("<h1>(.*)</h1>", page)
        assert f"<title>{heading}</title>" in page
        return html.unescape(heading)

    first, second = Models("mBERT", "DistilmBERT"), Models("XLM-R <large>", "XLM-R")
    assert title({}) == f"A run: {rest}"
    assert title({"matching": first}) == f"A run: from mBERT to DistilmBERT; {rest}"
    assert title({"matching": first, "incompatible": first}) == f"A run: from mBERT to DistilmBERT; {rest}"
    both = "from mBERT to DistilmBERT and from XLM-R <large> to XLM-R"
    assert title({"matching": first, "incompatible": second}) == f"A run: {both}; {rest}"
    many = [replace(r, setting=f"{r.setting}-{n}") for n in range(3) for r in one if r.row == "student"]
    pairs = {r.setting: Models(r.setting, "small") for r in many}
    assert title(pairs, many) == (
        "A run: from incompatible-0 to small, from incompatible-1 to small and 4 more pairs; student: NER, LoRA"
    )


def test_words_are_explained(page: str) -> None:
    said = dict(re.findall(r"<dt>(?:<svg.*?</svg> )?(.*?)</dt><dd>(.*?)</dd>", page, re.S))
    assert said.keys() == {"module", "teacher", "student", "gain", "tm-avg", "tm-skip", "tm-skip+copy", "tm-skip+lsa"}
    assert "the mean of each group of layers" in said["tm-avg"]
    assert "linear sum assignment" in said["tm-skip+lsa"]
    others = to_html(contents([replace(r, row="mine") if r.row == "tm-avg" else r for r in make_results()], ""))
    assert "<dt>mine</dt>" not in others  # nobody knows what it is


def test_panels_of_one_task_share_their_scales() -> None:
    """Kinds whose scores are 40 points apart are drawn with the same ticks."""
    own = [result for result in make_results() if (result.setting, result.task) == ("matching", "ner")]
    lower = [
        replace(r, curve=tuple(Point(p.step, p.score - 40) for p in r.curve), score=r.score - 40)
        if r.peft == "lora"
        else r
        for r in own
    ]
    (setting,) = contents(lower, "").settings
    for panels in (setting.curves, setting.gains):
        first, second = panels
        assert first.x == second.x
    first, second = setting.curves
    assert first.y == second.y
    ends = [max(y for line in panel.lines for _, y in line.points) for panel in setting.curves]
    assert max(ends) - min(ends) > 50


def test_intervals_are_drawn_where_they_are_known() -> None:
    few = [result for result in make_results() if (result.language, result.seed) in (("de", 0), ("de", 1))]
    many = [result for result in make_results() if result.language == "de"]
    for results, known in ((few, False), (many, True)):
        of_one = contents([r for r in results if (r.setting, r.task, r.peft) == ("matching", "ner", "lora")], "")
        (panel,) = of_one.overview
        (gains,) = of_one.settings[0].gains
        assert all((row.between is not None) == known for row in panel.rows)
        assert all((dot.between is not None) == known and len(dot.seeds) == 2 + known for dot in gains.dots)
        for row in panel.rows if known else ():
            assert row.between is not None
            assert panel.frame.left <= row.between[0] <= row.x <= row.between[1] <= panel.frame.right


def test_lines_that_are_the_same_are_told_apart(page: str) -> None:
    """Each start has its own dashes, and marks that take turns along the line."""
    dashes = dict(re.findall(r"\.line\.(c\d) { stroke-dasharray: ([\d ]+); }", page))
    assert len(dashes) == len(set(dashes.values())) == 6
    (first, *_) = re.findall(r'<svg[^>]*labelledby="curves-.*?</svg>', page, re.S)
    places = [set(marks) for marks in _marks(first).values()]
    assert all(len(marks) > 1 for marks in places)
    assert not set.intersection(*places) - {max(map(max, places))}  # but for the last, where all end


def _marks(drawing: str) -> dict[str, list[float]]:
    marks: dict[str, list[float]] = {}
    for row, x in re.findall(r'class="mark (c\d|base)" transform="translate\(([\d.]+) ', drawing):
        marks.setdefault(row, []).append(float(x))
    return marks


# Frames as wide as screens, since a window of Chromium has a least width; what they measure goes into the title.
HARNESS = """<!doctype html><title>waiting</title>
<iframe src="report.html" style="width: 400px; height: 800px; border: 0"></iframe>
<iframe src="report.html" style="width: 1280px; height: 800px; border: 0"></iframe>
<script>
addEventListener("load", () => {
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
    const {contentDocument: page, contentWindow: view} = frame;
    const box = element => element.getBoundingClientRect();
    const picture = box(page.querySelector("svg[role=img]"));
    const letters = [...page.querySelectorAll("svg[role=img]")].map(svg =>
      Math.min(...[...svg.querySelectorAll("text")].map(text => parseFloat(view.getComputedStyle(text).fontSize)))
      * box(svg).width / svg.viewBox.baseVal.width);
    const scroll = [...page.querySelectorAll(".scroll")].find(one => one.scrollWidth > one.clientWidth + 50);
    if (scroll) scroll.scrollLeft = 50;
    const row = scroll && scroll.querySelector("tbody tr:last-child");
    return {
      width: page.documentElement.scrollWidth,
      colour: view.getComputedStyle(page.body).backgroundColor,
      said: box(page.querySelector("#findings h3, main > header")).bottom,
      picture: [picture.top, picture.bottom],
      reach: box(page.querySelector("#findings .lead, main .tables")).width,
      letters: Math.min(...letters),
      stuck: scroll ? box(row.querySelector(".label")).left - box(scroll).left : 0,
      moved: scroll ? box(row.querySelector("td")).left - box(row.querySelector(".label")).right : 0,
      scrolls: scroll != null,
    };
  }));
});
</script>
"""


def chromium(tmp_path: Path, *options: str, scheme: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={scheme}", *options,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


def looked_at(page: str, tmp_path: Path, scheme: int = 1) -> list[dict[str, Any]]:
    """Measure a page on a phone and on a desktop."""
    (tmp_path / "report.html").write_text(page)
    (tmp_path / "harness.html").write_text(HARNESS)
    done = chromium(tmp_path, "--dump-dom", (tmp_path / "harness.html").as_uri(), scheme=scheme)
    title = re.search("<title>(.*)</title>", done.stdout)
    assert title is not None
    assert "CONSOLE" not in done.stderr
    measures: list[dict[str, Any]] = json.loads(html.unescape(title[1]))
    return measures


def with_the_paper() -> str:
    fake = [replace(result, setting=f"fake {result.setting}") for result in make_results()]
    return to_html(contents([*PAPER.results, *fake], "A run", "paper"))


NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")


def check_screens(measures: list[dict[str, Any]], background: str) -> None:
    phone, desktop = measures
    assert (phone["width"], desktop["width"]) == (400, 1280)  # nothing wider than the page
    assert desktop["reach"] > 0.9 * 1280  # which is used as far as it goes
    for screen in measures:
        assert screen["colour"] == background
        assert screen["said"] < 600  # the finding
        assert screen["picture"][1] <= 800  # and the first picture, all of it, are on the first screen
        assert screen["letters"] >= 10
        assert abs(screen["stuck"]) < 1  # what a row is stays where it is
    assert phone["scrolls"]
    assert phone["moved"] < 0  # while its figures move below


@NEEDS_CHROMIUM
def test_the_page_fits_every_screen(page: str, tmp_path: Path) -> None:
    check_screens(looked_at(page, tmp_path), "rgb(255, 255, 255)")


@pytest.mark.slow
@NEEDS_CHROMIUM
@pytest.mark.parametrize(("scheme", "background"), [(1, "rgb(255, 255, 255)"), (0, "rgb(21, 23, 26)")])
def test_a_large_page_fits_every_screen(scheme: int, background: str, tmp_path: Path) -> None:
    check_screens(looked_at(with_the_paper(), tmp_path, scheme), background)


@pytest.mark.slow
@NEEDS_CHROMIUM
def test_paper_is_not_left_half_empty(tmp_path: Path) -> None:
    """All pages have one size, and no table begins a page of its own."""
    (tmp_path / "report.html").write_text(with_the_paper())
    pdf = tmp_path / "report.pdf"
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", (tmp_path / "report.html").as_uri())
    content = pdf.read_bytes()
    assert len(re.findall(rb"/Type /Page\b", content)) <= 18
    assert len({*re.findall(rb"/MediaBox \[[^]]*\]", content)}) == 1
