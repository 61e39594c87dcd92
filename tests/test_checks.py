"""What is checked where a file is read, and where a module is written; `test_fuzz` tries commands on such files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import transformers
from conftest import load_base, load_peft, make_texts
from safetensors.torch import load_file, save_file

import regraft
from regraft.alignment.moments import Moments
from regraft.alignment.soundness import flaw
from regraft.errors import LONGEST, ModelError, ModuleFileError, PlanError, one_line, quoted
from regraft.files import plain
from regraft.models.pretrained import resolve
from regraft.port.execution import check_sizes
from regraft.port.forecast import Fidelity

Make = Callable[..., str]


def test_what_is_quoted_is_one_short_line() -> None:
    assert quoted("a") == "'a'"
    assert quoted("a\nb\x1b[31m\ud800") == r"'a\nb\x1b[31m\ud800'"
    assert quoted("x" * 81) == f"'{'x' * 77}...'"
    assert len(quoted({"x" * 1000: 1})) == LONGEST
    assert one_line("a\nb\x1bc") == r"a b\x1bc"
    assert len(one_line("x" * 10_000)) < 1100
    assert one_line(f"{'x' * 10_000}; do this").endswith("; do this")


@pytest.mark.parametrize("full", [False, True])
def test_moments_of_rows_have_no_flaw_and_others_do(full: bool) -> None:
    dice = torch.Generator().manual_seed(0)
    rows_s, rows_t = torch.randn(50, 6, generator=dice), torch.randn(50, 4, generator=dice)
    rows_t[:, 0] = rows_s[:, 0]  # as much in common as there can be
    moments = Moments.of(rows_s, rows_t, full)
    few = Moments.of(rows_s[:2] * 1e4, rows_t[:2] * 1e-4, full)  # of rank 1
    assert not any(flaw(one) for one in (moments, few, moments + few, Moments.zeros(6, 4, full=full)))
    changed = {
        "shapes": {"mean_s": moments.mean_s[:-1]},
        "NaN": {"mean_t": moments.mean_t * torch.nan},
        "double precision": {"cross": moments.cross.float()},
        "no rows": {"n": 0},
        "negative variance": {"scatter_s": -moments.scatter_s},
        "more in common": {"cross": moments.cross * 1.01},
    }
    if full:
        one_sided, indefinite = moments.scatter_t.clone(), moments.scatter_t.clone()
        one_sided[0, 1] += 1
        indefinite[0, 1] = indefinite[1, 0] = 1.1 * indefinite.diagonal().max()
        for scatter in (one_sided, indefinite):
            assert "covariances that no rows have" in flaw(dataclasses.replace(moments, scatter_t=scatter))
    for words, fields in changed.items():
        assert words in flaw(dataclasses.replace(moments, **fields))


def test_a_line_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "LONGEST_LINE", 10)
    file = tmp_path / "t.txt"
    file.write_bytes(b"\xef\xbb\xbf0123456789\r\nb")
    with pytest.raises(ValueError, match="line 1 has more than 10 characters"):
        list(plain.read_lines(file))
    file.write_bytes(b"\xef\xbb\xbf012345678\n\x0b\rb")
    assert list(plain.read_lines(file)) == [(1, "012345678\n"), (2, "\x0b\rb")]
    for text, words in (("[" * 5000, "nested too deeply"), (r'["\ud800"]', "half a character"), ("x", "Expecting")):
        with pytest.raises(ValueError, match=words):
            plain.parse_json(text)
    assert plain.parse_json(r'"\ud83d\ude00"') == "\U0001f600"


def test_a_checkpoint_that_is_not_whole_is_refused(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora"))

    def changed(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
        path = Path(shutil.copytree(base, tmp_path / name))
        weights = load_file(path / "model.safetensors")
        change(weights)
        (path / "model.safetensors").unlink()
        save_file(weights, path / "model.safetensors", {"format": "pt"})
        return str(path)

    key = "encoder.layer.1.output.dense.weight"
    lacking = changed("lacking", lambda weights: weights.pop(key))
    damaged = changed("damaged", lambda weights: weights[key].view(-1)[7:8].fill_(torch.nan))
    foreign = changed(
        "foreign", lambda weights: [weights.update({f"x{at[::-1]}": weights.pop(at)}) for at in [*weights]]
    )
    query = "encoder.layer.1.attention.self.query.weight"
    partial = changed("no-query", lambda weights: weights.pop(query))
    no_pooler = changed("no-pooler", lambda weights: [weights.pop(at) for at in list(weights) if "pooler" in at])
    for student, words in (
        (lacking, f"lacks {key}"),
        (damaged, "NaN or infinity in"),
        (foreign, "holds no weight|lacks"),
    ):
        with pytest.raises(ModelError, match=words):
            regraft.transfer(module, student, texts=make_texts(40), align="ridge", progress=False)
        with pytest.raises(ModelError, match=r"lacks|NaN"):
            resolve(student).load(transformers.AutoModel)
    with pytest.raises(
        ModelError, match=r"lacks encoder\.layer\.1\.attention\.self\.query\.weight, which other layers"
    ):
        regraft.plan(module, partial)
    resolve(no_pooler).load(transformers.AutoModel)


def test_a_module_that_changed_since_is_refused(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    regraft.transfer(regraft.load(make_module(base, "lora")), base).save(tmp_path / "ported")
    file = tmp_path / "ported" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        ModuleFileError, match=r"they were changed since; get the module anew or, .* remove regraft\.json"
    ):
        regraft.load(tmp_path / "ported")
    (tmp_path / "ported" / "regraft.json").unlink()
    regraft.load(tmp_path / "ported")


def test_what_cannot_be_right_is_not_written(make_model: Make, make_module: Make, tmp_path: Path) -> None:
    base = make_model(layers=2)
    module = regraft.load(make_module(base, "lora"))
    plan = regraft.plan(module, base)
    key = min(module.tensors)
    for factor, refused in ((900.0, False), (torch.nan, True), (1e6, True)):
        made = {**module.tensors, key: module.tensors[key] * factor}
        if not refused:
            check_sizes(plan, made, module.tensors, 1.0)
            continue
        with pytest.raises(PlanError, match=r"NaN, infinite or more than 1,000 times as large"):
            check_sizes(plan, made, module.tensors, 1.0)
    check_sizes(plan, {**module.tensors, key: module.tensors[key] * 1e4}, module.tensors, 1e4)
    # Where it is known what it computes, that is judged, and not how large it is.
    target = next(target for target in plan.targets if target.reads)
    assert target.place is not None
    for factor, r2, refused in ((1e6, 0.9, False), (1e6, -0.9e6, False), (1.0, -1.1e6, True), (torch.nan, 0.9, True)):
        made = {**module.tensors, target.key: module.tensors[target.key] * factor}
        with pytest.raises(PlanError, match="of no use") if refused else nullcontext():
            check_sizes(plan, made, module.tensors, 1.0, [Fidelity(*target.place, "A", r2)])
    broken = dataclasses.replace(module, tensors={**module.tensors, key: module.tensors[key] * torch.nan})
    with pytest.raises(ModuleFileError, match=f"NaN or infinity in '{key}'"):
        broken.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("alpha_pattern", {"[": 1}, "is no regular expression"),
        ("alpha_pattern", {"(.*)*x": 1}, "takes too long to match"),
        ("alpha_pattern", {"(([a-z._0-9]+)+)+!": 1}, "takes too long to match"),
        ("rank_pattern", {r"(\w+\.)*query": 4}, ""),
        ("target_modules", r"(.*\.)?encoder\.layer\.\d+\.attention\.self\.(query|value)", ""),
        ("lora_alpha", 8.5, ""),
        ("lora_alpha", None, "lora_alpha"),
        ("r", 0, "r is 0, expected 1 or more"),
        ("lora_dropout", 1.5, "lora_dropout is 1.5, expected 1 or less"),
        ("modules_to_save", [1], "modules_to_save"),
        ("of_another_version", {"a": 1}, ""),
    ],
)
def test_a_configuration_is_what_peft_declares(
    field: str, value: object, words: str, make_model: Make, make_module: Make, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(make_module(make_model(layers=2), "lora"), tmp_path / "module"))
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    if not words:
        regraft.load(path)
        return
    with pytest.raises(ModuleFileError, match=words):
        regraft.load(path)


def test_a_student_of_the_same_function_with_tiny_activations_gets_a_port(
    make_model: Make, make_module: Make, tmp_path: Path
) -> None:
    """Its norms are 100,000 times smaller, and what reads them as much larger: so is a part of the port."""
    teacher, tiny = make_model("llama", layers=2, tie_word_embeddings=True), tmp_path / "tiny"
    model = transformers.AutoModelForCausalLM.from_pretrained(teacher)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight.mul_(1e-5)
            for name in ("q_proj", "k_proj", "v_proj"):
                getattr(layer.self_attn, name).weight.mul_(1e5)
    model.save_pretrained(tiny)
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher)
    tokenizer.save_pretrained(tiny)
    module = make_module(teacher)
    ported = regraft.transfer(regraft.load(module), str(tiny), texts=make_texts(200), align="ridge", progress=False)
    # What the rows of A read with is as long as in the teacher, so that it can be trained on; B is as much larger.
    first, second = (regraft.load(module).tensors, ported.tensors)
    assert min(second).endswith("lora_A.weight")
    usual = first[min(first)].square().sum(1).mean().sqrt()
    torch.testing.assert_close(second[min(second)].norm(dim=1), usual.expand(len(second[min(second)])))
    assert max(float(tensor.abs().max()) for tensor in second.values()) > 1e3
    ids = tokenizer(make_texts(1, seed=9), return_tensors="pt").input_ids
    with torch.no_grad():
        expected, found, bare = (
            one(ids)[0]
            for one in (
                load_peft(teacher, module),
                load_peft(str(tiny), ported.save(tmp_path / "ported")),
                load_base(teacher),
            )
        )
    assert (found - expected).norm() < 0.1 * (bare - expected).norm()
