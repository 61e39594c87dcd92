"""What both environments share: where things are, what a model gives, and the table of results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

TOLERANCE = 1e-5
ADAPTER, EXPECTED = "adapter", "expected.safetensors"


def bases(out: Path) -> Path:
    """Folder of the base models, one per model type."""
    return out / "bases"


def ours(out: Path) -> Path:
    """Folder of what regraft wrote, one folder per case."""
    return out / "ours"


def theirs(out: Path) -> Path:
    """Folder of what AdapterHub's library wrote, one folder per case."""
    return out / "theirs"


def model_type(case: Path) -> str:
    """Model type of a case, the first word of its name."""
    return case.name.split(" ")[0]


def input_ids() -> torch.Tensor:
    return torch.randint(5, 100, (3, 12), generator=torch.Generator().manual_seed(0))


def result(model: Any) -> torch.Tensor:
    """Logits of a model with a head, hidden states of one without."""
    with torch.no_grad():
        output = model.eval()(input_ids(), return_dict=True)
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]])
    return output["logits"] if "logits" in output else output["last_hidden_state"]


def perturb(model: torch.nn.Module) -> None:
    """Give all that trains weights that differ from each other and from zero."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)


class Table:
    """One line per case, and the exit status."""

    def __init__(self) -> None:
        self.failed = 0
        self.cases = 0

    def add(self, case: Path, keys: list[str], found: torch.Tensor, expected: torch.Tensor) -> None:
        """Print a case.

        Args:
            case: its folder.
            keys: tensors that were missing or not expected.
            found: what the model gives.
            expected: what it ought to give.
        """
        same = found.shape == expected.shape
        difference = float((found - expected).abs().max()) if same else float("inf")
        good = not keys and difference <= TOLERANCE
        self.cases += 1
        self.failed += not good
        print(f"{'ok' if good else 'FAILED':<8}{case.name:<66}{difference:<12.1e}{'; '.join(keys)}")

    def finish(self) -> None:
        print(f"{self.cases} cases, {self.failed} failed")
        sys.exit(1 if self.failed or not self.cases else 0)
