"""Does distilling the student help what is ported to it? Real encoder, real data, several seeds, one table.

Teacher: the MiniLM encoder (6 layers, 384 wide). Students: its layers 0, 2 and 4, as they are and distilled on the
sentences of WikiNEuRal's English validation file, without their tags. Task: WikiNEuRal, English; its test file is seen
by nothing before the scores. All starts get the same training; per seed they share the task head's first values and
the order of the data, or start with the teacher's ("+ head").

    REGRAFT_DATA=... python benchmarks/distill.py --out results/

A run that was stopped goes on where it was. Three quarters of an hour on 2 CPU cores.
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
from regraft import training
from regraft.distillation import distill as distillation
from regraft.settings import Settings
from regraft.texts import read_texts

LAYERS = [0, 2, 4]
PEFT, RATE = "bottleneck", 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, modules, curves and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=None, help="sentences to distill on; by default all")
    parser.add_argument("--distill-epochs", type=float, default=2.0, help="epochs of the distillation")
    parser.add_argument("--distill-rate", type=float, default=1e-3, help="its learning rate")
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

    students = {
        "untrained": shallower(teacher, LAYERS, arguments.out / "untrained"),
        "distilled": str(arguments.out / "distilled"),
    }
    report = arguments.out / "distilled" / "regraft.json"
    if not report.is_file():
        texts = read_texts(data / "en" / "val.conllu", limit=arguments.texts)
        settings = distillation.Settings(
            epochs=arguments.distill_epochs, learning_rate=arguments.distill_rate, save_every=100
        )
        distillation.distill(teacher, arguments.out / "distilled", texts, LAYERS, settings, progress=False)
    losses = json.loads(report.read_text())["distillation"]["losses"]
    rows = [[name, f"{value:.4f}", f"{losses['after'][name]:.4f}"] for name, value in losses["before"].items()]
    table = markdown(["held-out loss", "untrained", "distilled"], rows)
    print(table, flush=True)

    def run(model: str, out: Path, seed: int, init: Path | None, count: int, epochs: float) -> dict[str, float]:
        if not (out / "regraft.json").is_file():
            settings = Settings(
                epochs=epochs,
                learning_rate=RATE,
                seed=seed,
                max_train=count,
                max_eval=arguments.test,
                bottleneck_size=48,
            )
            training.train(model, out, PEFT, init, data, settings=settings, progress=False)
        result = json.loads((out / "regraft.json").read_text())["training"]["scores"]
        curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
        by_epoch = [row["f1"] for row in curve if "f1" in row]
        print(out.name, {split: round(values["f1"], 1) for split, values in result.items()}, flush=True)
        return {"before": by_epoch[0], "epoch 1": by_epoch[1], "test": result["test"]["f1"]}

    above = arguments.out / "teacher"
    scores = {("teacher", "random"): [run(teacher, above, 0, None, 2 * arguments.train, 1.5 * arguments.epochs)]}
    for student, model in students.items():
        for start, head in (("random", None), ("tm-skip", "fresh"), ("tm-skip + head", "teacher")):
            name = f"{student}-{start.replace(' + ', '+')}"
            init = None
            if head is not None:
                init = arguments.out / f"{name}-init"
                regraft.transfer(regraft.load(above), model, layers=LAYERS, head=head).save(init, replace=True)
            for seed in arguments.seeds:
                out = arguments.out / f"{name}-{seed}"
                result = run(model, out, seed, init, arguments.train, arguments.epochs)
                scores.setdefault((student, start), []).append(result)

    rows = []
    for (model, start), results in scores.items():
        columns = []
        for name in ("before", "epoch 1", "test"):
            values = [result[name] for result in results]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            columns.append(f"{mean(values):.1f}{spread}")
        rows.append([model, start, *columns])
    table += "\n\n" + markdown(["model", "start", "before training", "validation F1, epoch 1", "test F1"], rows)
    (arguments.out / "table.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
