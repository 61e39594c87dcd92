"""What a port costs, as ratios measured in one run on one machine.

    REGRAFT_DATA=... python benchmarks/speed.py

Five questions: what sampling, alignment and transfer cost on top of running the two models; what a port in sequence
does; how much faster one matrix product is than correlating column by column; whether memory grows with the number of
texts; how long a port between matching models takes. About twenty minutes on 2 CPU cores; ``--sequence`` asks the
second question alone.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _common import data_folder, markdown, minilm, shallower
from peft import LoraConfig, get_peft_model
from scipy.optimize import linear_sum_assignment
from sklearn.feature_selection import r_regression
from transformers import AutoModel, AutoTokenizer, BertConfig, LlamaConfig, XLMRobertaConfig
from transformers.utils.logging import disable_progress_bar

import regraft
from regraft.activations.options import RunOptions, SampleOptions
from regraft.activations.pairing import encode
from regraft.activations.sampling import sample
from regraft.alignment.moments import Moments, SplitMoments
from regraft.files.texts import read_texts
from regraft.models.pretrained import resolve
from regraft.models.sites import SpacePair
from regraft.port import candidates
from regraft.port.spaces import fit_pairs, space_pairs

BATCH, LENGTH = 32, 256
HEADER = ["what", "reference", "regraft", "ratio", "aim"]


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def lora(base: str, layers: int, width: int, path: str) -> regraft.Module:
    """Make a LoRA of random weights on query and value."""
    tensors = {}
    for layer in range(layers):
        for part in ("query", "value"):
            key = f"base_model.model.{path}.{layer}.attention.self.{part}.lora_"
            tensors |= {f"{key}A.weight": torch.randn(8, width), f"{key}B.weight": torch.randn(width, 8)}
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["query", "value"]}
    return regraft.Module({**config, "base_model_name_or_path": base}, tensors, "random LoRA")


def bare_passes(teacher: str, student: str, texts: list[str]) -> None:
    """Run both models over the same batches as sampling does, and nothing else."""
    ordered = sorted(texts, key=len)
    pairs = [
        (AutoModel.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)) for name in (teacher, student)
    ]
    with torch.inference_mode():
        for start in range(0, len(ordered), BATCH):
            for model, tokenizer in pairs:
                batch = encode(tokenizer, ordered[start : start + BATCH], LENGTH)
                model(input_ids=torch.from_numpy(batch.ids), attention_mask=torch.from_numpy(batch.attention))


def overhead(name: str, teacher: str, student: str, module: regraft.Module, texts: list[str], spaces: Any) -> list[str]:
    def port() -> None:
        options = {"batch_size": BATCH, "max_length": LENGTH, "progress": False}
        regraft.transfer(module, student, teacher, align="lsa", spaces=spaces, texts=texts, **options)

    bare_passes(teacher, student, texts[:64])
    rounds = [(seconds(lambda: bare_passes(teacher, student, texts)), seconds(port)) for _ in range(3)]
    bare, ported = (median(column) for column in zip(*rounds, strict=True))
    ratio = median(b / a for a, b in rounds)
    return [
        f"{name}, {len(texts)} sentences, {spaces}",
        f"{bare:.1f} s",
        f"{ported:.1f} s",
        f"{ratio:.2f}",
        "1.15 at most",
    ]


def in_sequence(name: str, teacher: str, student: str, sites: str, folder: Path, texts: list[str]) -> list[str]:
    """Compare the processor time of a port in sequence with that of two bare passes; that of the fits alone too."""
    model = get_peft_model(
        AutoModel.from_pretrained(teacher), LoraConfig(target_modules=sites, init_lora_weights=False)
    )
    model.save_pretrained(folder / "lora")
    module, fits = regraft.load(folder / "lora"), 0.0
    fit_pairs_unclocked = candidates.fit_pairs

    def clocked(*given: Any) -> Any:
        nonlocal fits
        start = time.process_time()
        done = fit_pairs_unclocked(*given)
        fits += time.process_time() - start
        return done

    def processor_seconds(work: Callable[[], Any]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    bare_passes(teacher, student, texts[:64])
    bare = processor_seconds(lambda: bare_passes(teacher, student, texts))
    candidates.fit_pairs = clocked
    options = {"align": "auto", "batch_size": BATCH, "max_length": LENGTH, "progress": False}
    ported = processor_seconds(lambda: regraft.transfer(module, student, teacher, texts=texts, **options))
    candidates.fit_pairs = fit_pairs_unclocked
    return [
        f"in sequence, {name}, {len(texts)} sentences",
        f"{bare:.1f} s",
        f"{ported:.1f} s, {fits:.1f} s of it fits",
        f"{ported / bare:.2f}; without fits {(ported - fits) / bare:.2f}",
        "2.0 at most for q,v; 2.5 for all",
    ]


def held(teacher: str, student: str, module: str, texts: Path) -> list[list[str]]:
    """Compare peak resident memory and processor time of ports in sequence: more sentences, and a budget for states."""
    rows, name = [], "peak memory and processor time in sequence,"
    for what, one, other in (
        ("1,000 / 10,000 sentences", ("1000", "4"), ("10000", "4")),
        ("10,000 sentences, 4 / 0.2 GB held", ("10000", "4"), ("10000", "0.2")),
    ):
        found = []
        for count, hold in (one, other):
            command = [sys.executable, __file__, "--port", teacher, student, module, str(texts), count, hold]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append([float(figure) for figure in result.stdout.split()[-2:]])
        told = [f"{memory:.0f} MB, {spent:.0f} s" for memory, spent in found]
        ratios = [after / before for before, after in zip(*found, strict=True)]
        rows.append([f"{name} {what}", *told, f"{ratios[0]:.2f}; {ratios[1]:.2f}", "1.2 in time at most for 0.2 GB"])
    return rows


def port_only(teacher: str, student: str, module: str, texts: str, count: str, hold: str) -> None:
    torch.set_num_threads(1)
    chosen, options = read_texts(Path(texts))[: int(count)], {"align": "auto", "max_length": 64, "progress": False}
    regraft.transfer(regraft.load(module), student, teacher, texts=chosen, hold_memory=float(hold), **options)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time())


LINEARS = r".*\.layer\..*\.(query|key|value|dense)"  # without the pooler's


def all_in_sequence(texts: list[str], data: Path) -> list[list[str]]:
    torch.set_num_threads(1)  # others wait in vain, and that counts as processor time
    with tempfile.TemporaryDirectory() as name:
        return list(rows_in_sequence(Path(name), texts, data))


def rows_in_sequence(folder: Path, texts: list[str], data: Path) -> Iterator[list[str]]:
    teacher, student = minilm(), shallower(minilm(), [0, 2, 4], folder / "half")

    def random(name: str, config: Any, layers: int) -> str:
        config.num_hidden_layers = layers
        torch.manual_seed(layers)
        AutoModel.from_config(config).save_pretrained(folder / f"{name}-{layers}")
        AutoTokenizer.from_pretrained(teacher).save_pretrained(folder / f"{name}-{layers}")
        return str(folder / f"{name}-{layers}")

    bert = BertConfig(hidden_size=256, num_attention_heads=4, intermediate_size=1024)
    llama = LlamaConfig(vocab_size=30522, hidden_size=256, intermediate_size=688, num_attention_heads=4)
    depths = {layers: random("bert", bert, layers) for layers in (24, 12, 6, 3)}
    decoders = [random("llama", llama, layers) for layers in (12, 6)]
    attention, halved = ["query", "value"], "x 256 to half as many layers, q,v"
    yield in_sequence("MiniLM 6 x 384 to 3, q,v", teacher, student, attention, folder, texts)
    yield in_sequence("MiniLM 6 x 384 to 3, all linears", teacher, student, LINEARS, folder, texts)
    for n in (6, 12, 24):
        yield in_sequence(f"BERT {n} {halved}", depths[n], depths[n // 2], attention, folder, texts)
    yield in_sequence("BERT 12 x 256 to 6, all linears", depths[12], depths[6], LINEARS, folder, texts)
    yield in_sequence("LLaMA 12 x 256 to 6, all linears", *decoders, "all-linear", folder, texts)
    lora(teacher, 6, 384, "encoder.layer").save(folder / "held")
    yield from held(teacher, student, str(folder / "held"), data)


def correlation() -> list[str]:
    torch.manual_seed(0)
    x_s, x_t = torch.randn(3000, 768), torch.randn(3000, 1024)
    space = SpacePair(0, 0, "attention_input")

    def per_column() -> None:
        columns = [r_regression(x_t.numpy(), x_s[:, i].numpy()) for i in range(768)]
        linear_sum_assignment(columns, maximize=True)

    def ours() -> None:
        moments = Moments.of(x_s, x_t)
        fit_pairs("lsa", {space: (768, 1024)}, {space: SplitMoments(moments, Moments.zeros(768, 1024))})

    ours()
    slow, fast = seconds(per_column), median(seconds(ours) for _ in range(5))
    name = "correlation and assignment, 1024 x 768, 3,000 tokens: per column | ours"
    return [name.replace("|", "/"), f"{slow:.2f} s", f"{fast:.3f} s", f"{slow / fast:.0f} times", "100 times at least"]


def peak_memory(teacher: str, student: str, texts: Path, **environment: str) -> list[str]:
    """Compare the peak resident memory of processes that sample 1,000 and 10,000 sentences."""
    peaks = []
    for count in ("1000", "10000"):
        command = [sys.executable, __file__, "--sample", teacher, student, str(texts), count]
        result = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
        peaks.append(float(result.stdout.split()[-1]))
    name = ", ".join(["peak memory, 1,000 / 10,000 sentences", *(f"{k}={v}" for k, v in environment.items())])
    return [name, f"{peaks[0]:.0f} MB", f"{peaks[1]:.0f} MB", f"{peaks[1] / peaks[0]:.2f}", "1.0"]


def sample_only(teacher: str, student: str, texts: str, count: str) -> None:
    pair = resolve(teacher), resolve(student)
    chosen = read_texts(Path(texts))[: int(count)]
    sample(
        *pair,
        space_pairs(*pair, "skip"),
        chosen,
        SampleOptions(batch_size=BATCH, max_length=64),
        RunOptions(quiet=True),
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def matching(folder: Path) -> list[str]:
    """Port a LoRA of 24 layers between models of which only the configurations exist."""
    shape = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 250_002}
    for name, layers in (("teacher-24", 24), ("student-12", 12)):
        XLMRobertaConfig(num_hidden_layers=layers, **shape).save_pretrained(folder / name)
    module = lora(str(folder / "teacher-24"), 24, 1024, "encoder.layer")
    module.save(folder / "lora-24")

    def port() -> None:
        ported = regraft.transfer(regraft.load(folder / "lora-24"), str(folder / "student-12"))
        ported.save(folder / "ported", replace=True)

    inside = median(seconds(port) for _ in range(3))
    command = ["-m", "regraft", "transfer", str(folder / "lora-24"), "--student", str(folder / "student-12")]
    whole = seconds(
        lambda: subprocess.run(
            [sys.executable, *command, "--out", str(folder / "ported"), "--replace"], check=True, capture_output=True
        )
    )
    return [
        "matching port of a 24-layer LoRA, no weights: command with imports / in Python",
        f"{whole:.1f} s",
        f"{inside:.2f} s",
        "",
        "under 3 s",
    ]


def main() -> None:
    data = data_folder() / "wikineural" / "en" / "test.conllu"
    texts = read_texts(data)
    disable_progress_bar()
    if sys.argv[1:] == ["--sequence"]:
        print(markdown(HEADER, all_in_sequence(texts[:300], data)))
        return
    rows = [correlation()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows.append(matching(folder))
        teacher, student = minilm(), shallower(minilm(), [0, 2, 4], folder / "student")
        rows.append(peak_memory(teacher, student, data))
        # Each shape of a batch leaves a compiled kernel in oneDNN's cache, whoever runs the model.
        rows.append(peak_memory(teacher, student, data, ONEDNN_PRIMITIVE_CACHE_CAPACITY="8"))
        module = lora(teacher, 6, 384, "encoder.layer")
        for spaces in ("released", "measured"):
            rows.append(overhead("MiniLM 6 x 384 to 3 x 384", teacher, student, module, texts[:2000], spaces))
        for base, layers in (("bert-12", 12), ("bert-6", 6)):
            torch.manual_seed(layers)
            AutoModel.from_config(BertConfig(num_hidden_layers=layers)).save_pretrained(folder / base)
            AutoTokenizer.from_pretrained(teacher).save_pretrained(folder / base)
        module = lora(str(folder / "bert-12"), 12, 768, "encoder.layer")
        pair = str(folder / "bert-12"), str(folder / "bert-6")
        for spaces in ("released", "measured"):
            rows.append(overhead("random 12 x 768 to 6 x 768", *pair, module, texts[:500], spaces))
    rows += all_in_sequence(texts[:300], data)
    print(markdown(HEADER, rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sample"]:
        sample_only(*sys.argv[2:])
    elif sys.argv[1:2] == ["--port"]:
        port_only(*sys.argv[2:])
    else:
        main()
