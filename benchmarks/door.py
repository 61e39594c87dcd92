"""What it costs to open the door: CPU time of imports, of help, and of a port that needs no weights.

    python benchmarks/door.py

Every figure is the least of five runs, user and system time of the whole process; ratios are within this one run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from _common import markdown
from safetensors.torch import save_file
from transformers import XLMRobertaConfig

RUNS = 5
HELP = ("plan", "transfer", "sample", "train", "evaluate", "distill", "convert", "report", "demo", "experiment run")


def cpu(*arguments: str) -> float:
    """Seconds of CPU time that ``python ARGUMENTS`` takes."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took = []
    for _ in range(RUNS):
        before = spent()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        took.append(spent() - before)
    return min(took)


def lora(folder: Path) -> list[str]:
    """Write a LoRA of 24 layers, and two models of which only the configurations exist; return a command."""
    shape = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 250_002}
    for name, layers in (("teacher", 24), ("student", 12)):
        XLMRobertaConfig(num_hidden_layers=layers, **shape).save_pretrained(folder / name)
    keys = [f"{layer}.attention.self.{part}" for layer in range(24) for part in ("query", "value")]
    tensors = {f"base_model.model.encoder.layer.{key}.lora_A.weight": torch.randn(8, 1024) for key in keys}
    tensors |= {f"base_model.model.encoder.layer.{key}.lora_B.weight": torch.randn(1024, 8) for key in keys}
    (folder / "lora").mkdir()
    save_file(tensors, folder / "lora" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["query", "value"]}
    config["base_model_name_or_path"] = str(folder / "teacher")
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(config))
    command = ["-m", "regraft", "transfer", str(folder / "lora"), "--student", str(folder / "student")]
    return [*command, "--out", str(folder / "out"), "--replace"]


def main() -> None:
    pytorch = cpu("-c", "import torch")
    libraries = cpu("-c", "import torch, peft; from transformers import AutoConfig")
    rows = [["import torch", f"{pytorch:.2f} s", "", ""]]

    def row(what: str, reference: str, least: float, aim: str, *arguments: str) -> None:
        took = cpu(*arguments)
        rows.append([what, f"{took:.2f} s", f"{took / least:.2f} of {reference}", aim])

    row("import regraft", "import torch", pytorch, "0.1", "-c", "import regraft")
    for option in ("--version", "--help"):
        row(f"regraft {option}", "import torch", pytorch, "0.25", "-m", "regraft", option)
    for command in HELP:
        row(f"regraft {command} --help", "import torch", pytorch, "0.4", "-m", "regraft", *command.split(), "--help")
    rows.append(["import torch, PEFT, transformers' configuration", f"{libraries:.2f} s", "", ""])
    with tempfile.TemporaryDirectory() as folder:
        command = lora(Path(folder))
        row("matching port of a 24-layer LoRA", "the imports", libraries, "1.3", *command)
    print(markdown(["what", "CPU time", "ratio", "aim, at most"], rows))


if __name__ == "__main__":
    main()
