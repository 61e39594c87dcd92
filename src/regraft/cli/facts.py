"""What can be told of a module, a model, a sample or a store of results, from its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from peft.utils import CONFIG_NAME

from ..activations.sampling import MANIFEST, load_sample
from ..errors import ModelError, ModuleFileError, RegraftError
from ..experiment.store import Store
from ..files.hub import locate, split_gguf
from ..models.pretrained import resolve
from ..models.sites import find_sites
from ..modules.inventory import take_inventory
from ..modules.module import Module, base_of, load
from ..modules.peft_types import PEFT_TYPES
from ..modules.tensors import head_rows

Facts = dict[str, Any]
"""Name of a fact -> a text, a number, a list of them, or None where nobody wrote it down."""


@dataclass(frozen=True)
class Kind:
    """A kind of thing that commands write or read.

    Attributes:
        name: what to call it.
        file: what a directory of it holds.
        tell: reads it.
    """

    name: str
    file: str
    tell: Callable[[str], Facts]


def facts_of(source: str) -> Facts:
    """Tell what is known of a directory, or of something on the hub, without running it.

    Args:
        source: of a module, a base model, a sample or a store of results; or a hub id of a module or a model.

    Raises:
        ModelError: it is none of them, or cannot be read.
    """
    place = locate(split_gguf(source)[0])
    if not isinstance(place, Path):
        return _on_hub(source)
    if not place.exists():
        raise ModelError(f"there is no {place}, expected {_expected()}")
    found = next((kind for kind in KINDS if (place / kind.file).exists()), None)
    if split_gguf(source)[1]:
        found = MODEL
    if found is None:
        raise ModelError(f"{place} is nothing that regraft knows, expected {_expected()}")
    return {"kind": found.name, "source": source, **found.tell(source)}


def _expected() -> str:
    return "one of " + ", ".join(f"a {kind.name} (with {kind.file})" for kind in KINDS)


def _on_hub(source: str) -> Facts:
    """A repository holds a module where it has a module's configuration."""
    try:
        return {"kind": MODULE.name, "source": source, **_module(source)}
    except ModuleFileError:
        return {"kind": MODEL.name, "source": source, **_model(source)}


def _module(source: str) -> Facts:
    module = load(source)
    config, provenance = module.config, module.provenance
    sites, unknown = _sites_of(module)
    return {
        "method": _method(module),
        "task type": config.get("task_type"),
        "base model": module.base_model or None,
        "sites": sites,
        "sites not known": unknown,
        "tensors": f"{len(module.tensors)}, {sum(tensor.nbytes for tensor in module.tensors.values()) / 1e6:.3g} MB",
        "head": None if (rows := head_rows(module.tensors)) is None else f"{rows} labels",
        "labels": ", ".join(module.labels) or None,
        "made": _made(module),
        "written with": _versions(provenance.get("versions", {})),
        "hash": _hash(module),
    }


# Options of PEFT's configurations that tell modules of one method apart, where they are set.
_SIZES = ("r", "lora_alpha", "bottleneck_size", "use_dora", "use_rslora")


def _method(module: Module) -> str:
    known = PEFT_TYPES.get(module.peft_type)
    said = ", ".join(f"{name} {module.config[name]}" for name in _SIZES if module.config.get(name))
    return f"{module.peft_type}{f' ({said})' if said else ''}{'' if known else ', which cannot be ported'}"


def _sites_of(module: Module) -> tuple[list[str] | None, str | None]:
    """Where the module sits, a line for each site; or why that is not known, its base model not being at hand, say."""
    try:
        inventory = take_inventory(module, base_of(module, option="--teacher or --model of other commands").family)
    except RegraftError as error:
        return None, str(error)
    layers: dict[str, list[int]] = {}
    for layer, site in sorted(inventory.holdings):
        layers.setdefault(site, []).append(layer)
    return [f"{site} of {_ranges(found)}" for site, found in layers.items()], None


def _ranges(layers: list[int]) -> str:
    """Name layers: ``layers 0-3, 6``."""
    breaks = [0, *(at for at, (one, next_) in enumerate(pairwise(layers), 1) if next_ != one + 1), len(layers)]
    runs = [layers[first:end] for first, end in pairwise(breaks)]
    said = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"layer{'s' if len(layers) > 1 else ''} {said}"


def _made(module: Module) -> list[str] | None:
    """What was done to make it, in the order of the work."""
    done, provenance = [], module.provenance
    if port := provenance.get("port"):
        done.append(f"ported from {port.get('teacher')} by {port.get('align')}")
    if training := provenance.get("training"):
        done.append(f"trained with labels, step {training.get('step')} kept")
    if refined := provenance.get("refinement"):
        done.append(f"refined on the answers of {refined.get('teacher')}, step {refined.get('step')} kept")
    if converted := provenance.get("converted"):
        # What AdapterHub's library wrote is converted whenever it is read.
        read = converted.get("source") == module.source
        done.append(f"saved by {converted.get('version')}" if read else f"converted from {converted.get('source')}")
    return done or None


def _versions(versions: Mapping[str, str]) -> str | None:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or None


def _hash(module: Module) -> str:
    written = module.provenance.get("hash")  # which was checked when it was loaded
    return f"{module.hash()}, none was written down" if written is None else f"{written}, as it was written"


def _model(source: str) -> Facts:
    base = resolve(source)
    skeleton = base.skeleton()
    sites = find_sites(skeleton, base.family)
    known = {site: [layer for layer, name in sorted(sites) if name == site] for site in base.family.places}
    return {
        "model type": f"{base.config.model_type}{', derived from its modules' if base.is_derived else ''}",
        "width": getattr(base.config.get_text_config(), "hidden_size", None),
        "vocabulary": getattr(base.config.get_text_config(), "vocab_size", None),
        "parameters": f"{sum(parameter.numel() for parameter in skeleton.parameters()):,}",
        "sites": [f"{site} of {_ranges(layers)}" for site, layers in known.items() if layers],
        "labels": ", ".join(base.labels) or None,
        "weights": base.weights_id,
    }


def _sample(source: str) -> Facts:
    sample = load_sample(source)
    return {
        "teacher": sample.source.teacher,
        "student": sample.source.student,
        "pairs": sample.describe(),
        "held out": None if sample.held_out_texts is None else f"{sample.held_out_texts} texts",
        "spaces": sorted({pair.name for pair in sample.moments}),
        "pairs of layers": len({(pair.teacher_layer, pair.student_layer) for pair in sample.moments}),
    }


def _store(source: str) -> Facts:
    store = Store(Path(source))
    told = []
    for name in store.experiments():
        keys = {number["key"] for number in store.read_index(name)["numbers"]}
        done, failed = (sum(map(test, keys)) for test in (store.done, lambda key: store.failure(key) is not None))
        told.append(f"{name}: {done} of {len(keys)} trainings done{f', {failed} failed' if failed else ''}")
    return {"experiments": told}


MODULE = Kind("module", CONFIG_NAME, _module)
MODEL = Kind("base model", "config.json", _model)
KINDS = (MODULE, MODEL, Kind("sample", MANIFEST, _sample), Kind("store of results", "experiments", _store))
