"""Step 3, in regraft's environment: PEFT loads what AdapterHub's library wrote, through regraft, and gives the same.

Usage: python tests/interop/read_directories.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import transformers
from common import ADAPTER, EXPECTED, Table, bases, model_type, result, theirs
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

import regraft
from regraft.models.pretrained import HEAD_CLASSES


def check(case: Path, base: Path, table: Table) -> None:
    module = regraft.load(case / ADAPTER)
    module.save(case / "peft")
    auto_class = getattr(transformers, f"AutoModel{HEAD_CLASSES.get(module.config['task_type'], '')}")
    labels = {"num_labels": len(module.labels)} if module.labels else {}
    model = PeftModel.from_pretrained(auto_class.from_pretrained(base, **labels), str(case / "peft"))
    wrong = sorted(set(get_peft_model_state_dict(model)) ^ set(module.tensors))
    table.add(case, wrong, result(model), load_file(case / EXPECTED)["output"])


def main(out: Path) -> None:
    transformers.logging.set_verbosity_error()
    table = Table()
    for case in sorted(theirs(out).iterdir()):
        check(case, bases(out) / model_type(case), table)
    table.finish()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
