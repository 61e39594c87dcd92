"""The door opens at once: nothing heavy is imported before it is needed, and PEFT knows the bottleneck all the same."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from regraft.cli.main import COMMANDS

HEAVY = ("torch", "transformers", "peft", "datasets", "numpy", "scipy", "huggingface_hub")


def child(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", ["", "--version", "--help", *(f"{command} --help" for command in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    said = child(
        "import sys\n"
        f"sys.argv = ['regraft', *{arguments.split()!r}]\n"
        "from regraft.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert said.endswith("[]\n")
    assert max(map(len, said.splitlines())) <= 80
    if arguments.removesuffix(" --help") in COMMANDS:
        assert "Example: regraft" in said
        options = [line for line in said.splitlines() if line.startswith("  ")]
        assert all(re.match(r"  (--|[A-Z])", line) for line in options)  # a line an option


def test_importing_regraft_imports_nothing_heavy() -> None:
    assert child(f"import sys, regraft; print([name for name in {HEAVY!r} if name in sys.modules])") == "[]\n"
    names = child("import regraft; print([getattr(regraft, name).__name__ for name in regraft.__all__])")
    assert "transfer" in names


KNOWN = "from peft import PeftType, get_peft_model; print(PeftType.BOTTLENECK.value)"


@pytest.mark.parametrize(
    "code",
    [
        f"import regraft; {KNOWN}",
        f"import peft, regraft; {KNOWN}",
        f"import regraft, peft.utils; {KNOWN}",
        "import os, regraft\n"
        "if os.fork() == 0:\n    from peft import PeftType\n    print(PeftType.BOTTLENECK.value, flush=True)\n"
        "    os._exit(0)\nos.wait()",
    ],
    ids=["regraft first", "peft first", "a part of peft first", "after a fork"],
)
def test_peft_knows_the_bottleneck(code: str) -> None:
    assert child(code) == "BOTTLENECK\n"


@pytest.mark.parametrize("order", ["import regraft, peft", "import peft, regraft"])
def test_auto_classes_load_a_bottleneck(
    order: str, make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    module = make_module(make_model(layers=2), "bottleneck")
    code = (
        f"{order}\nprint(type(peft.AutoPeftModelForFeatureExtraction.from_pretrained({module!r}).base_model).__name__)"
    )
    assert child(code) == "BottleneckModel\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_they_say(name: str) -> None:
    place, summary = COMMANDS[name]
    module, _, function = place.partition(":")
    command = getattr(importlib.import_module(f"regraft.cli.{module}"), function)
    assert command.__doc__.splitlines()[0] == summary
