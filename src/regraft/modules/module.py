"""The only reader and writer of module directories."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import torch
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from torch import Tensor

from ..errors import ModelError, ModuleFileError
from ..files.directories import new_directory
from ..files.fingerprints import versions
from ..files.hub import download, locate, push
from ..files.reading import read_json, read_tensors
from ..files.writing import write_bytes, write_json, write_json_lines, write_tensors
from ..models.pretrained import ModelLike, Pretrained, resolve
from .adapterhub.conversion import from_peft, to_peft
from .adapterhub.layouts import HubFiles
from .card import CARD, HERE, PICTURE, write_card
from .config_record import check_config
from .provenance import checked
from .tensors import check_tensors, head_rows

PROVENANCE = "regraft.json"
CURVE = "curve.jsonl"
# AdapterHub's files; its configuration has the name of PEFT's.
HUB_WEIGHTS, HUB_SAFETENSORS = "pytorch_adapter.bin", "adapter.safetensors"
HEAD_CONFIG, HEAD_WEIGHTS, HEAD_SAFETENSORS = "head_config.json", "pytorch_model_head.bin", "model_head.safetensors"
GGUF_WEIGHTS = "adapter_model.gguf"  # llama.cpp's
_HUB = (HUB_WEIGHTS, HUB_SAFETENSORS, HEAD_CONFIG, HEAD_WEIGHTS, HEAD_SAFETENSORS)
FILES = (
    CONFIG_NAME,
    SAFETENSORS_WEIGHTS_NAME,
    PROVENANCE,
    CARD,
    PICTURE,
    CURVE,
    HUB_WEIGHTS,
    HEAD_CONFIG,
    HEAD_WEIGHTS,
)
"""What a module that was saved consists of; a directory that holds anything else is never replaced."""


@dataclass(frozen=True)
class Module:
    """A trained PEFT module: what PEFT saves, and where it comes from.

    Attributes:
        config: PEFT's configuration, as in ``adapter_config.json``.
        tensors: PEFT's tensors by key, as in ``adapter_model.safetensors``, on the CPU.
        source: the path or hub id it was loaded from, or what made it.
        commit: the commit of the hub that it was loaded from; empty for what lies here.
        provenance: the content of ``regraft.json``, empty for modules that regraft did not write.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    source: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""

    def __post_init__(self) -> None:
        for name in ("config", "tensors", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __repr__(self) -> str:
        return f"Module({self.source!r}, {self.peft_type}, base_model={self.base_model!r}, {len(self.tensors)} tensors)"

    @property
    def base_model(self) -> str:
        """Name of the model it was trained on."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def peft_type(self) -> str:
        """PEFT's name of the method, e.g. ``"LORA"``."""
        return str(self.config.get("peft_type"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the task's labels in the order of the head's rows; empty where nobody wrote them down."""
        return tuple(self.provenance.get("labels", ()))

    @property
    def report(self) -> Mapping[str, Any]:
        """What was ported from where, how, and with which scores; empty for a module that was not ported."""
        return MappingProxyType(dict(self.provenance.get("port", {})))

    @property
    def head_is_random(self) -> bool:
        """Whether its task head was drawn at random by a port, and nothing has trained it since."""
        return self.report.get("head") == "fresh" and self.provenance.keys().isdisjoint({"training", "refinement"})

    def hash(self) -> str:
        """Hash of all tensors: names, types, shapes and values."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(
        self, path: str | os.PathLike[str], replace: bool = False, curve: Sequence[Mapping[str, Any]] | None = None
    ) -> Path:
        """Write a directory that `PeftModel.from_pretrained` loads, with ``regraft.json`` and a model card.

        Args:
            path: the directory; it appears whole or not at all.
            replace: replace a module that is there already.
            curve: a learning curve, written as ``curve.jsonl``.

        Returns:
            The directory.

        Raises:
            ModuleFileError: the directory exists and may not be replaced, or there is NaN in the tensors.
        """
        with new_directory(path, replace, FILES) as directory:
            self._write(directory)
            if curve is not None:
                write_json_lines(directory / CURVE, curve)
        return Path(path)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload a PEFT module",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Push what `save` writes to a repository of the hub, which is made where there is none.

        Args:
            repo_id: ``ORG/NAME``, or the name alone for one of your own.
            commit_message: of the commit.
            private: whether a repository that is made is private; by default as its owner has set.
            token: for the hub; by default the one that ``hf auth login`` left, or ``HF_TOKEN``.
            branch: made where there is none; by default the main branch.
            create_pr: open a pull request instead of a commit to the main branch.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ModuleFileError: both a branch and a pull request, a name that the hub does not take, nobody logged in, or
                a hub that cannot be reached or refuses.
        """
        with TemporaryDirectory() as directory:
            self._write(Path(directory), repo_id)
            return push(directory, repo_id, commit_message, private, token, branch, create_pr)

    def _write(self, directory: Path, place: str = HERE) -> None:
        check_tensors(self.tensors, self.source)
        provenance = self.stamped()
        write_tensors(directory / SAFETENSORS_WEIGHTS_NAME, self.tensors, {"format": "pt"})
        write_json(directory / CONFIG_NAME, dict(self.config), sort_keys=True)
        write_json(directory / PROVENANCE, provenance, sort_keys=True)
        write_card(directory, self.config, provenance, place=place, rows=head_rows(self.tensors))

    def save_adapterhub(
        self,
        path: str | os.PathLike[str],
        base: ModelLike | None = None,
        name: str = "regraft",
        replace: bool = False,
    ) -> Path:
        """Write a directory that AdapterHub's ``model.load_adapter`` loads, with ``regraft.json`` and a model card.

        Args:
            path: the directory; it appears whole or not at all.
            base: the base model, of which the configuration is read; by default the one that the module names.
            name: what the library is to call the adapter, and its head.
            replace: replace a module that is there already.

        Returns:
            The directory.

        Raises:
            ModuleFileError: what the library cannot represent exactly, NaN in the tensors, or a directory that may not
                be replaced.
            ModelError: no such base model.
        """
        check_tensors(self.tensors, self.source)
        resolved = base_of(self, base)
        config = {**self.config, "base_model_name_or_path": resolved.name}
        files = from_peft(config, self.tensors, resolved.config, self.labels, name, self.source)
        provenance = self.stamped()
        with new_directory(path, replace, FILES) as directory:
            # load_adapter reads safetensors only when told to.
            write_json(directory / CONFIG_NAME, dict(files.config), sort_keys=True)
            write_bytes(directory / HUB_WEIGHTS, _pickled(files.tensors))
            if files.head_config is not None:
                write_json(directory / HEAD_CONFIG, dict(files.head_config), sort_keys=True)
                write_bytes(directory / HEAD_WEIGHTS, _pickled(files.head_tensors))
            write_json(directory / PROVENANCE, provenance, sort_keys=True)
            write_card(directory, config, provenance, "adapterhub")
        return Path(path)

    def stamped(self) -> dict[str, Any]:
        """Give the content of ``regraft.json`` as it is written: with versions and the hash of the tensors."""
        return {**self.provenance, "versions": versions(), "hash": self.hash()}


def base_of(
    module: Module,
    base: ModelLike | None = None,
    trust_remote_code: bool = False,
    option: str = "--model",
    loading: Mapping[str, Any] = MappingProxyType({}),
) -> Pretrained:
    """Find the base model of a module: the one that is given or, by default, the one that it names.

    `option` gives it on the command line, for what is said where it is missing; the others are those of `resolve`.

    Raises:
        ModuleFileError: none is given, and it names none.
        ModelError: no such base model.
    """
    if base is not None:
        return resolve(base, trust_remote_code, loading)
    if not module.base_model:
        raise ModuleFileError(f"{module.source} names no base model, expected one; name it ({option})")
    try:
        return resolve(module.base_model, trust_remote_code, loading)
    except ModelError as error:
        raise ModelError(f"{error}; {module.source} names it as its base, name where it is ({option})") from error


def _pickled(tensors: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()  # torch's own writer does not say why it fails
    torch.save(dict(tensors), buffer)
    return buffer.getvalue()


def load(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str = "",
    token: str | bool | None = None,
) -> Module:
    """Read a module that PEFT, or AdapterHub's library, saved; the latter is converted to PEFT's form.

    Args:
        source: a local directory, or a hub id.
        revision: branch, tag or commit of the hub; by default the main branch. The module says which commit it is of.
        subfolder: of the directory, or of the repository, that holds the module.
        token: for the hub; by default the one that ``hf auth login`` left, or ``HF_TOKEN``.

    Returns:
        The module, with its tensors on the CPU.

    Raises:
        ModuleFileError: nothing of that name, no module in it, unreadable files, NaN in a tensor, or an AdapterHub
            module that cannot be converted exactly.
    """
    directory, commit = locate(source), ""
    if not isinstance(directory, Path) or not directory.exists():
        files = [str(PurePosixPath(subfolder, name)) for name in ("adapter_*", *_HUB, PROVENANCE)]
        directory, commit = download(str(source), files, revision, token)
    elif revision is not None:
        raise ModuleFileError(f"{source} is a local directory, which has no revision {revision!r}; leave it out")
    if subfolder:
        directory, source = directory / subfolder, f"{source}/{subfolder}"
    if not (directory / CONFIG_NAME).is_file():
        raise ModuleFileError(f"{source} holds no {CONFIG_NAME}, expected a directory that PEFT saved a module to")
    config = read_json(directory / CONFIG_NAME)
    if not isinstance(config, dict) or config.keys().isdisjoint({"peft_type", "config"}):
        raise ModuleFileError(
            f"{directory / CONFIG_NAME} has no 'peft_type' (nor AdapterHub's 'config'), expected a module that PEFT or "
            "AdapterHub saved"
        )
    said = read_json(directory / PROVENANCE) if (directory / PROVENANCE).is_file() else {}
    provenance = checked(said, str(directory / PROVENANCE))
    if "peft_type" in config:
        tensors = read_tensors(directory, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)
        module = Module(config, tensors, str(source), provenance)
    else:
        module = _read_adapterhub(directory, config, str(source), provenance)
    module = dataclasses.replace(module, commit=commit)
    check_tensors(module.tensors, str(source))
    check_config(module.config, str(source), sorted({_DIGITS.sub("0", key) for key in module.tensors})[:8])
    if "hash" in provenance and provenance["hash"] != module.hash():
        raise ModuleFileError(
            f"{source} has tensors of the hash {module.hash()}, but its {PROVENANCE} says {provenance['hash']}: they "
            f"were changed since; get the module anew or, if you changed it yourself, remove {PROVENANCE}"
        )
    return module


_DIGITS = re.compile(r"\d+")


def _read_adapterhub(directory: Path, config: Mapping[str, Any], source: str, provenance: Mapping[str, Any]) -> Module:
    tensors = read_tensors(directory, HUB_SAFETENSORS, HUB_WEIGHTS)
    files = HubFiles(config, tensors)
    if any((directory / name).is_file() for name in (HEAD_CONFIG, HEAD_WEIGHTS, HEAD_SAFETENSORS)):
        head_config = read_json(directory / HEAD_CONFIG)
        if not isinstance(head_config, dict):
            raise ModuleFileError(f"{directory / HEAD_CONFIG} holds no object, expected what AdapterHub saves")
        files = HubFiles(config, tensors, head_config, read_tensors(directory, HEAD_SAFETENSORS, HEAD_WEIGHTS))
    peft_config, peft_tensors, labels = to_peft(files, source)
    converted = {"format": "adapterhub", "source": source, **{key: config.get(key) for key in ("name", "version")}}
    provenance = {**provenance, "converted": converted, **({"labels": list(labels)} if labels else {})}
    return Module(peft_config, peft_tensors, source, provenance)
