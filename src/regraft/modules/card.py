"""The README.md beside a module or a student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..tasks.records import metric_named
from .peft_types import PEFT_TYPES


def model_card(config: Mapping[str, Any], provenance: Mapping[str, Any], adapterhub: bool = False) -> str:
    """Write a model card for a module that regraft trained, ported or converted.

    Args:
        config: its PEFT configuration.
        provenance: the content of its ``regraft.json``.
        adapterhub: whether the directory is one for AdapterHub's library, not for PEFT.
    """
    # AdapterHub's library goes by its old name on the hub.
    library, tag = ("adapters", "adapter-transformers") if adapterhub else ("peft", "peft")
    method = PEFT_TYPES.get(config["peft_type"])
    return _fill(
        "module.md",
        # AdapterHub's modules may name no base model.
        ModelCardData(base_model=config.get("base_model_name_or_path"), library_name=library, tags=["regraft", tag]),
        {
            **provenance,
            "peft_type": config["peft_type"],
            "written": lambda name, score: f"{score:.{metric_named(name).digits}f}",
            "adapterhub": adapterhub,
            "ours": method is not None and method.ours,  # registered by importing regraft
        },
    )


def student_card(provenance: Mapping[str, Any]) -> str:
    """Write a model card for a student that regraft distilled.

    Args:
        provenance: the content of its ``regraft.json``.
    """
    report = provenance["distillation"]
    data = ModelCardData(base_model=report["teacher"], library_name="transformers", tags=["regraft", "distillation"])
    return _fill("student.md", data, {**report, "versions": provenance["versions"]})


def _fill(template: str, data: ModelCardData, values: Mapping[str, Any]) -> str:
    path = Path(__file__).parent / "templates" / template
    card = ModelCard.from_template(data, str(path), **values)
    return f"{card}\n"
