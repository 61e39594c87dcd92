"""The README.md beside a module or a student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..files.hub import fetched_commit
from ..files.writing import write_text
from ..models.pretrained import HEAD_CLASSES
from ..tasks.records import metric_named
from .peft_types import PEFT_TYPES
from .picture import port_picture

CARD, PICTURE = "README.md", "port.svg"

# What loads a directory -> its library and tag on the hub, where AdapterHub's goes by its old name.
_LIBRARIES = {
    "peft": ("peft", "transformers"),
    "adapterhub": ("adapters", "adapter-transformers"),
    "gguf": ("llama.cpp", "gguf"),
}
# PEFT's task type -> the hub's name of the task.
_PIPELINES = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "CAUSAL_LM": "text-generation",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}
HERE = "path/of/this/directory"


def model_card(
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    written_for: str = "peft",
    place: str = HERE,
    rows: int | None = None,
) -> str:
    """Write a model card for a module that regraft trained, ported or converted.

    Args:
        config: its PEFT configuration.
        provenance: the content of its ``regraft.json``.
        written_for: what loads the directory: ``"peft"``, ``"adapterhub"`` or ``"gguf"`` (llama.cpp).
        place: what to load it from: a path, or the id of a repository of the hub.
        rows: how many labels its task head has; None without one.
    """
    library, tag = _LIBRARIES[written_for]
    method = PEFT_TYPES.get(config["peft_type"])
    named = str(config.get("base_model_name_or_path") or "")  # AdapterHub's modules may name none
    base = _on_hub(named)
    # The tags of PEFT's own cards; the hub finds adapters by them.
    tags = ["regraft", tag, config["peft_type"].lower(), *([f"base_model:adapter:{base}"] if base else [])]
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        library_name=library,
        pipeline_tag=_PIPELINES.get(config.get("task_type") or ""),
        tags=sorted(tags),
    )
    return _fill(
        "module.md",
        data,
        {
            **provenance,
            "base": named,
            "place": place,
            "ending": HEAD_CLASSES.get(config.get("task_type") or ""),
            "rows": rows,
            "peft_type": config["peft_type"],
            "written": lambda name, score: f"{score:.{metric_named(name).digits}f}",
            "written_for": written_for,
            "picture": None if port_picture(provenance.get("port", {})) is None else PICTURE,
            "ours": method is not None and method.ours,  # registered by importing regraft
        },
    )


def write_card(
    directory: Path,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    written_for: str = "peft",
    place: str = HERE,
    rows: int | None = None,
) -> None:
    """Write the card of a module and, of one that was ported, the picture that it shows; arguments as `model_card`."""
    write_text(directory / CARD, model_card(config, provenance, written_for, place, rows))
    picture = port_picture(provenance.get("port", {}))
    if picture is not None:
        write_text(directory / PICTURE, picture)


def student_card(provenance: Mapping[str, Any]) -> str:
    """Write a model card for a student that regraft distilled.

    Args:
        provenance: the content of its ``regraft.json``.
    """
    report = provenance["distillation"]
    base = _on_hub(report["teacher"])
    data = ModelCardData(base_model=base, library_name="transformers", tags=["regraft", "distillation"])
    return _fill("student.md", data, {**report, "versions": provenance["versions"]})


def merged_card(provenance: Mapping[str, Any]) -> str:
    """Write a model card for a model with a module merged into it.

    Args:
        provenance: the content of its ``regraft.json``.
    """
    base = _on_hub(provenance["merged"]["base"])
    data = ModelCardData(base_model=base, library_name="transformers", tags=["regraft"])
    return _fill("merged.md", data, provenance)


def _on_hub(base: str) -> str | None:
    """Give the name of a base model of the hub; any other would point at a stranger's model, or be refused there."""
    return base if fetched_commit(base) else None


def _fill(template: str, data: ModelCardData, values: Mapping[str, Any]) -> str:
    path = Path(__file__).parent / "templates" / template
    card = ModelCard.from_template(data, str(path), **values)
    return f"{card}\n"
