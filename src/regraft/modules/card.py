"""The README.md beside a module or a student."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .peft_types import PEFT_TYPES


def model_card(config: Mapping[str, Any], provenance: Mapping[str, Any], adapterhub: bool = False) -> str:
    """Write a model card for a module that regraft trained, ported or converted.

    Args:
        config: its PEFT configuration.
        provenance: the content of its ``regraft.json``.
        adapterhub: whether the directory is one for AdapterHub's library, not for PEFT.
    """
    base = config.get("base_model_name_or_path")
    port, training = provenance.get("port"), provenance.get("training")
    # AdapterHub's library goes by its old name on the hub.
    library, tag = ("adapters", "adapter-transformers") if adapterhub else ("peft", "peft")
    named = [f"base_model: {base}"] if base else []  # AdapterHub's modules may name none
    lines = ["---", *named, f"library_name: {library}", f"tags: [regraft, {tag}]", "---", ""]
    lines += [f"# A {config['peft_type']} module" + (f" for {base}" if base else ""), ""]
    if port:
        lines += _ported(port)
    if training:
        lines += _trained(training)
    lines += ["## Use", "", "```python", *_use(config, adapterhub), "```", ""]
    lines += [f"Written by regraft {provenance['versions']['regraft']}; `regraft.json` has every detail.", ""]
    return "\n".join(lines)


def _use(config: Mapping[str, Any], adapterhub: bool) -> list[str]:
    if adapterhub:
        return [
            "from adapters import AutoAdapterModel",
            "",
            f"model = AutoAdapterModel.from_pretrained({config.get('base_model_name_or_path')!r})",
            'model.load_adapter("path/of/this/directory", set_active=True)',
        ]
    method = PEFT_TYPES.get(config["peft_type"])
    register = ["import regraft  # makes PEFT know bottleneck adapters"] if method is not None and method.ours else []
    load = 'model = PeftModel.from_pretrained(base_model, "path/of/this/directory")'
    return [*register, "from peft import PeftModel", "", load]


def _ported(port: Mapping[str, Any]) -> list[str]:
    actions = Counter(tensor["action"] for tensor in port["tensors"].values())
    return [
        f"Ported from `{port['module']}` (trained on {port['teacher']}), not trained since unless said below.",
        "",
        "| | |",
        "|---|---|",
        f"| layers | {port['layers']} |",
        f"| alignment | {port['align']}{', fitted in sequence' if port.get('sequential') else ''} |",
        f"| spaces | {port['spaces']} |",
        *([f"| scale | {port['scale']:g} |"] if port.get("scale", 1) != 1 else []),  # ports of old have none
        f"| sampled | {port['sampled'] or 'nothing'} |",
        f"| seed | {port['seed']} |",
        f"| tensors | {', '.join(f'{count} {action}' for action, count in sorted(actions.items()))} |",
        f"| left behind | {len(port['left'])} of the teacher's tensors |",
        "",
    ]


def _trained(training: Mapping[str, Any]) -> list[str]:
    scores = training["scores"]
    rows = [f"| {split} | {name} | {value:.2f} |" for split, values in scores.items() for name, value in values.items()]
    return [
        f"Trained on {training['task']} ({training['data']}) with seed {training['seed']}.",
        "",
        "| split | metric | score |",
        "|---|---|---|",
        *rows,
        "",
    ]


def student_card(provenance: Mapping[str, Any]) -> str:
    """Write a model card for a student that regraft distilled.

    Args:
        provenance: the content of its ``regraft.json``.
    """
    report = provenance["distillation"]
    texts, losses = report["texts"], report["losses"]
    learned = "predictions and last hidden states" if report["language_model"] else "hidden states"
    return "\n".join(
        [
            "---",
            f"base_model: {report['teacher']}",
            "library_name: transformers",
            "tags: [regraft, distillation]",
            "---",
            "",
            f"# A student of {report['teacher']} with {len(report['layers'])} layers",
            "",
            f"Made of the teacher's layers {', '.join(map(str, report['layers']))} (0-based), and distilled from its "
            f"{learned} on {texts['train']} texts with seed {report['seed']}; not trained on any task.",
            "",
            f"| on {texts['held_out']} held-out texts | before | after |",
            "|---|---|---|",
            *(f"| {name} | {value:.4f} | {losses['after'][name]:.4f} |" for name, value in losses["before"].items()),
            "",
            "## Use",
            "",
            "```python",
            "from transformers import AutoModel",
            "",
            'model = AutoModel.from_pretrained("path/of/this/directory")',
            "```",
            "",
            f"Written by regraft {provenance['versions']['regraft']}; `regraft.json` has every detail.",
            "",
        ]
    )
