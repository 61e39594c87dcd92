"""The picture of a port: who gets what, in the card of a ported module and on the page of a plan."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import load_peft, make_texts

import regraft
from regraft.modules.picture import port_picture
from regraft.modules.to_lora import convert_to_lora

SVG = "{http://www.w3.org/2000/svg}"


def account(teacher: int = 4, student: int = 2, **others: Any) -> dict[str, Any]:
    """A port of every second layer, of queries and values: A is mapped, B copied, the head drawn anew."""
    tensors = {
        f"{layer}.{site}.{name}": {"action": action, "layer": layer, "site": site}
        for layer in range(student)
        for site in ("query", "value")
        for name, action in (("A", "mapped"), ("B", "copied"))
    }
    return {
        "teacher": "T",
        "student": "S",
        "teacher_layers": {"": teacher},
        "groups": {"": [[{"layer": layer * teacher // student, "weight": 1.0}] for layer in range(student)]},
        "tensors": {**tensors, "head": {"action": "fresh", "layer": None, "site": "head"}},
        **others,
    }


def drawn(port: dict[str, Any]) -> ElementTree.Element:
    picture = port_picture(port)
    assert picture is not None
    return ElementTree.fromstring(picture)


def words(svg: ElementTree.Element, kind: str) -> list[str]:
    return [text.text or "" for group in svg.iter(f"{SVG}g") if group.get("class") == kind for text in group]


def test_boxes_say_what_happens_and_lines_from_where() -> None:
    svg = drawn(account())
    assert words(svg, "d") == ["mapped"] * 4 + ["fresh"]  # what is done most to a place stands for it
    paths = {path.get("class"): path.get("d", "") for path in svg.iter(f"{SVG}path")}
    assert paths["l"].count("C") == 2  # two layers of the teacher go to the student
    assert (paths["b"].count("M"), paths["n"].count("M")) == (2, 2)  # and two do not
    said = [text.text for text in svg.iter(f"{SVG}text")]
    assert "words: what happens to tensors (mapped, fresh)" in said
    assert not any("R2" in (text or "") for text in said)


def test_what_is_known_to_be_kept_is_the_figure_and_the_colour() -> None:
    kept = [{"layer": layer, "site": "query", "r2": r2} for layer, r2 in ((0, 1.0), (0, 0.8), (1, -0.3))]
    unknown = [{"layer": 0, "site": "value", "r2": None}]
    svg = drawn(account(fidelity=[*kept, *unknown]))
    assert words(svg, "w") == ["0.90", "1"]  # a place, and the legend
    assert words(svg, "d") == ["mapped", "\N{MINUS SIGN}0.30", "mapped", "fresh", "0", "0.25", "0.5", "0.75"]
    fills = [path.get("fill", "") for path in svg.iter(f"{SVG}path")]
    assert {"#f7dec4", "#d6e5f0", "#2f7fbf"} <= {*fills}  # nothing, half and all of it


def test_layers_that_are_averaged_are_all_joined_and_silent_ones_say_so() -> None:
    port = account()
    port["groups"][""] = [[{"layer": 0, "weight": 0.5}, {"layer": 1, "weight": 0.5}], [{"layer": 2, "weight": 1.0}]]
    port["tensors"] = {key: made for key, made in port["tensors"].items() if made["layer"] != 1}
    svg = drawn(port)
    paths = {path.get("class"): path.get("d", "") for path in svg.iter(f"{SVG}path")}
    assert paths["l"].count("C") == 2
    assert "gets nothing" in [text.text for text in svg.iter(f"{SVG}text")]


def test_stacks_stand_below_each_other() -> None:
    port = account()
    port["tensors"]["x"] = {"action": "averaged", "layer": 0, "site": "decoder.key"}
    port["groups"]["decoder"], port["teacher_layers"]["decoder"] = [[{"layer": 0, "weight": 1.0}]], 3
    said = [text.text for text in drawn(port).iter(f"{SVG}text")]
    assert {"decoder", "key", "averaged"} <= {*said}


def test_names_are_escaped_and_cut_and_nothing_runs() -> None:
    picture = port_picture(account() | {"teacher": "<script>x</script>\x00&", "student": "/home/" + "x" * 300})
    assert picture is not None
    assert "<script" not in picture
    assert "\x00" not in picture
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|url\(|href|\bon\w+=", picture)
    said = [text.text or "" for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    assert max(map(len, said)) < 80
    assert any(text.startswith("to \N{HORIZONTAL ELLIPSIS}xxx") for text in said)


def test_a_large_port_is_a_small_file() -> None:
    port = account(80, 80)
    sites = ("key", "output", "gate", "up", "down")
    port["tensors"] |= {f"{i}{s}": {"action": "mapped", "layer": i, "site": s} for i in range(80) for s in sites}
    picture = port_picture(port)
    assert picture is not None
    assert len(picture) < 64_000


@pytest.mark.parametrize(
    "port",
    [
        {},
        {"tensors": {}},
        account(teacher_layers={}),
        account(teacher_layers={"": 10**12}),
        account(teacher_layers={"": float("inf")}),
        account(tensors={"x": {"action": "copied"}}),  # by an old version
        account(tensors={"x": {"action": "odd", "layer": 0, "site": "query"}}),
        account(groups={"": [[{"layer": 99}], []]}),
        account(groups=3),
    ],
)
def test_an_account_that_is_not_ours_has_no_picture(port: dict[str, Any]) -> None:
    assert port_picture(port) is None


@pytest.fixture(scope="module")
def ported(make_model: Callable[..., str], make_module: Callable[..., str]) -> regraft.Module:
    module = regraft.load(make_module(make_model(layers=4), "lora", labels=3))
    return regraft.transfer(module, make_model("distilbert", width=48, layers=2), texts=make_texts(60), align="ridge")


def test_the_card_of_a_port_shows_it(ported: regraft.Module, tmp_path: Path, make_model: Callable[..., str]) -> None:
    ported.save(tmp_path / "out")
    (link,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (tmp_path / "out" / "README.md").read_text())
    svg = ElementTree.fromstring((tmp_path / "out" / link).read_text())
    # As many figures as places that the account scores.
    figures = [word for word in (*words(svg, "d"), *words(svg, "w")) if re.fullmatch(r"\N{MINUS SIGN}?\d\.\d\d", word)]
    places = {(one["layer"], one["site"]) for one in ported.report["fidelity"] if one["r2"] is not None}
    assert len(places) == 5  # two layers of two sites, and the head
    assert len(figures) == len(places) + 2  # 0.25 and 0.75 are the legend's
    ported.save(tmp_path / "out", replace=True)  # it is ours
    model = load_peft(make_model("distilbert", width=48, layers=2), tmp_path / "out", 3)
    assert model.peft_config
    again = regraft.load(tmp_path / "out")
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "port.svg").read_bytes() == (tmp_path / "out" / "port.svg").read_bytes()


def test_a_module_that_was_not_ported_has_none(ported: regraft.Module, tmp_path: Path) -> None:
    replace(ported, provenance={}).save(tmp_path / "out")
    assert not (tmp_path / "out" / "port.svg").exists()
    assert "port.svg" not in (tmp_path / "out" / "README.md").read_text()


def test_other_forms_of_a_port_show_it_too(ported: regraft.Module, tmp_path: Path) -> None:
    convert_to_lora(ported, 2).save(tmp_path / "lora")
    ported.save_adapterhub(tmp_path / "hub")
    for name in ("lora", "hub"):
        assert "(port.svg)" in (tmp_path / name / "README.md").read_text()
        assert (tmp_path / name / "port.svg").is_file()


def page_of(path: Path) -> str:
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|url\(|@import|<script|<link|<img", page)
    return page


def test_plan_writes_a_page(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    module, student = make_module(make_model(layers=4), "lora", labels=3), make_model(layers=2)
    page, texts = tmp_path / "deep" / "plan.html", tmp_path / "texts.txt"
    texts.write_text("\n".join(make_texts(60)))
    here = ("plan", module, "--student", student, "--html", page)
    code, out, error = run(*here, "--align", "none")
    assert code == 0, error
    assert f"Wrote {page}" in out.replace("\n", "")
    planned = page_of(page)
    assert planned.count(">copied</text>") == 5  # two layers of two sites, and the head
    assert "R2" not in planned
    assert re.search(r"<li>8 of the teacher's tensors: the student&#39;s layers take over other layers</li>", planned)
    assert run(*here, "--texts", texts, "--quiet")[0] == 0  # replaces its own
    assert "R2 on held-out texts" in page_of(page)


def test_the_page_of_a_refused_plan_says_why(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    module, student = make_module(make_model(layers=4), "lora"), make_model("distilbert", width=48, layers=2)
    code, _, error = run("plan", module, "--student", student, "--align", "none", "--html", tmp_path / "plan.html")
    assert code == 2
    page = page_of(tmp_path / "plan.html")
    assert "This port is refused" in page
    assert "query is 32 wide in" in error.replace("\n", " ")
    assert "query is 32 wide in" in page
    assert ">refused</text>" in page


@pytest.mark.parametrize(("there", "said"), [("mine", "regraft did not write it"), (None, "is a directory")])
def test_a_file_of_somebody_else_is_not_replaced(
    there: str | None, said: str, run: Callable, make_model: Callable[..., str], make_module: Callable[..., str],
    tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / "page.html"
    path.mkdir() if there is None else path.write_text(there)
    code, _, error = run("plan", make_module(make_model(layers=4), "lora"), "--student", "nowhere", "--html", path)
    assert code == 2
    assert said in error.replace("\n", " ")
    assert there is None or path.read_text() == there
