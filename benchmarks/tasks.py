"""Every task and language there is data for, end to end from local files: train a teacher, port, train students, score.

    REGRAFT_DATA=... python benchmarks/tasks.py --out results/ [--student DIR]

Teacher: the MiniLM encoder. Student: a directory (`regraft distill` makes one), by default MiniLM's layers 0, 2 and 4
as they are. The paper's tables in small: one module kind, one seed and a short training per cell, the same for every
start. MiniLM was pretrained on English, and its vocabulary hardly holds Cyrillic or Chinese: the other languages show
that the walk works, not what the method can do. A run that was stopped goes on where it was. About half an hour on 2
CPU cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from _common import data_folder, markdown, minilm, shallower
from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

import regraft
from regraft.settings import Settings
from regraft.tasks.records import TASKS
from regraft.training import evaluate, train

CELLS = [
    *(("ner", "wikineural", language) for language in ("en", "de", "es", "ru")),
    *(("pi", "pawsx", language) for language in ("en", "de", "fr", "zh")),
    *(("nli", "xnli", language) for language in ("en", "de", "fr", "ru", "zh")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for modules and results")
    parser.add_argument("--student", type=Path, help="directory of a student of MiniLM")
    parser.add_argument("--peft", default="lora", choices=("lora", "bottleneck"))
    arguments = parser.parse_args()
    disable_progress_bars()
    disable_progress_bar()
    teacher = minilm()
    student = str(arguments.student or shallower(teacher, [0, 2, 4], arguments.out / "student"))
    rows = []
    for task, name, language in CELLS:
        data, metric = data_folder() / name, TASKS[task].metrics[-1]
        folder = arguments.out / f"{task}-{language}"

        def run(what: str, model: str, init: Path | None, epochs: float, count: int) -> float:
            out = folder / what  # noqa: B023 (used within the iteration)
            if not (out / "regraft.json").is_file():
                settings = Settings(epochs=epochs, learning_rate=2e-3, max_length=128, max_train=count, max_eval=500)
                train(model, out, arguments.peft, init, data, language, task, settings, progress=False)  # noqa: B023
            return float(json.loads((out / "regraft.json").read_text())["training"]["scores"]["test"][metric])  # noqa: B023

        above = run("teacher", teacher, None, 2, 2250)
        ported = regraft.transfer(regraft.load(folder / "teacher"), student, teacher)
        ported.save(folder / "ported", replace=True)
        settings = Settings(max_length=128, max_eval=500)
        before = evaluate(folder / "ported", student, data, language, task, settings=settings, progress=False)[metric]
        random = run("student", student, None, 1, 1125)
        skip = run("tm-skip", student, folder / "ported", 1, 1125)
        rows.append([task, language, *(f"{score:.1f}" for score in (above, random, before, skip))])
        print(rows[-1], flush=True)
    header = ["task", "language", "teacher", "student (random)", "tm-skip + head, untrained", "tm-skip + head, trained"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
