"""Does a ported module help a shallower student? Real encoder, real data, several seeds, one table.

Teacher: the MiniLM encoder (6 layers, 384 wide). Student: its layers 0, 2 and 4, not distilled. Task: WikiNEuRal,
English. All starts get the same training and, per seed, the same order of the data and the same first values of a fresh
task head; "+ head" starts from the teacher's.

    REGRAFT_DATA=... python benchmarks/wikineural.py --out results/

A run that was stopped goes on where it was. About an hour on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev

from _common import data_folder, markdown, minilm, shallower
from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

import regraft
from regraft.settings import Settings
from regraft.training import train

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
    arguments.out.mkdir(parents=True, exist_ok=True)
    described = json.dumps({name: str(value) for name, value in vars(arguments).items() if name != "seeds"})
    asked = arguments.out / "arguments.json"
    if asked.is_file() and asked.read_text() != described:
        sys.exit(f"{arguments.out} holds results of other arguments ({asked.read_text()}); choose another --out")
    asked.write_text(described)
    student = shallower(teacher, [0, 2, 4], arguments.out / "student")
    scores: dict[tuple[str, str], list[dict[str, float]]] = {}
    for peft, rate in LEARNING_RATE.items():

        def run(model: str, out: Path, seed: int, init: Path | None, count: int, epochs: float) -> dict[str, float]:
            if not (out / "regraft.json").is_file():
                settings = Settings(
                    epochs=epochs,
                    learning_rate=rate,  # noqa: B023 (used within the iteration)
                    seed=seed,
                    max_train=count,
                    max_eval=arguments.test,
                    bottleneck_size=48,
                )
                train(model, out, peft, init, data, settings=settings, progress=False)  # noqa: B023
            result = json.loads((out / "regraft.json").read_text())["training"]["scores"]
            curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
            by_epoch = [row["f1"] for row in curve if "f1" in row]
            print(out.name, {split: round(values["f1"], 1) for split, values in result.items()}, flush=True)
            return {"before": by_epoch[0], "epoch 1": by_epoch[1], "test": result["test"]["f1"]}

        above = arguments.out / f"{peft}-teacher"
        scores[peft, "teacher"] = [run(teacher, above, 0, None, 2 * arguments.train, 1.5 * arguments.epochs)]
        for start, ported in STARTS.items():
            name = f"{peft}-{start.replace(' + ', '+')}"
            for seed in arguments.seeds:
                init = None
                if ported is not None:
                    init = arguments.out / f"{name}-init"
                    layers, head = ported
                    regraft.transfer(regraft.load(above), student, layers=layers, head=head).save(init, replace=True)
                out = arguments.out / f"{name}-{seed}"
                result = run(student, out, seed, init, arguments.train, arguments.epochs)
                scores.setdefault((peft, start), []).append(result)

    rows = []
    for (peft, start), results in scores.items():
        columns = []
        for name in ("before", "epoch 1", "test"):
            values = [result[name] for result in results]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            columns.append(f"{mean(values):.1f}{spread}")
        rows.append([peft, start, *columns])
    header = ["module", "start", "before training", "validation F1, epoch 1", "test F1"]
    table = markdown(header, rows)
    (arguments.out / "table.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
