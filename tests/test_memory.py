"""What a port in sequence is expected to take is what its process takes, and what `plan` says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_texts

import regraft
from regraft.activations.shelf import Shelf
from regraft.errors import SamplingError
from regraft.port.pipeline import Port

# The port of a small pair comes first: libraries are there, then. Figures are in kB.
# Weights are pages of a file, which a system short of memory takes back; locked they stay, where that is allowed.
CHILD = """
import ctypes
import sys
from pathlib import Path
import torch
import regraft
from regraft.port.pipeline import Port

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

torch.set_num_threads(1)
ctypes.CDLL(None).mlockall(1 | 2 | 4)  # MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT
texts, *names = sys.argv[1:]
texts = Path(texts).read_text().splitlines()
for module, student, teacher in (names[:3], names[3:]):
    port = Port.of(regraft.load(module), student, teacher, texts=texts, quiet=True)
    expected, before = port.memory.total, status("VmRSS")
    port.fitted
print(expected / 1024, status("VmHWM") - before)
"""


def expected_and_found(names: list[str], tmp_path: Path) -> tuple[float, float]:
    """Port the first three, then the others, in a process of its own; kB that were expected, and that it took."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(" ".join(make_texts(5, seed)) for seed in range(60)))
    # What is given back is given back to the system.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(texts), *names], env=environment, check=True, capture_output=True, text=True
    )
    expected, found = map(float, child.stdout.split()[-2:])
    return expected, found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system tells no peak")
@pytest.mark.parametrize(
    ("model_type", "widths", "targets"), [("bert", (640, 640), ["query", "value"]), ("llama", (256, 192), None)]
)
def test_the_expected_peak_is_that_of_the_process(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    model_type: str,
    widths: tuple[int, int],
    targets: list[str] | None,
) -> None:
    """Weights and moments of the first, activations and maps of the second make most of it."""
    targets = targets or ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    names = []
    for wide_t, wide_s in ((32, 32), widths):
        teacher, student = make_model(model_type, wide_t, layers=2), make_model(model_type, wide_s, layers=2, seed=1)
        names += [make_module(teacher, target_modules=targets), student, teacher]
    expected, found = expected_and_found(names, tmp_path)
    assert expected == pytest.approx(found, rel=0.15)


@pytest.mark.slow
@pytest.mark.skipif(
    "REGRAFT_LARGE" not in os.environ, reason="set REGRAFT_LARGE=1: it takes 8 GB and a quarter of an hour"
)
def test_the_expected_peak_of_real_shapes_is_that_of_the_process(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    """Two layers of LLaMA 2 7B and of Llama 3 8B, in their precision."""
    both = {"num_attention_heads": 32, "head_dim": 128, "dtype": "bfloat16"}
    old, new = ({"num_key_value_heads": heads, "intermediate_size": wide} for heads, wide in ((32, 11008), (8, 14336)))
    names = []
    for wide, of_teacher, of_student in ((32, {}, {}), (4096, {**both, **old}, {**both, **new})):
        teacher = make_model("llama", wide, layers=2, **of_teacher)
        student = make_model("llama", wide, layers=2, seed=1, **of_student)
        names += [make_module(teacher, target_modules=["q_proj", "v_proj"]), student, teacher]
    expected, found = expected_and_found(names, tmp_path)
    print(f"expected {expected:.0f} kB, found {found:.0f} kB")
    assert expected == pytest.approx(found, rel=0.1)


def test_what_memory_has_no_room_for_is_on_disk(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    teacher, student = make_model(layers=4), make_model("distilbert", width=48, layers=2, unigram=True)
    module = regraft.load(make_module(teacher, labels=3))
    texts = make_texts(60)
    whole, budget, none = (
        Port.of(module, student, teacher, texts=texts, hold_memory=hold).memory for hold in (4, 1e-4, 0)
    )
    assert whole is not None
    assert budget is not None
    assert none is not None
    assert (whole.on_disk, none.held) == (0, 0)
    assert none.on_disk == whole.held == budget.held + budget.on_disk
    assert budget.held == 100_000
    assert none.total == whole.total - whole.held
    assert "GB more on disk" in str(none)
    assert Port.of(module, student, teacher, texts=texts, sequential=False).memory is None
    for few in (["sun", "moon"], ["?", "!"]):
        with pytest.raises(SamplingError, match="expected at least 64"):
            _ = Port.of(module, student, teacher, texts=few).memory


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_held_is_what_was_expected(
    make_model: Callable[..., str], make_module: Callable[..., str], monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Of one model at a time the teacher's whole half is held, with the weights that outputs are worked out by."""
    held: dict[object, int] = {}
    peaks = []
    hold, drop = Shelf.__setitem__, Shelf.drop

    def holding(shelf: Shelf, key: Any, tensor: torch.Tensor) -> None:
        hold(shelf, key, tensor)
        held[key] = tensor.nbytes
        peaks.append(sum(held.values()))

    def dropping(shelf: Shelf, key: Any) -> None:
        drop(shelf, key)
        held.pop(key, None)

    monkeypatch.setattr(Shelf, "__setitem__", holding)
    monkeypatch.setattr(Shelf, "drop", dropping)
    teacher, student = make_model("llama", layers=4), make_model("qwen2", width=48, layers=4)
    module = regraft.load(make_module(teacher))
    port = Port.of(module, student, teacher, texts=make_texts(60), quiet=True, one_at_a_time=alone)
    assert port.fitted.moved.keys() >= module.tensors.keys()
    assert port.memory is not None
    assert port.memory.held == pytest.approx(max(peaks), rel=0.1)


def test_one_model_at_a_time_and_a_gpu_are_told_apart(
    make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    """A configuration is enough, also of a device that is not there."""
    teacher, student = make_model(layers=4, width=96), make_model(layers=2, width=48)
    module, texts = regraft.load(make_module(teacher)), make_texts(60)
    sizes = [
        sum(parameter.numel() for parameter in transformers.AutoModel.from_pretrained(base).parameters()) * 4
        for base in (teacher, student)
    ]
    both, alone, gpu = (
        Port.of(module, student, teacher, texts=texts, **how).memory
        for how in ({"device": "cpu"}, {"device": "cpu", "one_at_a_time": True}, {"device": "cuda"})
    )
    assert both is not None
    assert alone is not None
    assert gpu is not None
    assert both.weights == gpu.weights == sum(sizes)
    assert alone.weights in sizes
    assert alone.total < both.total
    assert alone.held > both.held
    assert (both.gpu, gpu.gpu) == (0, gpu.weights + gpu.taking)
    assert gpu.total == gpu.held + gpu.fitting
    assert re.search(r"memory: \S+ GB on the GPU \(weights \S+, moments \S+\) and \S+ GB beside Python", str(gpu))


def test_plan_says_what_a_port_in_sequence_will_take(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, run: Callable[..., tuple]
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2, width=48)
    (tmp_path / "texts.txt").write_text("\n".join(make_texts(60)))
    command = ("plan", make_module(teacher), "--student", student, "--texts", tmp_path / "texts.txt")
    code, output, _ = run(*command)
    assert code == 0
    assert re.search(r"Expected peak memory: [\d.e-]+ GB beside Python and its libraries \(weights", output)
    assert "peak memory" not in run(*command, "--apart")[1]
