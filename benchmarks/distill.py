"""Does distilling the student help what is ported to it? Real encoder, real data, several seeds, one table.

Teacher: the MiniLM encoder (6 layers, 384 wide). Students: its layers 0, 2 and 4, as they are and distilled on the
sentences of WikiNEuRal's English validation file, without their tags. Task: WikiNEuRal, English; its test file is seen
by nothing before the scores. All starts get the same training and, per seed, the same order of the data and the same
first values of a fresh head; "+ head" starts from the teacher's. tm-last takes the last layer of each group of two.

    REGRAFT_DATA=... python benchmarks/distill.py --out results/

A run that was stopped goes on where it was. An hour and a half on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from _common import begin, data_folder, f1_of, f1_of_start, f1_table, markdown, minilm, shallower
from datasets import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from regraft.distillation import distill as distillation
from regraft.settings import Settings
from regraft.texts import read_texts

LAYERS = [0, 2, 4]
RATE = {"lora": 2e-3, "bottleneck": 1e-3}
STARTS = {
    "random": None,
    "tm-skip": ([0, 2, 4], "fresh"),
    "tm-last": ([1, 3, 5], "fresh"),
    "tm-skip + head": ([0, 2, 4], "teacher"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models, modules, curves and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peft", nargs="+", default=["lora", "bottleneck"], choices=("lora", "bottleneck"))
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
    out = begin(arguments)

    students = {
        "untrained": shallower(teacher, LAYERS, out / "untrained"),
        "distilled": str(out / "distilled"),
    }
    report = out / "distilled" / "regraft.json"
    if not report.is_file():
        texts = read_texts(data / "en" / "val.conllu", limit=arguments.texts)
        settings = Settings(epochs=arguments.distill_epochs, learning_rate=arguments.distill_rate, save_every=100)
        distillation.distill(teacher, out / "distilled", texts, LAYERS, settings, progress=False)
    losses = json.loads(report.read_text())["distillation"]["losses"]
    rows = [[name, f"{value:.4f}", f"{losses['after'][name]:.4f}"] for name, value in losses["before"].items()]
    table = markdown(["held-out loss", "untrained", "distilled"], rows)
    print(table, flush=True)

    scores: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for peft in arguments.peft:
        settings = Settings(
            epochs=arguments.epochs,
            learning_rate=RATE[peft],
            max_train=arguments.train,
            max_eval=arguments.test,
            bottleneck_size=48,
        )
        longer = replace(settings, epochs=1.5 * arguments.epochs, max_train=2 * arguments.train)
        above = out / f"{peft}-teacher"
        scores[peft, "teacher", ""] = [f1_of(teacher, above, peft, None, data, settings=longer)]
        for student, model in students.items():
            for start, ported in STARTS.items():
                name = str(out / f"{peft}-{student}")
                scores[peft, student, start] = f1_of_start(
                    start, ported, above, model, name, arguments.seeds, peft, data, settings
                )
    table += "\n\n" + f1_table(("module", "model", "start"), scores)
    (out / "table.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
