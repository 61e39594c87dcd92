"""The README.md beside a module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


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
    bottleneck = (
        ["import regraft  # makes PEFT know bottleneck adapters"] if config["peft_type"] == "BOTTLENECK" else []
    )
    load = 'model = PeftModel.from_pretrained(base_model, "path/of/this/directory")'
    return [*bottleneck, "from peft import PeftModel", "", load]


def _ported(port: Mapping[str, Any]) -> list[str]:
    actions = Counter(tensor["action"] for tensor in port["tensors"].values())
    return [
        f"Ported from `{port['module']}` (trained on {port['teacher']}), not trained since unless said below.",
        "",
        "| | |",
        "|---|---|",
        f"| layers | {port['layers']} |",
        f"| alignment | {port['align']} |",
        f"| spaces | {port['spaces']} |",
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
