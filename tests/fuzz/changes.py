"""What is done to a good file: its bytes, what kind of thing it is, the values in its JSON or YAML, its tensors."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

Change = Callable[[Path], None]

LONG = "x" * (1 << 20)
DEEP, DIGITS = "@deep", "@digits"  # stand for what is put in as text

# What no field of any file should hold, or at least not this field.
JUNK = st.one_of(
    st.sampled_from(
        [
            None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1e30, float("nan"), float("inf"), -0.5, "", " ", "x",
            "0",
            "[", "(?P<x>", "*", "(.*)*x", "(([a-z._0-9]+)+)+!", "../../etc/passwd", "/dev/zero", "a\nb", "\x00",
            "\ud800",
            "\x1b[31m", LONG, DEEP, DIGITS, [], {}, [None], [[]], [1, "a"], {"a": 1}, {"": None}, ["x"] * 1000,
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)  # fmt: skip


def _places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inside:
        yield from _places(value, (*place, key))


def _put(content: Any, place: tuple[Any, ...], how: str, value: Any) -> Any:
    if not place:
        return value
    *outer, last = place
    holder = content
    for key in outer:
        holder = holder[key]
    if how == "delete":
        del holder[last]
    elif how == "add" and isinstance(holder, dict):
        holder[f"{last}_"] = value
    else:
        holder[last] = value
    return content


def _as_text(content: Any) -> str:
    deep = "[" * 10000 + "]" * 10000
    return json.dumps(content).replace(f'"{DEEP}"', deep).replace(f'"{DIGITS}"', "7" * 5000)


@st.composite
def values(draw: st.DrawFn, source: Path) -> tuple[str, Change]:
    """Change a value of a JSON or YAML file, take it away or add one."""
    content = yaml.safe_load(source.read_text())
    place = draw(st.sampled_from(list(_places(content))[1:]))
    how = draw(st.sampled_from(["change", "change", "change", "delete", "add"]))
    value = None if how == "delete" else draw(JUNK)
    text = _as_text(_put(content, place, how, value))  # JSON is YAML

    def change(path: Path) -> None:
        path.write_text(text)

    return f"{source.name} {how} {'.'.join(map(str, place))} {str(value)[:40]!r}", change


def other_kind(name: str) -> Change:
    """Put something else in the place of a file."""

    def change(path: Path) -> None:
        path.unlink()
        match name:
            case "fifo":
                os.mkfifo(path)
            case "directory":
                path.mkdir()
            case "loop" | "dangling" | "/dev/zero" | "/dev/null":
                path.symlink_to({"loop": path.name, "dangling": "nowhere"}.get(name, name))

    return change


KINDS = ("fifo", "directory", "loop", "dangling", "/dev/zero", "/dev/null", "absent")

_CONTENTS = {
    "empty": b"",
    "zeros": bytes(4096),
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "not utf-8": b"\xff\xfe\x00a",
    "a bom": b"\xef\xbb\xbf{}",
    "null": b"null",
    "a number": b"7",
    "a list": b"[]",
    "an object": b"{}",
    "text": b"hello\n",
    "digits": b"9" * 5000,
    "a surrogate": b'"\\ud800"',
    "a header of exabytes": b"\xff" * 8 + b"{}",
    "PK": b"PK\x03\x04garbage",
    "PAR1": b"PAR1PAR1",
    "GGUF": b"GGUF\x03\x00\x00\x00" + b"\xff" * 16,
    "a long line": b"x" * (1 << 22),
}


def becomes(content: bytes) -> Change:
    """Put other bytes in the place of a file."""
    return lambda path: path.write_bytes(content) and None


@st.composite
def contents(draw: st.DrawFn, source: Path) -> tuple[str, Change]:
    """Damage the bytes of a file, or put something else in its place."""
    size = source.stat().st_size
    how = draw(st.sampled_from(["cut", "flip", "flip", "insert", "other", "other", "kind"]))
    if how == "kind":
        name = draw(st.sampled_from(KINDS))
        return f"{source.name} is {name}", other_kind(name)
    if how == "other":
        name = draw(st.sampled_from(list(_CONTENTS)))
        return f"{source.name} holds {name}", becomes(_CONTENTS[name])
    at = draw(st.integers(0, min(size - 1, 4000) if draw(st.booleans()) else size - 1))
    byte = draw(st.integers(0, 255))
    content = source.read_bytes()
    damaged = {
        "cut": content[:at],
        "flip": content[:at] + bytes([byte]) + content[at + 1 :],
        "insert": content[:at] + bytes([byte]) * 9 + content[at:],
    }[how]
    return f"{source.name} {how} at {at} byte {byte}", becomes(damaged)


_TYPES = (torch.int64, torch.bool, torch.uint8, torch.complex64, torch.float8_e4m3fn, torch.uint32, torch.float64)
_KEYS = (
    "a\nb",
    "",
    "x" * (1 << 20),
    "\x1b[31m",
    "base_model.model.",
    "..",
    "a" * 300,
    "base_model.model.x.lora_A.weight",
)


@st.composite
def tensors(draw: st.DrawFn, source: Path) -> tuple[str, Change]:
    """Change a tensor of a safetensors file: its type, shape, values, key; take it away or add one."""
    held = load_file(source)
    key = draw(st.sampled_from(sorted(held)))
    tensor = held[key]
    how = draw(st.sampled_from(["type", "shape", "value", "key", "less", "more", "none"]))
    what: Any = ""
    if how == "type":
        what = draw(st.sampled_from(_TYPES))
        held[key] = tensor.to(what)
    elif how == "shape":
        what = draw(st.sampled_from(["0-d", "1-d", "3-d", "none", "wide", "turned"]))
        held[key] = {
            "0-d": tensor.new_zeros(()),
            "1-d": tensor.reshape(-1),
            "3-d": tensor.reshape(1, *tensor.shape),
            "none": tensor.new_zeros((0, *tensor.shape[1:])),
            "wide": torch.cat([tensor, tensor]),
            "turned": tensor.T.contiguous() if tensor.dim() == 2 else tensor[:-1],
        }[what]
    elif how == "value" and tensor.numel() and tensor.is_floating_point():
        what = draw(st.sampled_from([float("nan"), float("inf"), -1.0, 1e30, 0.0]))
        held[key] = tensor.clone()
        held[key].view(-1)[draw(st.integers(0, tensor.numel() - 1))] = what
    elif how in ("key", "more"):
        what = draw(st.sampled_from(_KEYS))
        held[what] = held.pop(key) if how == "key" else torch.zeros(2, 2)
    elif how == "none":
        held = {}
    else:
        held.pop(key)

    def change(path: Path) -> None:
        path.unlink()
        save_file(held, path, {"format": "pt"})

    return f"{source.name} {how} {key} {str(what)[:40]!r}", change


def with_header(header: dict[str, Any], data: bytes = bytes(64)) -> Change:
    """Write a safetensors file by hand."""
    text = json.dumps(header).encode()
    return becomes(struct.pack("<Q", len(text)) + text + data)
