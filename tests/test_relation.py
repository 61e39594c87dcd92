"""How two models are related: told by slices of their weights."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_texts
from peft import PeftModel

import regraft
from regraft.demo.shipped import model_path
from regraft.errors import PlanError
from regraft.files.reading import sliceable_tensors
from regraft.models import relation
from regraft.models.pretrained import resolve
from regraft.models.relation import relate


def changed(model: str, path: Path, noise: float = 0.0, layers: tuple[int, ...] = (), **saving: Any) -> str:
    """Copy a model with some of its layers, and with noise of so many deviations on its weights."""
    loaded = transformers.AutoModel.from_pretrained(model)
    torch.manual_seed(3)
    for parameter in loaded.parameters():
        if parameter.dim() > 1:
            parameter.data += noise * parameter.data.std() * torch.randn_like(parameter)
    if layers:
        loaded.encoder.layer = torch.nn.ModuleList(loaded.encoder.layer[layer] for layer in layers)
        loaded.config.num_hidden_layers = len(layers)
    loaded.save_pretrained(path, **saving)
    return str(path)


def kind(teacher: Any, student: Any) -> str:
    return relate(resolve(teacher), resolve(student)).kind


def test_the_weights_tell_how_models_are_related(make_model: Callable[..., str], tmp_path: Path) -> None:
    teacher = make_model(layers=4)
    assert kind(teacher, shutil.copytree(teacher, tmp_path / "copy")) == "same"
    cut = relate(resolve(teacher), resolve(changed(teacher, tmp_path / "cut", layers=(0, 3))))
    assert (cut.kind, cut.layers, round(cut.cosine, 5), round(cut.embeddings, 5)) == ("cut", (0, 3), 1, 1)
    distilled = relate(resolve(teacher), resolve(changed(teacher, tmp_path / "distilled", 1.0, (1, 2))))
    assert (distilled.kind, distilled.layers) == ("distilled", (1, 2))
    assert distilled.cosine == pytest.approx(0.5**0.5, abs=0.05)
    assert kind(teacher, changed(teacher, tmp_path / "tuned", 0.1)) == "related"
    for other in (make_model(layers=4, seed=5), make_model("roberta", layers=4), make_model(width=48)):
        assert kind(teacher, other) == "unrelated"
    heads = relate(resolve(teacher), resolve(make_model(layers=4, num_attention_heads=8)))
    assert (heads.kind, heads.cosine) == ("unrelated", None)
    assert "attention heads differ: 4 and 8" in heads.reason


def test_the_shipped_models_are_what_they_are() -> None:
    teacher, student, apart = map(model_path, ("teacher", "student", "apart-student"))
    assert relate(resolve(teacher), resolve(student)).layers == (0, 2)
    assert kind(teacher, student) == "distilled"
    assert kind(teacher, apart) == "unrelated"


@pytest.mark.parametrize("how", ["loaded", "with a head", "adapted", "pickled", "in shards"])
def test_weights_are_found_however_they_are_kept(
    how: str, make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path
) -> None:
    teacher = make_model("llama", layers=2)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(teacher, num_labels=2)
    student: Any = str(tmp_path / "student")
    if how == "loaded":
        student = model
    elif how == "adapted":
        student = PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(teacher), make_module(teacher))
    elif how == "pickled":
        resolve(teacher).config.save_pretrained(student)
        torch.save(model.state_dict(), tmp_path / "student" / "pytorch_model.bin")
    else:
        model.save_pretrained(student, max_shard_size="20KB" if how == "in shards" else "5GB")
    assert kind(teacher, student) == "same"


def test_weights_that_cannot_be_read_leave_the_relation_unknown(make_model: Callable[..., str], tmp_path: Path) -> None:
    teacher = make_model(layers=2)
    resolve(teacher).config.save_pretrained(tmp_path / "bare")
    bare = relate(resolve(teacher), resolve(tmp_path / "bare"))
    assert (bare.kind, bare.reason) == ("unknown", f"the weights of {tmp_path / 'bare'} are not on this machine")
    broken = Path(shutil.copytree(teacher, tmp_path / "broken")) / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:1000])
    broken_one = relate(resolve(teacher), resolve(broken.parent))
    assert broken_one.kind == "unknown"
    assert "it may be truncated" in broken_one.reason


def test_a_copy_between_unrelated_models_is_refused_unless_asked_for(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, run: Callable[..., tuple]
) -> None:
    teacher, student = make_model(layers=4), make_model(layers=2, seed=5)
    module = make_module(teacher, labels=3)
    for command in (("plan",), ("transfer", "--out", tmp_path / "ported")):
        code, _, error = run(command[0], module, "--student", student, *command[1:])
        assert code == 2
        assert "share no dimensions (the cosine of their layers' weights is " in error
        assert "map it with --texts or --moments, or ask for the copy by name (--align none)" in error
    assert not (tmp_path / "ported").exists()
    with pytest.raises(PlanError, match="share no dimensions"):
        regraft.transfer(regraft.load(module), make_model(layers=4, num_attention_heads=8))
    code, out, _ = run("transfer", module, "--student", student, "--align", "none", "--out", tmp_path / "ported")
    assert code == 0
    assert "share no dimensions" in out
    report = regraft.load(tmp_path / "ported").report
    assert report["relation"]["kind"] == "unrelated"


def test_plan_and_transfer_say_the_relation_and_what_follows(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path: Path, run: Callable[..., tuple]
) -> None:
    teacher = make_model(layers=4)
    module = make_module(teacher, labels=3)
    cut = changed(teacher, tmp_path / "cut", layers=(0, 1))
    tuned = changed(teacher, tmp_path / "tuned", 0.3)
    for student, said, unsaid in (
        (teacher, "itself: a copy is exact", "Maps may"),
        (cut, f"was cut from {teacher}, layers 0, 1", "Maps may"),
        (cut, "most like the teacher's 0,1; --layers 0,1 takes these over", "Maps may"),
        (tuned, "are related (cosine of the layers' weights 0.96, of the embeddings 0.96)", "--layers"),
        (tuned, "Maps may bring more than a copy; they need texts: --texts FILE", "most like"),
    ):
        planned = run("plan", module, "--student", student)
        ported = run("transfer", module, "--student", student, "--out", tmp_path / "ported", "--replace")
        for code, out, _ in (planned, ported):
            assert code == 0
            assert said in " ".join(out.split())
            assert unsaid not in out
    assert "most like" not in run("plan", module, "--student", cut, "--layers", "0,1")[1]


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_with_texts_too_a_module_is_the_same_in_its_own_model(
    model_type: str, make_model: Callable[..., str], make_module: Callable[..., str]
) -> None:
    base = make_model(model_type, layers=2)
    module = regraft.load(make_module(base, target_modules="all-linear"))
    ported = regraft.transfer(module, base, texts=make_texts(60), drop=True, progress=False)
    assert ported.hash() == regraft.transfer(module, base, drop=True).hash()
    assert all(torch.equal(tensor, module.tensors[key]) for key, tensor in ported.tensors.items())


def sparse_checkpoint(directory: Path) -> str:
    """Write a checkpoint of LLaMA 2 7B's shapes that takes up no room: its weights are a hole in the file."""
    config = transformers.LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, num_attention_heads=32, vocab_size=32000
    )
    config.save_pretrained(directory)
    header, offset = {}, 0
    for name, tensor in resolve(directory).skeleton().state_dict().items():
        end = offset + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return str(directory)


def test_of_two_7b_checkpoints_at_most_100_mb_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = (sparse_checkpoint(tmp_path / name) for name in ("teacher", "student"))
    read = []

    class Counted:
        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor

        def __getitem__(self, rows: slice) -> torch.Tensor:
            values: torch.Tensor = self.tensor[rows]
            read.append(values.nbytes)
            return values

    @contextmanager
    def counted(directory: Path) -> Iterator[Mapping[str, Any]]:
        with sliceable_tensors(directory) as tensors:
            yield {name: Counted(tensor) for name, tensor in tensors.items()}

    monkeypatch.setattr(relation, "sliceable_tensors", counted)
    assert len(relate(resolve(teacher), resolve(student)).layers) == 32
    assert 1e6 < sum(read) < 100e6
