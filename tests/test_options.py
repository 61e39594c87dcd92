"""One declaration per option: what a record holds is on the command line, in files, in what a port says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from conftest import make_texts
from cyclopts import App
from pydantic import Field

import regraft
from regraft.cli.app import HOW, flat
from regraft.errors import PlanError, RegraftError, SamplingError
from regraft.experiment.spec import Overrides
from regraft.port import pipeline
from regraft.port.options import PortOptions, parse_start
from regraft.schema import Options, make
from regraft.tasks.options import DataOptions
from regraft.training.finetuning import train
from regraft.training.options import TrainOptions


class Bounded(Options):
    number: int = Field(default=1, ge=1)
    """A number."""


def test_a_record_refuses_in_one_sentence_and_names_the_nearest() -> None:
    for given, words in (
        ({"nubmer": 2}, "unknown key 'nubmer', expected one of number; did you mean 'number'?"),
        ({"number": 0}, "number is 0, expected 1 or more"),
        ({"number": "x"}, "number is 'x', expected a whole number"),
    ):
        with pytest.raises(PlanError, match=r".") as refused:
            make(Bounded, given, PlanError)
        assert words in str(refused.value)
    with pytest.raises(PlanError, match=r"^--number is 0"):
        make(Bounded, {"number": 0}, PlanError, called=lambda field: f"--{field}")


def test_what_was_said_lies_over_what_was_not() -> None:
    base = PortOptions(layers="avg", align="lsa")
    assert PortOptions(align="ridge").over(base) == PortOptions(layers="avg", align="ridge")
    assert PortOptions(layers="0, 2", seed=3).changed() == {"layers": [0, 2], "seed": 3}


def test_what_is_left_open_is_settled_in_one_place() -> None:
    none, moments, texts = (PortOptions().settled(evidence) for evidence in ("none", "moments", "texts"))
    assert (none.align, none.spaces, none.sequential) == ("none", "released", False)
    assert (moments.align, moments.spaces, moments.sequential) == ("auto", "measured", False)
    assert (texts.align, texts.spaces, texts.sequential) == ("auto", "measured", True)
    with pytest.raises(SamplingError, match="give --texts"):
        PortOptions(sequential=True).settled("moments")
    with pytest.raises(PlanError, match="scale auto runs both models"):
        PortOptions(align="lsa", scale="auto").settled("texts")
    with pytest.raises(PlanError, match=r"unknown alignment 'rigde'.*did you mean 'ridge'"):
        PortOptions(align="rigde").settled("texts")


def test_a_port_says_how_to_repeat_it(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher, student = make_model(layers=4), make_model(width=48, layers=2)
    module, texts = regraft.load(make_module(teacher, "lora", labels=3)), make_texts(80)
    ported = regraft.transfer(module, student, texts=texts, align="random", seed=4, layers=[1, 3], progress=False)
    ported.save(tmp_path / "ported")
    said = json.loads((tmp_path / "ported" / "regraft.json").read_text())["port"]["options"]
    again = regraft.transfer(module, student, texts=texts, options=PortOptions.model_validate(said), progress=False)
    assert again.hash() == ported.hash() != regraft.transfer(module, student, layers=[1, 3], align="random").hash()


def test_a_field_of_the_record_is_an_option_everywhere(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class More(PortOptions):
        strength: int = Field(default=3, ge=1)
        """How strong it is."""

    app = App()

    def command(options=More()) -> None:  # type: ignore[no-untyped-def]  # noqa: B008
        print(options.strength)

    command.__annotations__["options"] = Annotated[More, flat(HOW)]
    app.default(command)
    for line in (["--help"], ["--strength", "5"]):
        with pytest.raises(SystemExit):
            app(line)
    said = capsys.readouterr().out
    assert "--strength" in said
    assert "How strong it is." in said
    assert said.endswith("5\n")
    monkeypatch.setattr(pipeline, "PortOptions", More)
    teacher, student = make_model(layers=2), make_model(layers=1)
    module = regraft.load(make_module(teacher, "lora"))
    report = regraft.transfer(module, student, options=More(strength=4)).report
    assert report["options"]["strength"] == 4
    assert regraft.transfer(module, student, strength=5).report["options"]["strength"] == 5


def test_a_field_of_how_to_train_is_an_option_a_key_of_the_file_and_written_down(
    ner_folder: Path, make_model: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class More(TrainOptions):
        strength: int = Field(default=3, ge=1)
        """How strong it is."""

    app = App()

    def command(options=More()) -> None:  # type: ignore[no-untyped-def]  # noqa: B008
        print(options.over(More(epochs=9, strength=9)).model_dump(include={"epochs", "strength"}))

    command.__annotations__["options"] = Annotated[More, flat(HOW)]
    app.default(command)
    for line in (["--help"], ["--strength", "5"]):
        with pytest.raises(SystemExit):
            app(line)
    said = capsys.readouterr().out
    assert "--strength" in said
    assert "How strong it is." in said
    assert said.endswith("{'epochs': 9.0, 'strength': 5}\n")

    class Part(Overrides, More):
        seed: ClassVar[None]  # type: ignore[misc, assignment]

    assert "seed" not in Part.model_fields
    assert Part.model_fields["strength"].description == "How strong it is."
    assert make(Part, {"strength": 2}).strength == 2
    with pytest.raises(RegraftError, match="strength is 0, expected 1 or more"):
        make(Part, {"strength": 0})
    with pytest.raises(RegraftError, match=r"unknown key 'strenght', .* did you mean 'strength'"):
        make(Part, {"strenght": 2})

    options = More(strength=4, epochs=1, max_train=8, max_eval=4)
    trained = train(
        make_model(layers=1), tmp_path / "out", data=DataOptions(data=ner_folder), options=options, progress=False
    )
    assert trained.provenance["training"]["strength"] == 4


@pytest.mark.parametrize(
    "name", ["tm-skip", "tm-0,2+random+head", "tm-skip+ridge+sequential+scale0.5+head", "tm-avg+auto"]
)
def test_the_short_form_is_read_back(name: str) -> None:
    assert str(parse_start(name)) == name
