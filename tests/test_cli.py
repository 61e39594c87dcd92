"""Every mistake of a user is one sentence on standard error, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_texts, of_many_answers
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer

import regraft
from regraft.alignment.methods import METHODS


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(make_texts(120)) + "\n")
    return path


def test_plan_transfer_and_what_they_print(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    student = make_model("distilbert", layers=2)
    module = make_module(make_model(layers=4), "lora", labels=3)
    code, out, _ = run("plan", module, "--student", student, "--align", "none")
    assert code == 0
    assert re.search(r"1 .* query .* 2 .* 2 .* 32 .* copied", out)
    assert re.search(r"head .* 2 .* copied", out)
    _, out, _ = run("plan", module, "--student", student, "--align", "none", "--head", "fresh")
    assert "2 teacher tensors are left: task head: the student's is freshly initialised" in out
    assert "8 teacher tensors are left: the student's layers take over other layers" in out
    code, out, _ = run("transfer", module, "--student", student, "--align", "none", "--out", tmp_path / "ported")
    assert code == 0
    assert "10 copied; 8 teacher tensors left behind" in out
    assert regraft.load(tmp_path / "ported").report["align"] == "none"


def test_sample_shards_once_and_port_from_their_sum(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, texts: Path
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    lines = texts.read_text().splitlines()
    models = ("--teacher", teacher, "--student", student)
    for name, part in (("one", lines[:64]), ("two", lines[64:])):
        (tmp_path / f"{name}.txt").write_text("\n".join(part))
        code, out, _ = run("sample", *models, "--texts", tmp_path / f"{name}.txt", "--out", tmp_path / name)
        assert code == 0
        assert "student tokens (100%); 13 pairs of spaces" in out
    moments = ("--moments", tmp_path / "one", "--moments", tmp_path / "two")
    for kind in ("lora", "bottleneck"):
        module = make_module(teacher, kind)
        for spaces in ("measured", "released"):
            code, out, _ = run(
                "transfer", module, "--student", student, "--align", "lsa", "--spaces", spaces, *moments,
                "--out", tmp_path / f"{kind}-{spaces}",
            )  # fmt: skip
            assert code == 0
            assert f"Alignment: lsa; spaces: {spaces}" in out
            assert "32->48" in out
    both = (*moments, "--texts", texts, "--align", "lsa", "--out", tmp_path / "both")
    assert "got both texts and moments" in run("transfer", make_module(teacher, "lora"), "--student", student, *both)[2]
    report = regraft.load(tmp_path / "lora-measured").report
    assert len(report["sample"]["texts"]) == 2
    lora = make_module(teacher, "lora")
    for other, message in (
        (make_model("distilbert", width=48, layers=2, seed=7), "whose weights differ"),
        (teacher, "whose architecture differs"),
    ):
        code, _, error = run("transfer", lora, "--student", other, "--align", "lsa", *moments, "--out", tmp_path / "x")
        assert code == 2
        assert message in error


def test_texts_may_be_conllu_and_moments_equal_texts(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, texts: Path
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    conllu = tmp_path / "texts.conllu"
    conllu.write_text(
        "\n\n".join(
            "\n".join(f"{i}\t{word}\tO" for i, word in enumerate(line.split()))
            for line in texts.read_text().splitlines()
        )
    )
    module = make_module(teacher, "lora")
    shared = ("transfer", module, "--student", student, "--align", "lsa")
    run("sample", "--teacher", teacher, "--student", student, "--texts", texts, "--out", tmp_path / "m")
    for name, source in (
        ("a", ("--texts", texts)),
        ("b", ("--texts", conllu)),
        ("c", ("--moments", tmp_path / "m")),
    ):
        code, _, error = run(*shared, *source, "--out", tmp_path / name)
        assert code == 0, error
    assert len({regraft.load(tmp_path / name).hash() for name in "abc"}) == 1


@pytest.mark.slow
def test_texts_alone_are_enough_for_maps_fitted_in_sequence(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, texts: Path
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2)
    module = make_module(teacher, "lora", labels=3)
    here = ("transfer", module, "--student", student, "--texts", texts)
    made = {}
    for name, options in (
        ("default", ()),
        ("sequential", ("--align", "auto", "--sequential")),
        ("apart", ("--apart",)),
        ("half", ("--apart", "--scale", "0.5")),
        ("searched", ("--scale", "auto")),
    ):
        code, out, error = run(*here, *options, "--out", tmp_path / name)
        assert code == 0, error
        assert "Alignment: auto; spaces: measured" in out
        assert "R2 read" in out
        made[name] = regraft.load(tmp_path / name)
    reports = {name: ported.report for name, ported in made.items()}
    assert {report["align"] for report in reports.values()} == {"auto"}
    assert [report["sequential"] for report in reports.values()] == [True, True, False, False, True]
    # In sequence a silent body is one of the candidates, at scale 0.
    assert [report["scale"] for report in reports.values()][2:4] == [1, 0.5]
    for name in ("default", "sequential"):
        (chosen,) = (one for one in reports[name]["candidates"] if one["chosen"])
        assert (reports[name]["scale"] == 0) == (chosen["body"] == "silent")
    assert len(reports["searched"]["scales"]) == 5
    assert made["default"].hash() == made["sequential"].hash() != made["apart"].hash()
    for key, tensor in made["apart"].tensors.items():
        assert made["half"].tensors[key].equal(tensor / 2 if "lora_B" in key else tensor)


def test_a_scaled_port_says_so(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, texts: Path
) -> None:
    student, module = make_model(layers=2), make_module(make_model(layers=4), "lora", labels=3)
    here = ("transfer", module, "--student", student)
    _, out, _ = run(*here, "--scale", "0.5", "--out", tmp_path / "half")
    assert "6 copied, 4 scaled; 8 teacher tensors left behind" in out
    assert "scale 0.5: of all that the module writes" in out
    report = regraft.load(tmp_path / "half").report
    assert {(made["action"], *made["from"].values()) for made in report["tensors"].values()} == {
        ("copied", 1.0),
        ("scaled", 0.5),
    }
    assert {key.rpartition("lora_")[2] for key, made in report["tensors"].items() if made["action"] == "scaled"} == {
        "B.weight"
    }
    card = (tmp_path / "half" / "README.md").read_text()
    assert "| scale | 0.5 |" in card
    assert "in sequence" not in card
    _, out, _ = run(*here, "--texts", texts, "--out", tmp_path / "whole")
    assert "Alignment: auto; spaces: measured; fitted in sequence" in out
    assert "scale 1" not in out
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "| alignment | auto, fitted in sequence |" in card
    assert "| scale |" not in card


@pytest.mark.slow
def test_plan_with_texts_alone_says_whether_the_port_will_help(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], texts: Path
) -> None:
    module = make_module(make_model(layers=4), "bottleneck", labels=3)
    student = make_model("distilbert", width=48, layers=2)
    for options in ((), ("--apart", "--scale", "0.5"), ("--scale", "auto")):
        code, out, error = run("plan", module, "--student", student, "--texts", texts, *options)
        assert code == 0, error
        assert "Alignment: auto; spaces: measured" in out
        assert re.search(r"(On \d+ held-out texts the port gives|No verdict: ).*\.$", out)


@pytest.mark.slow
def test_plan_chooses_the_scale_as_transfer_does(
    run: Callable,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    texts: Path,
    ner_folder: Path,
) -> None:
    module = make_module(make_model(layers=4), "lora", labels=9)
    here = (module, "--student", make_model("distilbert", width=48, layers=2), "--texts", texts)
    here = (*here, "--scale", "auto", "--data", ner_folder)
    code, planned, error = run("plan", *here)
    assert code == 0, error
    code, ported, error = run("transfer", *here, "--out", tmp_path / "ported")
    assert code == 0, error
    (tried,) = re.findall("scale .*; by scale: .*", ported)
    assert tried in planned


def test_plan_refuses_before_it_fits_and_by_the_modules_name(
    run: Callable,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    texts: Path,
    ner_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = make_model(layers=2)
    module, bare, few = (make_module(make_model(layers=4), labels=labels) for labels in (9, None, 3))
    monkeypatch.setattr(regraft.port.pipeline, "fit_pairs", None)
    monkeypatch.setattr(regraft.port.pipeline, "fit_in_sequence", None)
    data = ("--data", ner_folder)
    for arguments, message in (
        ((module, "--scale", "x"), "--scale: found 'x', expected a number or auto"),
        ((module, "--scale", "auto"), "scale auto runs both models with the module in place"),
        ((module, "--sequential"), "sequential runs both models with the module in place"),
        ((module, *data, "--task", "nre"), "did you mean 'ner'?"),
        ((module, *data, "--task", "pi"), f"{module} has task type TOKEN_CLS, expected SEQ_CLS"),
        ((bare, *data), f"{bare} has task type None, expected TOKEN_CLS"),
        ((few, *data), f"{few} has a head of 3 labels, the task has 9"),
        ((module, "--data", tmp_path), "has no test file"),
    ):
        code, _, error = run("plan", *arguments, "--student", student)
        assert code == 2
        assert message in error
        if "--data" in arguments:
            fitted = ("--texts", texts, "--scale", "auto", "--out", tmp_path / "out")
            code, _, error = run("transfer", *arguments, "--student", student, *fitted)
            assert code == 2
            assert message in error


def test_a_module_that_writes_nothing_gets_no_verdict(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], texts: Path
) -> None:
    module = of_many_answers(make_module(make_model(layers=4), "lora", labels=3), texts.read_text().splitlines())
    here = ("plan", module, "--student", make_model("distilbert", width=48, layers=2), "--texts", texts)
    for options in (("--align", "zero"), ("--apart", "--scale", "0")):
        for head, said in (("fresh", False), ("teacher", True)):
            code, out, error = run(*here, *options, "--head", head)
            assert code == 0, error
            assert ("This port " in out or "No verdict" in out) is False
            assert ("The head alone does as well" in out or "no better than knowing nothing" in out) is said


def bad_inputs(make_model: Callable, make_module: Callable, tmp: Path, texts: Path) -> dict[str, tuple]:
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    wide = make_model(width=48, layers=4)
    module, wide_module = make_module(teacher, "lora"), make_module(wide, "lora")

    def changed(name: str, change: Callable[[Path], None]) -> str:
        copy = tmp / name
        copy.mkdir()
        for file in Path(module).iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        change(copy / "adapter_model.safetensors")
        return str(copy)

    def spoil(path: Path) -> None:
        tensors = load_file(path)
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, path)

    no_offsets = tmp / "byte-model"
    no_offsets.mkdir()
    for file in Path(student).glob("*"):
        if "token" not in file.name:
            (no_offsets / file.name).write_bytes(file.read_bytes())
    ByT5Tokenizer().save_pretrained(no_offsets)
    (tmp / "empty.txt").write_text("\n \n")
    (tmp / "one.txt").write_text("the old river\n")
    (tmp / "few.txt").write_text("the old river\nthe young city\n")
    (tmp / "taken").mkdir()
    (tmp / "taken" / "notes.txt").write_text("mine")
    lsa = ("--align", "lsa")
    return {
        "no module": ((str(tmp), "--student", student), "holds no adapter_config.json"),
        "truncated": (
            (changed("cut", lambda p: p.write_bytes(p.read_bytes()[:-9])), "--student", student),
            "it may be truncated",
        ),
        "nan": ((changed("nan", spoil), "--student", student), "NaN or infinity in"),
        "other teacher": (
            (wide_module, "--student", student, "--teacher", teacher),
            "name the model that the module was trained on",
        ),
        "other width": ((wide_module, "--student", student), "use --align auto with --texts or --moments"),
        "unknown layers": (
            (module, "--student", student, "--layers", "skp"),
            "expected one of avg, avg_released, last, skip; did you mean 'skip'?",
        ),
        "unknown align": (
            (module, "--student", student, "--align", "las"),
            f"expected one of {', '.join(sorted(METHODS))}; did you mean 'lsa'?",
        ),
        "unknown spaces": ((module, "--student", student, "--spaces", "real"), "expected one of measured, released"),
        "unknown pairing": (
            (module, "--student", student, "--pairing", "positions", "--texts", texts, *lsa),
            "expected one of offsets, position; did you mean 'position'?",
        ),
        "unknown dtype": ((module, "--student", student, "--dtype", "float8"), "did you mean 'float"),
        "layer list": ((module, "--student", student, "--layers", "0,9"), "names layer 9, expected 0 to 3"),
        "scale": (
            (module, "--student", student, "--scale", "x"),
            "--scale: found 'x', expected a number or auto",
        ),
        "scale apart": (
            (module, "--student", student, "--texts", texts, "--apart", "--scale", "auto"),
            "scale auto runs both models with the module in place; fit --sequential, with --texts",
        ),
        "sequential without texts": (
            (module, "--student", student, "--sequential"),
            "sequential runs both models with the module in place, which no moments hold; give --texts",
        ),
        "no texts": ((module, "--student", student, *lsa), "give --texts FILE or --moments DIR"),
        "texts missing": ((module, "--student", student, "--texts", tmp / "none.txt", *lsa), "cannot read texts"),
        "texts empty": ((module, "--student", student, "--texts", tmp / "empty.txt", *lsa), "holds no text"),
        "one line": ((module, "--student", student, "--texts", tmp / "one.txt", *lsa), "found 1 non-empty texts"),
        "few lines": ((module, "--student", student, "--texts", tmp / "few.txt", *lsa), "give more texts"),
        "no offsets": (
            (module, "--student", no_offsets, "--texts", texts, *lsa),
            "reports no character offsets, expected a fast tokenizer; use pairing 'position'",
        ),
        "no student": ((module, "--student", tmp / "taken"), "is a directory without config.json"),
        "moments missing": ((module, "--student", student, "--moments", tmp / "taken", *lsa), "holds no moments.json"),
        "no such device": (
            (module, "--student", student, "--texts", texts, "--device", "cuda:77", *lsa),
            "cannot run on device 'cuda:77'",
        ),
    }


def test_bad_input_is_one_sentence_exit_2_and_nothing_left_behind(
    run: Callable,
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    texts: Path,
    subtests: pytest.Subtests,
) -> None:
    inputs = bad_inputs(make_model, make_module, tmp_path, texts)
    before = sorted(tmp_path.iterdir())
    for name, (arguments, message) in inputs.items():
        with subtests.test(name):
            code, out, error = run("transfer", *arguments, "--out", tmp_path / "out")
            assert code == 2
            assert out == ""
            assert message in error
            assert error.startswith("error: ")
            assert error.count("\n") == 1, error
            assert "Traceback" not in error
            assert sorted(tmp_path.iterdir()) == before


def test_existing_outputs_are_refused_before_any_work(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, texts: Path
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2)
    module = make_module(teacher, "lora")
    out = tmp_path / "out"
    assert run("transfer", module, "--student", student, "--out", out)[0] == 0
    before = (out / "regraft.json").read_bytes()
    sample = ("sample", "--teacher", "missing", "--student", "missing", "--texts", texts)
    commands = (
        ("transfer", "missing", "--student", "missing"),
        ("train", "--model", student, "--data", tmp_path),
    )
    for command in commands:
        code, _, error = run(*command, "--out", out)
        assert code == 2
        assert "exists; choose another name, or replace it (--replace)" in error
    assert "which regraft did not write, so it is not replaced" in run(*sample, "--out", out, "--replace")[2]
    assert (out / "regraft.json").read_bytes() == before
    code, _, _ = run("transfer", module, "--student", student, "--out", out, "--layers", "last", "--replace")
    assert code == 0
    assert json.loads((out / "regraft.json").read_text())["port"]["layers"] == "last"


def test_a_refused_plan_is_shown_and_exits_2(
    run: Callable, make_model: Callable[..., str], make_module: Callable[..., str], texts: Path
) -> None:
    module = make_module(make_model(width=48, layers=4), "bottleneck")
    options = ("--student", make_model(layers=2, seed=5))
    code, out, error = run("plan", module, *options)
    assert code == 2
    assert re.search(r"48 -> 32 .* refused", out)
    assert "also refused: output_norm is 48 wide" in out
    assert error.startswith("error: output_norm is 48 wide")
    code, with_texts, error = run("plan", module, *options, "--texts", texts, "--align", "none")
    assert code == 2
    assert error.startswith("error: output_norm is 48 wide")
    assert with_texts == out
    code, out, _ = run("plan", module, "--student", make_model(layers=2, seed=5), "--align", "lsa", "--verbose")
    assert code == 0
    assert re.search(r"bottleneck_down.weight .* ff_output .* mapped", out)
    assert re.search(r"bottleneck_down.bias .* copied", out)


def test_own_data_train_port_and_score_by_commands(
    run: Callable, make_model: Callable[..., str], tmp_path: Path
) -> None:
    """Columns are named on the command line, a value overrides its preset, and the head goes along."""
    rows = "".join(f"{text},{'art' if i % 2 else 'books'}\n" for i, text in enumerate(make_texts(40)))
    (tmp_path / "data").mkdir()
    for split in ("dev", "test"):
        (tmp_path / "data" / f"{split}.csv").write_text("review,topic\n" + rows)
    options = ("--task", "classification", "--data", tmp_path / "data", "--column", "text=review")
    options = (*options, "--column", "label=topic", "--batch-size", 8, "--max-length", 32)
    base, student = make_model(layers=4), make_model(layers=2)
    teacher, ported, trained = (tmp_path / name for name in ("teacher", "ported", "trained"))
    paper = ("--preset", "paper", "--epochs", 1)
    code, out, error = run("train", "--model", base, "--peft", "bottleneck", *paper, *options, "--out", teacher)
    assert code == 0, error
    assert "accuracy" in out
    settings = json.loads((teacher / "regraft.json").read_text())["training"]
    assert (settings["learning_rate"], settings["epochs"], settings["batch_size"]) == (1e-5, 1, 8)
    code, out, _ = run("transfer", teacher, "--student", student, "--out", ported)
    assert code == 0
    assert "10 copied" in out
    code, out, _ = run("evaluate", ported, *options)
    assert code == 0
    assert "accuracy" in out
    fast = ("--model", student, "--init", ported, "--epochs", 1, *options)
    assert run("train", *fast, "--out", trained)[0] == 0
    for arguments, message in (
        (("--preset", "papr"), "unknown preset 'papr', expected one of fast, paper; did you mean 'paper'?"),
        (("--head", "techer"), "unknown head 'techer', expected one of fresh, teacher"),
        (("--column", "topic"), "found --column topic, expected NAME=COLUMN"),
        (("--column", "labl=topic"), "unknown column 'labl', expected one of text, label"),
        (("--rank", 3), "got --rank beside --init, whose module is what it is"),
        (("--sites", "query,key"), "got --sites beside --init, whose module is what it is"),
        (("--labels", "a,b"), "dev.csv, line 2: found label 'books', expected one of a, b"),
        (("--precision", "float16"), "got precision float16 without a GPU"),
        (("--task", "nil"), "Parameter --task specified multiple times"),
    ):
        code, _, error = run("train", *fast, "--out", tmp_path / "again", *arguments)
        assert code == 2, message
        assert message in error
        assert "Traceback" not in error
        assert not list(tmp_path.glob("again*"))
    fresh = ("--model", student, *options, "--out", tmp_path / "again")
    for peft, size in (("bottleneck", "--rank"), ("lora", "--bottleneck-size")):
        code, _, error = run("train", *fresh, "--peft", peft, size, 4)
        assert code == 2
        other = "lora" if peft == "bottleneck" else "bottleneck"
        assert f"got {size}, which a fresh {other} has, beside --peft {peft}; leave it out" in error


def test_an_unknown_task_is_refused(run: Callable, tmp_path: Path) -> None:
    code, _, error = run("train", "--model", "missing", "--task", "nil", "--out", tmp_path / "out")
    assert code == 2
    assert "unknown task 'nil', expected one of classification, lm, ner, nli, pi; did you mean 'nli'?" in error


def test_unknown_sites_are_refused(run: Callable, make_model: Callable[..., str], tmp_path: Path, texts: Path) -> None:
    models = ("--teacher", make_model(layers=4), "--student", make_model(layers=2, seed=5))
    code, _, error = run("sample", *models, "--texts", texts, "--sites", "qeury", "--out", tmp_path / "m")
    assert code == 2
    assert "unknown site 'qeury', expected one of attention_output" in error
    assert "did you mean 'query'" in error


@pytest.mark.slow
def test_help_teaches_and_the_module_form_works() -> None:
    result = subprocess.run([sys.executable, "-m", "regraft", "--help"], capture_output=True, text=True, check=True)
    for command in ("plan", "sample", "transfer", "train", "evaluate", "distill", "convert"):
        assert command in result.stdout


def test_outputs_that_cannot_be_written_are_refused_before_any_work(run: Callable, tmp_path: Path, texts: Path) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out"
    for command in (
        ("transfer", "missing", "--student", "missing"),
        ("train", "--model", "missing"),
        ("sample", "--teacher", "missing", "--student", "missing", "--texts", texts),
    ):
        code, _, error = run(*command, "--out", out)
        assert code == 2
        assert f"cannot write to {out}, since {tmp_path / 'file'} is no directory" in error
