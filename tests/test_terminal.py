"""What the command line prints: nothing is cut at 80 columns, programs can read it, and pipes and files stay clean."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import json_schemas
import pytest
import yaml
from conftest import checked_json, make_texts, of_many_answers
from fake_results import make_results
from rich.console import Console
from rich.table import Table

from regraft.cli import app, refined, reporting, show, show_port, tables
from regraft.cli.main import COMMANDS
from regraft.cli.output import Output
from regraft.cli.schemas import schemas
from regraft.distillation.comparison import Calibration, Comparison, LabelAgreement
from regraft.progress import show_progress, with_progress
from regraft.report.contents import contents
from regraft.tasks.agreement import Agreement
from regraft.tasks.options import DataOptions
from regraft.training.finetuning import train
from regraft.training.harness import HarnessScore
from regraft.training.options import TrainOptions

Run = Callable[..., tuple[int, str, str]]
LONG = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


@pytest.fixture(autouse=True)
def _progress_as_before() -> Iterator[None]:
    yield
    show_progress(True)


class Tables(Console):
    """A console that prints tables alone: sentences are the terminal's to wrap."""

    def print(self, *objects: Any, **how: Any) -> None:
        if kept := [one for one in objects if isinstance(one, Table)]:
            super().print(*kept, **how)


def printed(width: int, call: Callable[[Console], None]) -> str:
    console = Tables(file=io.StringIO(), width=width, markup=False)
    call(console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def words(text: str) -> list[str]:
    return sorted(re.sub(r"[─\s]", " ", text).split())


def whole(call: Callable[[Console], None], folds: bool = False) -> None:
    """Check that 80 columns hold what 400 do: every word or, where long ones are folded, every figure and letter."""
    narrow, wide = printed(80, call), printed(400, call)
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    figures = [[word for word in words(text) if re.fullmatch(r"[-+]?\d[\d.,%]*", word)] for text in (narrow, wide)]
    assert figures[0] == figures[1]
    if folds:
        assert sorted("".join(words(narrow))) == sorted("".join(words(wide)))
    else:
        assert words(narrow) == words(wide)


AGREEMENT = Agreement("accuracy", 76.51, (70.02, 81.33), 0.1234, 512, False)
COMPARISON = Comparison(
    teacher=f"organisation/{LONG.rpartition('/')[2]}-wikineural-lora",
    student="results/incompatible/ported-with-a-long-name",
    task_type="TOKEN_CLS",
    texts=512,
    rows=10240,
    cut=3,
    matched="names",
    agreement=AGREEMENT,
    head_alone=AGREEMENT,
    commonest="O",
    floor=71.5,
    calibration=Calibration(0.93, 0.88, 0.052),
    labels=(LabelAgreement("I-MISCELLANEOUS_ORGANISATION_OR_EVENT", 12.5, 71.25, None),) * 2,
)
LOOK = {"percent": 76.5, "interval": [70.0, 81.3], "divergence": 0.1234}
REFINED = {
    "agreement": {"before": LOOK, "after": LOOK},
    "texts": {"held_out": 160, "learnt": 1440},
    "metric": "cosine similarity",
    "by_texts": [{"texts": 100, **LOOK}, {"texts": 1440, **LOOK}],
    "step": 200,
    "steps_taken": 400,
    "steps": 400,
}
SCORE = {
    "d_t": 1024,
    "d_s": 4096,
    "matched": 1024,
    "constant": 12,
    "assigned": 0.531,
    "held_out": 0.512,
    "r2_read": 0.1234,
    "r2_write": -12.345,
    "method": "procrustes",
    "candidates": {"procrustes": 0.53, "ridge": 0.511, "lsa": 0.21, "blocks": -0.13, "identity": 0.2},
}
CANDIDATE = {"body": "mapped", "head": "mapped", "scale": 0.25, "metric": "cosine similarity", "value": 71.5}
ALIGNED = {
    "sampled": "7,459 token pairs by offsets, from 7,459 of 7,459 student tokens (100%)",
    "align": "auto",
    "spaces": "measured",
    "sequential": True,
    "scores": [{"space": f"{n}.{2 * n}.decoder.cross_attention_output", **SCORE} for n in (9, 11)],
    "candidates": [{**CANDIDATE, "error": 10.8, "divergence": 0.023, "chosen": chosen} for chosen in (True, False)],
    "scale": 0.25,
    "scales": {"0.25": 71.5, "1": 70.2},
    "expected": {"module": 0.15, "head": -0.03, "interval": [-0.82, 0.75]},
    "fidelity": [
        {"layer": 11, "site": "decoder.cross_output", "name": "lora_B @ lora_A", "r2": -0.286},
        {"layer": None, "site": None, "name": "classifier.out_proj", "r2": 0.5},
    ],
    "tensors": {"a": {"action": "mapped"}},
    "left": {},
}
HARNESS = [HarnessScore("mmlu_high_school_government", "exact_match,strict-match", 0.2512, 0.3127, 0.0123, True)]
SCORES = {
    name: {"precision": 81.26, "recall": 79.91, "f1": 80.58} for name in ("before training", "validation", "test")
}
LOSSES = {"loss": 3.1234, "kl": 1.2, "lm": 2.3, "cosine": 0.1, "teacher_lm": 2.1}

TABLES: Mapping[str, Callable[[Console], None]] = {
    "comparison": lambda console: show.show_comparison(console, COMPARISON),
    "refinement": lambda console: refined.show_refinement(console, REFINED),
    "scores": lambda console: show.show_scores(console, SCORES),
    "losses": lambda console: show.show_losses(console, LOSSES, LOSSES),
    "harness": lambda console: show.show_harness(console, HARNESS),
    "alignment": lambda console: show_port.show_port(console, ALIGNED),
    "alignment, verbose": lambda console: show_port.show_port(console, ALIGNED, verbose=True),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_whole_at_80_columns(name: str) -> None:
    whole(TABLES[name], folds=name in ("alignment", "alignment, verbose", "harness"))


def test_a_table_folds_words_and_never_figures() -> None:
    rows = [["a" * 60, "b" * 60, "12345.6789", "-0.5 (-1.25 to 2.50)"]]
    whole(lambda console: tables.print_table(console, ("name", "other", "a figure", "interval"), rows), folds=True)


def test_the_tables_of_a_report_are_whole_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = contents(make_results(), "Results")
    shown = {}
    for width in (80, 400):
        console = Console(file=io.StringIO(), width=width, markup=False)
        monkeypatch.setattr(reporting, "console", console)
        reporting.show(summary)
        shown[width] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown[80]
    figures = [re.findall(r"(?<![\w.])[-+]?\d+\.\d+", shown[width]) for width in (80, 400)]
    assert sorted(figures[0]) == sorted(figures[1])
    assert max(map(len, shown[80].split("Started from")[0].splitlines())) <= 80


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.console, "_width", 80)


@pytest.mark.usefixtures("narrow")
def test_plans_are_whole_at_80_columns(
    run: Run, make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    teacher, student = make_model("bart", layers=2), make_model("bart", width=48, layers=1)
    targets = [f"{at}.{name}" for at in ("self_attn", "encoder_attn") for name in ("q_proj", "out_proj", "v_proj")]
    module = make_module(teacher, "lora", target_modules=targets)
    code, out, error = run("plan", module, "--student", student, "--align", "lsa", "--verbose")
    assert code == 0, error
    assert "…" not in out
    assert all(name in out for name in ("cross_query", "cross_output", "from layers", "what happens", "lora_A.weight"))
    assert "32 -> 48" in out
    assert out.splitlines()[-1].startswith("The port is allowed: of ")
    assert error.splitlines()[-1] == (f"Next: regraft plan {module} --student {student} --align lsa --texts FILE")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["paper-incompatible", "demo"])
def test_the_cells_of_an_experiment_are_whole_at_80_columns(name: str, run: Run, tmp_path: Path) -> None:
    _, out, _ = run("experiment", "plan", name, "--store", tmp_path, "--verbose")
    assert "…" not in out
    _, found, _ = run("experiment", "plan", name, "--store", tmp_path, "--json")
    cells = json.loads(found)["cells"]
    assert all(cell["key"][:8] in out for cell in cells)
    letters = sorted("".join(f"{cell['label']}".replace(" ", "") for cell in cells))
    assert not set(letters) - set(out)
    assert re.search(rf"(?m)^all +{len(cells)} ", out)


@pytest.mark.usefixtures("narrow")
def test_the_methods_are_whole_at_80_columns(run: Run) -> None:
    out = run("methods")[1]
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert run("methods", "-q")[1].split() == [
        one["name"] for one in json.loads(run("methods", "--json")[1])["methods"]
    ]


def test_every_command_prints_what_its_schema_says(
    run: Run,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    ner_folder: Path,
) -> None:
    teacher, student, texts = make_model(layers=4), make_model(layers=2), make_texts(120)
    module = of_many_answers(make_module(teacher, "lora", labels=4), texts)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    on = ("--texts", tmp_path / "texts.txt")
    few = ("--data", ner_folder, "--max-eval", 10)
    to = ("--student", student)
    calls: dict[str, tuple[object, ...]] = {
        "plan": (module, *to, *on),
        "transfer": (module, *to, "--out", tmp_path / "ported"),
        "refine": (tmp_path / "ported", "--teacher", module, *on, "--steps", 2, "--out", tmp_path / "refined"),
        "sample": ("--teacher", teacher, *to, *on, "--out", tmp_path / "sample"),
        "methods": (),
        "train": ("--model", student, *few, "--max-train", 16, "--epochs", 1, "--out", tmp_path / "trained"),
        "evaluate": (tmp_path / "trained", *few),
        "compare": (module, tmp_path / "refined", *on),
        "distill": ("--teacher", teacher, *on, "--max-steps", 2, "--out", tmp_path / "distilled"),
        "convert": (module, "--to", "lora", "--rank", 2, "--out", tmp_path / "converted"),
        "info": (tmp_path / "ported",),
        "families": (),
        "family": (student,),
        "experiment plan": ("demo", "--store", tmp_path / "store"),
    }
    found = {}
    for command, arguments in calls.items():
        code, out, error = run(*command.split(), *arguments, "--json")
        assert code == 0, (command, error)
        found[command] = checked_json(command, out)
    assert found["plan"]["verdict"]["comparison"]["agreement"]["percent"] >= 0
    assert found["transfer"]["out"] == str(tmp_path / "ported")
    assert found["transfer"]["hash"] in found["info"]["hash"]
    assert found["compare"]["student"] == str(tmp_path / "refined")
    assert found["family"]["model_type"] == "bert"
    assert "query" in found["family"]["record"]["sites"]
    # See test_experiment, test_store, test_report and test_demo.
    assert set(COMMANDS) - set(calls) == {"experiment run", "experiment verify", "report", "demo"}
    for command, value in (("transfer", tmp_path / "ported"), ("info", "module"), ("family", None)):
        code, out, error = run(
            *command.split(), *calls[command], "-q", *(["--replace"] if command == "transfer" else [])
        )
        assert (code, error) == (0, "")
        assert value is None or out == f"{value}\n"


def test_the_documented_schemas_are_those_of_the_records() -> None:
    for path, text in json_schemas.written().items():
        assert path.read_text(encoding="utf-8") == text
    assert {command.split(" --")[0] for command in schemas()} == set(COMMANDS)


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).give({"a": float("nan"), "b": [float("inf"), "é", Path("x")]})
    assert capsys.readouterr().out == '{"a":null,"b":[null,"é","x"]}\n'


def test_the_form_is_asked_for_once(run: Run) -> None:
    for arguments in (("--format", "quiet", "--json"), ("--format", "human", "-q")):
        code, out, error = run("methods", *arguments)
        assert (code, out) == (2, "")
        assert "expected one of them" in error
    code, _, error = run("methods", "--format", "jsno")
    assert code == 2
    assert "json" in error
    assert run("methods", "--format", "json")[1] == run("methods", "--json")[1] == run("methods", "--json", "-q")[1]
    assert run("methods", "--format", "auto") == run("methods", "--format", "human") == run("methods")


# --- options from a file


def options(run: Run, *arguments: object) -> dict[str, Any]:
    code, out, error = run(*arguments, "--print-config")
    assert code == 0, error
    found: dict[str, Any] = yaml.safe_load(out)
    return found


def test_options_come_from_a_file_and_flags_win(run: Run, tmp_path: Path) -> None:
    said = {
        "module": "lora",
        "student": "S",
        "out": "ported",
        "layers": [0, 2],
        "labels": ["A", "B"],
        "moments": ["one", "two"],
        "sequential": False,
        "drop": True,
        "batch_size": 8,
    }
    file = tmp_path / "port.yaml"
    file.write_text(yaml.safe_dump(said))
    found = options(run, "transfer", "--config", file, "--batch-size", 16)
    assert found["batch-size"] == 16
    assert (found["module"], found["layers"], found["moments"]) == ("lora", "0,2", ["one", "two"])
    assert (found["sequential"], found["drop"]) == (False, True)
    file.write_text(yaml.safe_dump(found))
    assert options(run, "transfer", "--config", file) == found
    assert options(run, "transfer", "other", "--config", file)["module"] == "other"
    line = ("transfer", "lora", "--student", "S", "--out", "ported", "--batch-size", 16, "--layers", "0,2", "--apart")
    rest = ("--drop", "--labels", "A", "--labels", "B", "--moments", "one", "--moments", "two")
    assert options(run, *line, *rest) == found
    assert not (tmp_path / "ported").exists()


def test_a_file_does_what_the_line_does(
    run: Run, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base, student = make_model(layers=4), make_model(layers=2)
    line = ("plan", make_module(base, "lora"), "--student", student, "--align", "none", "--layers", "last")
    (tmp_path / "plan.yaml").write_text(run(*line, "--print-config")[1])
    assert run("plan", "--config", tmp_path / "plan.yaml")[:2] == run(*line)[:2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("studnet: S", "unknown option 'studnet'"),
        ("studnet: S", "did you mean 'student'?"),
        ("config: other.yaml", "unknown option 'config'"),
        ("student: {a: 1}", "expected one value or a list of values"),
        ("- a", "holds no options"),
        ("a: [", "is no YAML"),
        ("seed: " + 5000 * "9", "is no YAML"),
        ("batch-size: many", "batch-size"),
    ],
)
def test_a_file_that_does_not_serve_is_refused(text: str, problem: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "port.yaml"
    file.write_text(f"student: S\n{text}" if text[0] == "b" else text)
    code, out, error = run("transfer", "lora", "--config", file, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert problem in error
    code, _, error = run("transfer", "lora", "--config", tmp_path / "none.yaml")
    assert code == 2
    assert "cannot read" in error


def test_every_command_takes_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("unheard-of: 1")
    for command in COMMANDS:
        code, _, error = run(*command.split(), "--config", tmp_path / "empty.yaml")
        assert (code, "unknown option 'unheard-of'" in error) == (2, True), command


def test_brackets_of_help_texts_are_shown(run: Run) -> None:
    assert "regraft[quantized]" in run("plan", "--help")[1]


# --- pipes, files and terminals


def in_terminal(*arguments: object, **variables: str) -> str:
    """Run a command with a terminal of 80 columns for its output and errors; return what the terminal shows."""
    outer, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
    command = [sys.executable, "-m", "regraft", *map(str, arguments)]
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment):
        os.close(inner)
        shown = b""
        while True:
            try:
                part = os.read(outer, 65536)
            except OSError:  # the terminal is closed
                break
            if not part:
                break
            shown += part
    os.close(outer)
    return shown.decode()


COLOUR = re.compile(r"\x1b\[(\d+;)*(3|4|9|10)\d[;m]")


def test_no_color_is_heeded() -> None:
    refused = ("methods", "--format", "x")
    assert COLOUR.search(in_terminal(*refused))  # "error:" is red
    assert not COLOUR.search(in_terminal(*refused, NO_COLOR="1"))


def test_libraries_are_silent(make_model: Callable[..., str], make_module: Callable[..., str]) -> None:
    """PEFT imports bitsandbytes, which complains of a kernel that nobody asked for."""
    command = [sys.executable, "-m", "regraft", "info", make_module(make_model(layers=1)), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    checked_json("info", done.stdout)


@pytest.mark.parametrize("command", [("families",), ("plan", "--help"), ()])
def test_a_pipe_that_closes_ends_a_command_quietly(command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "regraft", *command], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_with_time_left_and_only_on_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for output, wanted, shows in ((Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)):
        monkeypatch.setattr(sys, "stderr", output)
        show_progress(wanted)
        assert list(with_progress([1, 2], "Working")) == [1, 2]
        assert bool(re.search(r"Working: +\d+% .*/2 batches, .* left", output.getvalue())) is shows
        if not shows:
            assert output.getvalue() == ""


def test_a_training_shows_one_line_and_no_dictionaries(
    ner_folder: Path,
    make_model: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = TrainOptions(epochs=1, max_train=16, max_eval=4, batch_size=4)
    model, data = make_model(layers=1), DataOptions(data=ner_folder)
    datasets.disable_progress_bars()  # as the command line does
    train(model, tmp_path / "silent", data=data, options=options)  # no terminal
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train(model, tmp_path / "shown", data=data, options=options)
    shown = terminal.getvalue()
    assert "Training:" in shown
    assert " left" in shown
    assert "Scoring:" in shown
    assert "{" not in shown + capsys.readouterr().out
    datasets.enable_progress_bars()
