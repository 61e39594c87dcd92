"""What people meet who come with modules of their own: plain PEFT's, AdapterHub's, many of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import Stranger, load_peft, make_texts, of_many_answers

import regraft
from regraft.activations.sampling import sample
from regraft.errors import SamplingError
from regraft.models.pretrained import resolve
from regraft.port.spaces import space_pairs

Run = Callable[..., tuple[int, str, str]]
Make = Callable[..., str]


def moved(module: str, to: Path, base: str | None = "/nowhere/base") -> str:
    """Write a module anew that names another base model, or none."""
    own = regraft.load(module)
    config = {**own.config, "base_model_name_or_path": base}
    return str(regraft.Module(config, own.tensors, provenance=own.provenance).save(to))


def test_a_base_that_has_moved_is_asked_for_by_the_option_that_names_it(
    stranger: Stranger, tmp_path: Path, run: Run
) -> None:
    gone, here = moved(stranger.module, tmp_path / "gone"), stranger.module
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(60)))
    texts = ("--texts", tmp_path / "texts.txt")
    out = ("--out", tmp_path / "out")
    calls = {
        "--teacher": [("plan", gone, "--student", stranger.base)],
        "--teacher-model": [("compare", gone, here, *texts), ("refine", here, "--teacher", gone, *texts, *out)],
        "--model": [
            ("compare", here, gone, *texts),
            ("refine", gone, "--teacher", here, *texts, *out),
            ("evaluate", gone, *stranger.options),
            ("convert", gone, "--to", "merged", *out),
        ],
    }
    for option, all_of_it in calls.items():
        for call in all_of_it:
            code, _, error = run(*call)
            assert code == 2
            assert error == (
                "error: there is no directory /nowhere/base, expected that of a model; "
                f"{gone} names it as its base, name where it is ({option})\n"
            )
    code, _, error = run("plan", gone, "--student", stranger.base, "--teacher", stranger.base)
    assert code == 0, error


def test_info_says_why_it_does_not_know_where_a_module_sits(stranger: Stranger, tmp_path: Path, run: Run) -> None:
    for base, why in (
        (None, "names no base model, expected one"),
        ("/nowhere/base", "there is no directory /nowhere/base"),
    ):
        code, out, error = run("info", moved(stranger.module, tmp_path / str(base is None), base))
        assert code == 0, error
        (said,) = (line for line in out.splitlines() if line.startswith("sites not known"))
        assert why in said
        assert "--teacher or --model of other commands" in said
    code, out, _ = run("info", stranger.module)
    assert "sites not known" not in out


def test_a_module_is_shown_on_one_line(stranger: Stranger) -> None:
    own = regraft.load(stranger.module)
    assert repr(own) == f"Module({own.source!r}, LORA, base_model={stranger.base!r}, {len(own.tensors)} tensors)"


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS"])
def test_the_lines_of_the_card_load_a_head_of_any_size(
    make_model: Make, make_module: Make, tmp_path: Path, task_type: str
) -> None:
    """PEFT's own class makes a head of two labels where it is not told how many, and then refuses the module's."""
    base = make_model(layers=2)
    written = moved(make_module(base, labels=5, task_type=task_type), tmp_path / "written", base)
    (block,) = re.findall(r"```python\n(.*?)```", (tmp_path / "written" / "README.md").read_text(), flags=re.DOTALL)
    found: dict[str, Any] = {}
    exec(block.replace("path/of/this/directory", written), found)
    tokens = transformers.AutoTokenizer.from_pretrained(base)(make_texts(1)[0], return_tensors="pt")
    with torch.no_grad():
        logits, expected = (m(**tokens).logits for m in (found["model"].eval(), load_peft(base, written, 5, task_type)))
    assert torch.equal(logits, expected)


def test_what_was_written_says_what_peft_wants_to_load_it(
    make_model: Make, make_module: Make, tmp_path: Path, run: Run
) -> None:
    base = make_model(layers=2)
    wanted = ("lora", 5, "onto a model with num_labels=5"), ("bottleneck", None, "after 'import regraft'")
    for kind, labels, said in wanted:
        out = tmp_path / kind
        code, printed, error = run("transfer", make_module(base, kind, labels=labels), "--student", base, "--out", out)
        assert code == 0, error
        assert f"Wrote {out}: PeftModel.from_pretrained(model, {str(out)!r}) loads it {said}." in printed


def test_the_next_command_has_the_columns_and_the_bases_that_were_named(
    make_model: Make, make_module: Make, tmp_path: Path, run: Run
) -> None:
    base = make_model(layers=2)
    texts = make_texts(60)
    (tmp_path / "my.csv").write_text("\n".join(["stars,review", *(f"1,{text}" for text in texts)]))
    teacher = moved(of_many_answers(make_module(base, labels=3), texts), tmp_path / "teacher", None)
    start = moved(make_module(base, labels=3), tmp_path / "start", None)
    bases = ("--teacher-model", base, "--model", base)
    own = ("--texts", tmp_path / "my.csv", "--column", "review")
    out = tmp_path / "refined"
    code, _, error = run("refine", start, "--teacher", teacher, *bases, *own, "--steps", 1, "--out", out)
    assert code == 0, error
    named = f"--teacher-model {base} --model {base}"
    assert f"Next: regraft compare {teacher} {out} {named} --texts OTHER-TEXTS --column review\n" in error
    code, _, error = run("compare", teacher, start, *bases, *own)
    assert code == 0, error
    asked = f"--texts {tmp_path / 'my.csv'} --column review"
    assert f"Next: regraft refine {start} --teacher {teacher} {named} {asked} --out FINISHED\n" in error


def test_a_head_of_another_width_is_not_called_copied(stranger: Stranger, make_model: Make) -> None:
    plan = regraft.plan(regraft.load(stranger.module), make_model(width=48, layers=2))
    heads = {target.key: target.action for target in plan.targets if "classifier" in target.key}
    assert {action for key, action in heads.items() if key.endswith("weight")} == {"refused"}
    assert any("the task head reads 32 numbers in" in problem for problem in plan.problems)


def test_moments_that_lack_a_site_are_refused_with_the_sites_to_sample(make_model: Make, make_module: Make) -> None:
    base, student = make_model(layers=2), make_model(width=48, layers=2)
    pair = resolve(base), resolve(student)
    taken = sample(*pair, space_pairs(*pair, "skip"), make_texts(60))
    module = regraft.load(make_module(base, target_modules=["query", "key"]))
    with pytest.raises(SamplingError, match=r"lack key_output .* beside those of other modules, --sites key,query$"):
        regraft.transfer(module, student, moments=taken, progress=False)


def test_a_file_given_for_a_folder_and_a_task_of_another_type_are_told(stranger: Stranger, run: Run) -> None:
    file = stranger.data / "test.csv"
    code, _, error = run("evaluate", stranger.module, "--task", "classification", "--data", file)
    assert code == 2
    assert f"{file} is a file, expected train, val (or dev) and test in one of" in error
    code, _, error = run("evaluate", stranger.module, "--data", stranger.data)  # which is for named entities
    assert code == 2
    assert "has task type SEQ_CLS, expected TOKEN_CLS" in error
    assert "(--task classification, nli, pi)" in error


def test_a_head_without_names_is_told_how_to_get_them(stranger: Stranger, run: Run) -> None:
    advised = "does not name the labels of its head, so neither will the port"
    call = ("plan", stranger.module, "--student", stranger.base)
    code, out, error = run(*call)
    assert code == 0, error
    assert advised in " ".join(out.split())
    for named in (("--teacher-labels", "yes,no"), ("--head", "fresh")):
        code, out, error = run(*call, *named)
        assert code == 0, error
        assert advised not in " ".join(out.split())


def test_a_model_that_gets_a_head_is_loaded_without_a_report_of_what_it_lacks(
    stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    """The head is put in place at once, and what else is missing is refused."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_warning()
    try:
        transformers.AutoModelForSequenceClassification.from_pretrained(stranger.base)
        assert "MISSING" in caplog.text
        caplog.clear()
        with regraft.loaded(stranger.base, stranger.module):
            assert "MISSING" not in caplog.text
        assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.WARNING
    finally:
        transformers.utils.logging.set_verbosity(before)


def test_a_second_value_without_its_option_is_told(run: Run) -> None:
    code, _, error = run("transfer", "mine", "--student", "s", "--moments", "one", "two", "--out", "o")
    assert code == 2
    assert error.startswith("error: found 'two', expected no more words; an option of several values is repeated")
