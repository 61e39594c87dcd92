"""Nothing of a model's directory runs, whatever stands in its files and on standard input, unless it is allowed to."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

import regraft
from regraft.errors import ModelError, SamplingError
from regraft.files.texts import read_texts
from regraft.models.pretrained import resolve

SOURCE = Path(regraft.__file__).parent
TOKENIZER = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
MODEL_ALONE = {"AutoModel": "own.OwnModel"}
MODEL = {"auto_map": {"AutoConfig": "own.Own", **MODEL_ALONE}}


def hostile(model: str, directory: Path, file: str, changes: dict[str, object]) -> Path:
    """Copy a model, and have one of its files name Python code that leaves a trace when it runs."""
    shutil.copytree(model, directory)
    content = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps({**content, **changes}))
    (directory / "own.py").write_text(
        f"open({str(directory / 'ran')!r}, 'w').close()\n"
        "from transformers import BertConfig as Own, BertModel as OwnModel, PreTrainedTokenizerFast as OwnTokenizer\n"
    )
    return directory


def child(code: str, modules: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, to whose questions the answer is yes."""
    place = {**os.environ, "HF_MODULES_CACHE": str(modules)}  # where transformers copies a model's code to
    return subprocess.run(
        [sys.executable, "-c", code], input="y\n" * 9, capture_output=True, text=True, timeout=120, env=place
    )


# What is loaded of a model -> the file that names code, what it says, and the load.
LOADS = {
    "an unknown type": ("config.json", {"model_type": "own", **MODEL}, "resolve(model, trust)"),
    "the configuration": ("config.json", MODEL, "resolve(model, trust)"),
    "a skeleton": ("config.json", {"auto_map": MODEL_ALONE}, "resolve(model, trust).skeleton()"),
    "the weights": ("config.json", {"auto_map": MODEL_ALONE}, "resolve(model, trust).load(AutoModel)"),
    "the tokenizer": ("tokenizer_config.json", TOKENIZER, "resolve(model, trust).tokenizer()"),
}


def test_code_of_a_model_runs_only_where_it_is_allowed_to(make_model: Callable[..., str], tmp_path: Path) -> None:
    base = make_model(layers=2)
    code = "import os\nfrom transformers import AutoModel\nfrom regraft.errors import ModelError\n"
    code += "from regraft.models.pretrained import resolve\n"
    for name, (file, changes, load) in LOADS.items():
        model = hostile(base, tmp_path / name.replace(" ", "-"), file, changes)
        code += f"model = {str(model)!r}\nfor trust in (False, True):\n    try:\n        {load}\n"
        code += "    except ModelError:\n        pass\n"
        code += f"    print({name!r}, os.path.exists(model + '/ran'))\n"
    ended = child(code, tmp_path / "modules")
    assert ended.stdout.splitlines() == [f"{name} {ran}" for name in LOADS for ran in (False, True)], ended.stderr
    assert "Do you wish to run" not in ended.stderr


def test_a_port_says_that_code_was_allowed(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    base = make_model(layers=2)
    module = make_module(base)
    student = hostile(base, tmp_path / "model", "config.json", MODEL)
    with pytest.warns(UserWarning, match=r"the config.json of .* names Python code .* it was not run"):
        assert "trust_remote_code" not in regraft.transfer(regraft.load(module), student).report
    command = ["transfer", module, "--student", str(student), "--trust-remote-code", "--out", str(tmp_path / "out")]
    ended = child(
        f"import sys\nsys.argv = {['regraft', *command]!r}\nfrom regraft.cli.main import main\nmain()",
        tmp_path / "modules",
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "out" / "regraft.json").read_text())["port"]["trust_remote_code"] is True
    assert (student / "ran").exists()


@pytest.mark.parametrize("allowed", [False, True])
def test_every_command_that_loads_models_hands_the_option_on(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    run: Callable[..., tuple[int, str, str]],
    ner_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: bool,
) -> None:
    model = make_model(layers=2)
    module = make_module(model, labels=9)
    texts = tmp_path / "texts.txt"
    texts.write_text("a text\nanother text\n")
    of_modules = "regraft.modules.module"
    commands = (
        (of_modules, ("plan", module, "--student", model)),
        ("regraft.models.pretrained", ("sample", "--teacher", model, "--student", model, "--texts", texts)),
        ("regraft.training.finetuning", ("train", "--model", model, "--data", ner_folder)),
        (of_modules, ("evaluate", module, "--data", ner_folder)),
        (of_modules, ("compare", module, module, "--texts", texts)),
        (of_modules, ("refine", module, "--teacher", module, "--texts", texts)),
        ("regraft.distillation.students", ("distill", "--teacher", model, "--texts", texts)),
    )
    for place, command in commands:
        asked = []

        def ask(_: object, trust_remote_code: bool = False, *_how: object, asked: list[bool] = asked) -> None:
            asked.append(trust_remote_code)
            raise ModelError("asked")

        out = () if command[0] in ("plan", "evaluate", "compare") else ("--out", tmp_path / "out")
        with monkeypatch.context() as patch:
            patch.setattr(f"{place}.resolve", ask)
            _, _, error = run(*command, *out, *(("--trust-remote-code",) if allowed else ()))
        assert asked == [allowed], f"{command[0]}: {error}"


def test_a_model_that_needs_its_own_code_is_refused_in_a_sentence(
    make_model: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    model = hostile(make_model(layers=2), tmp_path / "model", "config.json", changes)
    asks = r"asks for Python code that comes with the model \(auto_map\), and none is run; .*\(--trust-remote-code\)"
    with pytest.raises(ModelError, match=rf"its config.json {asks}"):
        resolve(str(model))

    def refuse(*_: object, **__: object) -> None:  # as for a type that transformers has no tokenizer of
        raise ValueError("Please pass the argument `trust_remote_code=True` to allow custom code to be run.")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=rf"its tokenizer_config.json {asks}"):
        resolve(make_model(layers=2)).tokenizer()


def test_a_tokenizer_whose_code_does_not_run_is_told_of(make_model: Callable[..., str], tmp_path: Path) -> None:
    directory = hostile(make_model(layers=2), tmp_path / "model", "tokenizer_config.json", TOKENIZER)
    with pytest.warns(UserWarning, match=r"the tokenizer_config.json of .* names Python code"):
        resolve(str(directory)).tokenizer()


def test_code_of_a_data_set_never_runs(tmp_path: Path) -> None:
    """`datasets` runs no scripts since 4.0."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "data.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (directory / "rows.jsonl").write_text('{"text": "a text"}\n')
    with pytest.raises(SamplingError, match="scripts are no longer supported"):
        read_texts(directory)
    assert not (tmp_path / "ran").exists()


def test_only_a_user_can_allow_code() -> None:
    """No call of our own says ``trust_remote_code=True``; ruff sees to `torch.load` and `pickle`."""
    for file in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            for keyword in call.keywords if isinstance(call, ast.Call) else ():
                literal = isinstance(keyword.value, ast.Constant) and keyword.value.value
                assert not (keyword.arg == "trust_remote_code" and literal), f"{file}:{call.lineno}"
