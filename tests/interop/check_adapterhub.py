"""Step 2, in the environment of requirements.txt: AdapterHub's library loads what regraft wrote, and gives the same.

It then writes directories of its own, with flexible heads and with those of transformers' classes, for step 3.

Usage: python tests/interop/check_adapterhub.py OUT
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import adapters
import transformers
from adapters import AutoAdapterModel
from common import ADAPTER, EXPECTED, Table, bases, model_type, ours, perturb, result, theirs
from safetensors.torch import load_file, save_file

CONFIGS = {"LoRA": adapters.LoRAConfig(r=4, alpha=6), "bottleneck": adapters.SeqBnConfig(reduction_factor=6)}
# What makes a flexible head compute what the transformers class's head does.
CLASSIFIES = {
    "bert": {"layers": 1, "use_pooler": True},
    "roberta": {"layers": 2, "activation_function": "tanh"},
    "xlm-roberta": {"layers": 2, "activation_function": "tanh"},
    "electra": {"layers": 2, "activation_function": "gelu"},
    "distilbert": {"layers": 2, "activation_function": "relu"},
}
LABELS = {"no": 0, "maybe": 1, "yes": 2}
NAMES = {row: label for label, row in LABELS.items()}


def check(case: Path, base: Path, table: Table) -> None:
    model = AutoAdapterModel.from_pretrained(base)
    info: dict[str, list[str]] = {}
    name = model.load_adapter(str(case / ADAPTER), set_active=True, loading_info=info)
    assert name == "ours", name
    wrong = [f"{kind} {key}" for kind in ("missing_keys", "unexpected_keys") for key in info[kind]]
    table.add(case, wrong, result(model), load_file(case / EXPECTED)["output"])


def write(case: Path, model: Any, config: Any, head: str | None) -> None:
    """Write a directory as the library's users do, with the outputs the library gives."""
    model.add_adapter("theirs", config=config)
    if head == "tagging":
        model.add_tagging_head("theirs", num_labels=3, id2label=NAMES)
    elif head == "classification":
        model.add_classification_head("theirs", num_labels=3, id2label=NAMES, **CLASSIFIES[model_type(case)])
    elif head == "question answering":
        model.add_qa_head("theirs")
    model.train_adapter("theirs")
    perturb(model)
    case.mkdir(parents=True)
    model.save_adapter(str(case / ADAPTER), "theirs")
    save_file({"output": result(model).contiguous()}, case / EXPECTED)


def write_all(folder: Path, base: Path) -> None:
    for name, config in CONFIGS.items():
        for head in (None, "tagging", "classification", "question answering"):
            case = folder / f"{base.name} {name} with {head or 'no'} head"
            write(case, AutoAdapterModel.from_pretrained(base), config, head)
        for ending in ("TokenClassification", "SequenceClassification", "QuestionAnswering"):
            auto_class = getattr(transformers, f"AutoModelFor{ending}")
            labels = {} if ending == "QuestionAnswering" else {"id2label": NAMES, "label2id": LABELS}
            model = auto_class.from_pretrained(base, **labels)
            adapters.init(model)
            write(folder / f"{base.name} {name} in its class For{ending}", model, config, None)


def main(out: Path) -> None:
    transformers.logging.set_verbosity_error()
    logging.getLogger("adapters").setLevel(logging.ERROR)  # it warns of inactive adapters where they are active
    table = Table()
    for case in sorted(ours(out).iterdir()):
        check(case, bases(out) / model_type(case), table)
    for base in sorted(bases(out).iterdir()):
        write_all(theirs(out), base)
    table.finish()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
