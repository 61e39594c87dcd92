"""Does a ported module help a shallower student? Real encoder, real data, several seeds, one table.

Teacher: the MiniLM encoder (6 layers, 384 wide). Student: its layers 0, 2 and 4, not distilled. Task: WikiNEuRal,
English. All starts get the same training and, per seed, the same order of the data and the same first values of a fresh
task head; "+ head" starts from the teacher's.

    REGRAFT_DATA=... python benchmarks/wikineural.py --out results/

A run that was stopped goes on where it was. About an hour on 2 CPU cores.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from _common import begin, data_folder, f1_of, f1_of_start, f1_table, minilm, shallower
from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from regraft.settings import Settings

LEARNING_RATE = {"bottleneck": 1e-3, "lora": 2e-3}
STARTS = {
    "student": None,
    "tm-avg_released": ("avg_released", "fresh"),
    "tm-avg": ("avg", "fresh"),
    "tm-skip": ("skip", "fresh"),
    "tm-skip + head": ("skip", "teacher"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for modules, curves and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=3000, help="training sentences of a student")
    parser.add_argument("--epochs", type=float, default=2.0, help="epochs of a student")
    parser.add_argument("--test", type=int, default=1000, help="validation and test sentences")
    arguments = parser.parse_args()
    disable_progress_bars()
    disable_progress_bar()
    data = data_folder() / "wikineural"
    teacher = minilm()
    out = begin(arguments)
    student = shallower(teacher, [0, 2, 4], out / "student")
    scores: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for peft, rate in LEARNING_RATE.items():
        settings = Settings(
            epochs=arguments.epochs,
            learning_rate=rate,
            max_train=arguments.train,
            max_eval=arguments.test,
            bottleneck_size=48,
        )
        longer = replace(settings, epochs=1.5 * arguments.epochs, max_train=2 * arguments.train)
        above = out / f"{peft}-teacher"
        scores[peft, "teacher"] = [f1_of(teacher, above, peft, None, data, settings=longer)]
        for start, ported in STARTS.items():
            scores[peft, start] = f1_of_start(
                start, ported, above, student, str(out / peft), arguments.seeds, peft, data, settings
            )
    table = f1_table(("module", "start"), scores)
    (out / "table.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
