"""Bad inputs that were found once, or that anybody would try first: each of them is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from fuzz.cases import (
    OF_DATA,
    OF_EXPERIMENT,
    OF_MODEL,
    OF_MODULE,
    OF_MOMENTS,
    OF_TEXTS,
    changed_input,
    with_option,
    words,
)
from fuzz.changes import LONG, Change, becomes, other_kind
from fuzz.runner import Case
from fuzz.world import CODE, PICKLE, World, copied
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def of_tensors(edit: Callable[[Tensors, str], object]) -> Change:
    """Edit the tensors of a file; `edit` gets them, and the key of the first matrix."""

    def change(path: Path) -> None:
        held = load_file(path)
        edit(held, next(key for key, tensor in sorted(held.items()) if tensor.dim() == 2))
        path.unlink()
        save_file(held, path, {"format": "pt"})

    return change


def of_json(edit: Callable[[dict[str, Any]], object]) -> Change:
    """Edit the content of a JSON file."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


def _flipped(held: Tensors, key: str) -> None:
    held[key][0, 0] += 1e-3


_TENSORS: Mapping[str, Callable[[Tensors, str], object]] = {
    **{
        str(dtype): lambda held, key, dtype=dtype: held.update({key: held[key].to(dtype)})
        for dtype in (torch.int64, torch.bool, torch.uint8, torch.complex64, torch.float8_e4m3fn, torch.uint32)
    },
    "0-d": lambda held, key: held.update({key: torch.zeros(())}),
    "1-d": lambda held, key: held.update({key: held[key].reshape(-1)}),
    "no rows": lambda held, key: held.update({key: held[key][:0]}),
    "A without B": lambda held, key: held.pop(key.replace("lora_A", "lora_B")),
    "NaN": lambda held, key: held[key].fill_(torch.nan),
    "a line break in a key": lambda held, key: held.update({"a\nb": held[key].clone()}),
    "a key of a megabyte": lambda held, key: held.update({LONG: held[key].clone()}),
    "one alone": lambda held, key: [held.pop(name) for name in list(held) if name != key],
}

_FIELDS: Mapping[str, Any] = {
    "lora_alpha": [None, "x", float("nan"), 1e30],
    "r": [0, -1, 1.5, 2**63, None],
    "lora_dropout": [1e30, float("inf"), "x"],
    "alpha_pattern": [7, "x", {"[": 1}, {"(?P<x>": 1}, {"*": 1}, {"(.*)*x": 1}, {"(([a-z._0-9]+)+)+!": 1}, {"a": "b"}],
    "rank_pattern": [[1], {"query": 0}, {"query": "x"}],
    "target_modules": [7, "[", "(.*)*x", r"(\w+\.?)+!", [1, "query"]],
    "modules_to_save": [7, True, ["classifier", 1], ["["]],
    "task_type": [["SEQ_CLS"], "x"],
    "peft_type": [None, 7, "NOTHING"],
    "base_model_name_or_path": ["n" * 300, "n" * 10_000, "a\nb"],
    "auto_mapping": [7, "x"],
}

_WORDS = [
    ("plan", "--seed", [str(2**32), str(2**63), "-1", "x", "9" * 5000]),
    ("plan", "--layers", ["0 1", "9" * 5000, ",".join(["0"] * 5000), "-1"]),
    ("plan", "--scale", ["nan", "-1", "inf", "x"]),
    ("plan", "--student", ["n" * 300, "n" * 100_000, "org/" + "n" * 300, "~nobody"]),
    ("convert", "--model", ["n" * 5000, "9" * 5000]),
    ("train", "--rank", ["10000000", str(2**63), "0"]),
    ("train", "--batch-size", ["0", str(2**63)]),
    ("train", "--epochs", ["nan", "inf", "0", "-1"]),
    ("sample", "--layers", ["0 1", "9" * 5000]),
    ("sample", "--device", ["meta", "nothing", "cuda:99"]),
    ("sample", "--max-texts", [str(2**63), "0"]),
    ("compare", "--device", ["meta", "5280"]),
    ("compare", "--column", ["nothing", "a,b,c"]),
    ("compare", "--texts", ["/dev/zero", "/dev/null", "nothing.txt", "n" * 300]),
    ("refine", "--steps", ["0", "-1", str(2**63), "9" * 5000]),
    ("distill", "--layers", ["0 1", "7", "9" * 5000]),
    ("report", "--experiment", ["x"]),
]

_LINES = {
    "half a character": '{"text": "a \\ud800 b", "label": "no"}\n',
    "10,000 brackets": "[" * 10_000 + "\n",
    "nothing": "",
    "no object": "[1]\n",
    "no such column": '{"other": "a"}\n',
    "a number": '{"text": 7, "label": "no"}\n',
}


def _moments() -> Iterator[tuple[str, str, Change]]:
    def scale(part: str, factor: float) -> Change:
        return of_tensors(lambda held, _: [tensor.mul_(factor) for key, tensor in held.items() if key.endswith(part)])

    def corner(part: str, value: float) -> Change:
        def edit(held: Tensors, _: str) -> None:
            for key, tensor in held.items():
                if key.endswith(part):
                    tensor[0, 1] = value

        return of_tensors(edit)

    def both(held: Tensors, _: str) -> None:
        for key, tensor in held.items():
            if key.endswith("scatter_s"):
                tensor[0, 1] = tensor[1, 0] = 1.5 * float(tensor.diagonal().max())

    def cut(held: Tensors, _: str) -> None:
        for key, tensor in held.items():
            if key.endswith("mean_s"):
                held[key] = tensor[:-1].clone()

    def counts(content: dict[str, Any]) -> None:
        content["counts"] = dict.fromkeys(content["counts"], -1)

    tensors, manifest = "moments.safetensors", "moments.json"
    yield "a negative variance", tensors, scale("scatter_s", -1.0)
    yield "NaN", tensors, scale("mean_t", float("nan"))
    yield "an asymmetric covariance", tensors, corner("scatter_t", 1e3)
    yield "an indefinite covariance", tensors, of_tensors(both)
    yield "more in common than varies", tensors, scale("cross", 1e3)
    yield "other widths", tensors, of_tensors(cut)
    yield "negative counts", manifest, of_json(counts)
    yield "counts of nothing", manifest, of_json(lambda content: content.update(counts={}))
    yield "counts that are null", manifest, of_json(lambda content: content.update(counts=None))
    yield "pairs that are a number", manifest, of_json(lambda content: content.update(spaces=7))
    yield "other pairs", manifest, of_json(lambda content: content.update(spaces=["5.7.nothing"]))
    yield "another teacher", manifest, of_json(lambda content: content["source"].update(teacher_config="x"))
    yield "no source", manifest, of_json(lambda content: content.pop("source"))
    yield "an unknown key", manifest, of_json(lambda content: content.update(more=1))


def _provenance() -> Iterator[tuple[str, str, Change]]:
    name = "regraft.json"
    yield "a flipped byte", "adapter_model.safetensors", of_tensors(_flipped)
    yield "another hash", name, of_json(lambda content: content.update(hash="0" * 16))
    yield "labels that are a number", name, of_json(lambda content: content.update(labels=7))
    yield "a port that is a list", name, of_json(lambda content: content.update(port=[]))
    yield "a list", name, becomes(b"[]")


def _weights() -> Iterator[tuple[str, Change]]:
    def layer(held: Tensors, _: str) -> None:
        for key in [key for key in held if ".layer.0.output." in key]:
            del held[key]

    def renamed(held: Tensors, _: str) -> None:
        for key in list(held):
            held[f"x.{key[::-1]}"] = held.pop(key)

    yield "a part of a layer is missing", of_tensors(layer)
    yield "no expected key", of_tensors(renamed)
    yield "NaN", of_tensors(lambda held, _: [tensor.fill_(torch.nan) for tensor in held.values()])


def _hub() -> Iterator[tuple[str, str, Change]]:
    def field(name: str, value: Any) -> Change:
        return of_json(lambda content: content["config"].update({name: value}))

    yield "a head that is a number", "head_config.json", of_json(lambda content: content.update(config=1))
    yield "a type in a list", "adapter_config.json", of_json(lambda content: content.update(model_type=["bert"]))
    yield "layers in lists", "adapter_config.json", field("leave_out", [[1]])
    yield "matrices that are null", "adapter_config.json", field("attn_matrices", None)


def known(world: World) -> Iterator[Case]:
    """Give all of them."""

    def case(kind: str, label: str, good: str, file: str, change: Change, given: Any) -> Case:
        return Case(kind, label, changed_input(world, good, file, change, given), refused=True)

    plan, transfer, evaluate = OF_MODULE[0], OF_MODULE[2], OF_MODULE[7]
    for label, edit in _TENSORS.items():
        for given in (plan, transfer, OF_MODULE[6]):
            yield case("tensors", label, "lora", "adapter_model.safetensors", of_tensors(edit), given)
    for field, values in _FIELDS.items():
        for value in values:
            change = of_json(lambda content, field=field, value=value: content.update({field: value}))
            yield case("configuration", f"{field} {str(value)[:40]}", "lora", "adapter_config.json", change, plan)
    for command, option, given_words in _WORDS:
        for word in given_words:
            label = f"{command} {option} {word[:40]}"
            yield Case("arguments", label, with_option(world, command, option, word), refused=True)
    for label, file, change in _moments():
        for given in OF_MOMENTS[:2]:
            yield case("moments", label, "moments", file, change, given)
    for given in OF_MOMENTS[:2]:
        yield case("moments", "a pipe", "moments", "moments.safetensors", other_kind("fifo"), given)
    twice = words(world, OF_MOMENTS[2], str(world / "moments"))
    yield Case("moments", "the same shard twice", lambda _: twice, refused=True)
    for label, file, change in _provenance():
        for given in (plan, evaluate):
            yield case("regraft.json", label, "ported", file, change, given)
    for label, change in _weights():
        for given in (*OF_MODEL[2:5], *OF_MODEL[6:10]):
            yield case("weights", label, "teacher", "model.safetensors", change, given)
    yield case("weights", "a pipe", "teacher", "model.safetensors", other_kind("fifo"), OF_MODEL[3])
    change = of_json(lambda content: [content.pop(name, None) for name in ("pad_token", "eos_token")])
    for given in (OF_MODEL[3], OF_MODEL[6], OF_MODEL[7]):
        yield case("a tokenizer", "nothing to pad with", "student", "tokenizer_config.json", change, given)
    for label, file, change in _hub():
        yield case("AdapterHub", label, "hub", file, change, OF_MODULE[4])
    for label, text in _LINES.items():
        for given in OF_TEXTS:
            yield case("texts", label, "jsonl", "train.jsonl", becomes(text.encode()), given)
        yield case("rows", label, "jsonl", "train.jsonl", becomes(text.encode()), OF_DATA[1])
    for given in OF_TEXTS:
        for kind in ("fifo", "/dev/zero", "directory", "loop"):
            yield case("texts", kind, ".", "texts.txt", other_kind(kind), given)
        yield case("texts", "a line of 32 MB", ".", "texts.txt", becomes(b"x" * (1 << 25)), given)
        yield case("texts", "Parquet of no bytes", "parquet", "train.parquet", becomes(b""), given)
        yield case("texts", "a pipe called Parquet", "parquet", "train.parquet", other_kind("fifo"), given)
    for text in ("[" * 10_000, "a: !!python/object/apply:os.getcwd []", "a: &a [*a]", "\0", "name: [x]"):
        yield case("experiment", text[:40], ".", "grid.yaml", becomes(text.encode()), OF_EXPERIMENT[0])
    yield from _foreign(world)


def _foreign(world: World) -> Iterator[Case]:
    """Give inputs that bring code along."""

    def pickled(good: str, weights: str, pickle: str, given: Any) -> Case:
        def prepare(place: Path) -> list[str]:
            inside = copied(world, good, place)
            (inside / weights).unlink()
            (inside / pickle).write_bytes(PICKLE)
            return words(world, given, str(inside))

        return Case("foreign code", f"{pickle} of {good}", prepare, refused=True)

    yield pickled("lora", "adapter_model.safetensors", "adapter_model.bin", OF_MODULE[0])
    yield pickled("hub", "pytorch_adapter.bin", "pytorch_adapter.bin", OF_MODULE[4])
    yield pickled("student", "model.safetensors", "pytorch_model.bin", OF_MODEL[3])

    def scripted(place: Path) -> list[str]:
        inside = copied(world, "student", place)
        names = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoTokenizer": ["code.Tokenizer", None]}
        for file, more in (("config.json", {"model_type": "foreign"}), ("tokenizer_config.json", {})):
            of_json(lambda content, more=more: content.update(auto_map=names, **more))(inside / file)
        (inside / "code.py").write_text(CODE)
        return words(world, OF_MODEL[3], str(inside))

    yield Case("foreign code", "auto_map", scripted, refused=True)

    def data_set(place: Path) -> list[str]:
        inside = place / "in" / "data"
        shutil.copytree(world / "lm", inside)
        (inside / "data.py").write_text(CODE)
        (inside / "train.jsonl").unlink()
        return words(world, OF_TEXTS[1], str(inside / "data.py"))

    yield Case("foreign code", "a script for a data set", data_set)
