"""Modules from the hub and to it: which commit they are of, what is pushed, what a card says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from conftest import tiny_config
from fake_hub import TOKEN, FakeHub, fake_hub
from huggingface_hub import ModelCard
from peft import LoraConfig, TaskType, get_peft_model

import regraft
from regraft.errors import ModuleFileError
from regraft.files.hub import fetched_commit
from regraft.models.pretrained import resolve


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def module(make_model: Callable[..., str], make_module: Callable[..., str]) -> str:
    return make_module(make_model(layers=2), labels=3)


def test_a_revision_is_loaded_and_named_by_its_commit(
    hub: FakeHub, module: str, make_module: Callable[..., str]
) -> None:
    base = regraft.load(module).base_model
    first = hub.add("ada/lora", module)
    second = hub.add("ada/lora", make_module(base, r=2, labels=3))
    hub.repositories["ada/lora"].branches["old"] = first
    latest, pinned = regraft.load("ada/lora"), regraft.load("ada/lora", revision="old")
    assert (latest.commit, pinned.commit) == (second, first)
    assert (latest.config["r"], pinned.config["r"]) == (2, 4)
    assert pinned.hash() == regraft.load(module).hash() == regraft.load("ada/lora", revision=first).hash()
    assert regraft.load(module).commit == ""
    with pytest.raises(ModuleFileError, match=r"cannot be fetched from the hub at 'v9'; check .* the revision"):
        regraft.load("ada/lora", revision="v9")


def test_a_module_in_a_subfolder(hub: FakeHub, module: str) -> None:
    hub.add("ada/many", module, under="step-100/")
    found = regraft.load("ada/many", subfolder="step-100")
    assert (found.source, found.hash()) == ("ada/many/step-100", regraft.load(module).hash())
    here = regraft.load(Path(module).parent, subfolder=Path(module).name)
    assert (here.source, here.commit, here.hash()) == (module, "", found.hash())
    with pytest.raises(ModuleFileError, match=r"ada/many holds no adapter_config.json"):
        regraft.load("ada/many")


def test_a_private_module_needs_the_token(hub: FakeHub, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("ada/lora", module)
    hub.repositories["ada/lora"].private = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModuleFileError, match="'ada/lora' is no local directory and cannot be fetched"):
        regraft.load("ada/lora")
    assert regraft.load("ada/lora", token=TOKEN).hash() == regraft.load(module).hash()


def test_a_directory_here_has_no_revision(module: str) -> None:
    with pytest.raises(ModuleFileError, match="is a local directory, which has no revision 'main'; leave it out"):
        regraft.load(module, revision="main")


def test_a_port_says_which_commits_it_is_of(
    hub: FakeHub, module: str, make_model: Callable[..., str], tmp_path: Path
) -> None:
    of_module = hub.add("ada/lora", module)
    of_teacher, of_student = hub.add("ada/deep", make_model(layers=2)), hub.add("ada/flat", make_model(layers=1))
    port = regraft.transfer(regraft.load("ada/lora"), "ada/flat", "ada/deep", align="none")
    port.save(tmp_path / "port")
    said = json.loads((tmp_path / "port" / "regraft.json").read_text())["port"]
    assert said["module_commit"] == of_module
    assert (said["teacher_weights"], said["student_weights"]) == (f"hub:{of_teacher}", f"hub:{of_student}")


def test_two_models_of_the_hub_are_not_one(hub: FakeHub, make_model: Callable[..., str]) -> None:
    commits = [hub.add(f"ada/{seed}", make_model(layers=1, seed=seed)) for seed in (0, 1)]
    bases = [resolve(f"ada/{seed}") for seed in (0, 1)]
    assert bases[0].config_hash == bases[1].config_hash
    assert [base.weights_id for base in bases] == [f"hub:{commit}" for commit in commits]


def test_what_is_pushed_is_what_is_loaded(hub: FakeHub, module: str) -> None:
    local = regraft.load(module)
    address = local.push_to_hub("ada/lora", commit_message="Add a tagger", private=True, token=TOKEN)
    repository = hub.repositories["ada/lora"]
    commit = repository.branches["main"]
    assert address == f"https://huggingface.co/ada/lora/commit/{commit}"
    assert (repository.private, repository.messages[-1]) == (True, "Add a tagger")
    assert {"adapter_config.json", "adapter_model.safetensors", "regraft.json", "README.md"} == set(
        repository.commits[commit]
    )
    pushed = regraft.load("ada/lora", revision=commit)
    assert (pushed.hash(), dict(pushed.config), pushed.commit) == (local.hash(), dict(local.config), commit)
    card = repository.commits[commit]["README.md"].decode()
    assert 'PeftModel.from_pretrained(base_model, "ada/lora")' in card
    assert "base_model:" not in card  # a directory of this machine, which the hub would refuse


def test_a_branch_or_a_pull_request(hub: FakeHub, module: str) -> None:
    local = regraft.load(module)
    local.push_to_hub("lora", branch="v1")  # of one's own
    local.push_to_hub("lora", branch="v1")
    repository = hub.repositories["ada/lora"]
    assert repository.commits[repository.branches["main"]] == {}
    assert regraft.load("ada/lora", revision="v1").hash() == local.hash()
    assert local.push_to_hub("ada/lora", create_pr=True) == "https://huggingface.co/ada/lora/discussions/1"
    assert repository.commits[repository.branches["main"]] == {}
    assert "README.md" in repository.commits[repository.branches["refs/pr/1"]]
    with pytest.raises(ModuleFileError, match="got branch 'v1' and create_pr, expected one"):
        local.push_to_hub("lora", branch="v1", create_pr=True)


@pytest.mark.parametrize(("name", "token"), [("ada/lora", "hf_wrong"), ("a/b/c", TOKEN), ("ada/lo ra", TOKEN)])
def test_a_push_that_cannot_be_is_one_sentence(hub: FakeHub, module: str, name: str, token: str) -> None:
    with pytest.raises(ModuleFileError, match=rf"^cannot push to '{name}', expected ORG/NAME .* log in"):
        regraft.load(module).push_to_hub(name, token=token)
    assert not hub.repositories


def test_the_card_names_a_base_model_of_the_hub_as_peft_does(
    hub: FakeHub, make_model: Callable[..., str], tmp_path: Path
) -> None:
    hub.add("ada/base", make_model("llama", layers=2))
    transformers.AutoConfig.from_pretrained("ada/base")
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(tiny_config("llama", layers=2))
    base.name_or_path = base.config._name_or_path = "ada/base"
    model = get_peft_model(base, LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "theirs")
    regraft.load(tmp_path / "theirs").save(tmp_path / "ours")
    theirs, ours = (ModelCard.load(tmp_path / name / "README.md").data for name in ("theirs", "ours"))
    assert theirs.base_model == ours.base_model == "ada/base"
    assert set(ours.tags) - set(theirs.tags) == {"regraft"}
    assert set(theirs.tags) <= set(ours.tags)
    assert (ours.library_name, ours.pipeline_tag) == (theirs.library_name, theirs.pipeline_tag)
    assert ours.base_model_relation == "adapter"


@pytest.mark.parametrize("name", ["models/student", "student", "/home/ada/models/student", "a/b/c", ""])
def test_a_name_that_nobody_saw_on_the_hub_is_none_of_it(hub: FakeHub, module: str, name: str, tmp_path: Path) -> None:
    hub.add("models/student", module)  # a stranger's
    assert fetched_commit(name) is None
    local = regraft.load(module)
    regraft.Module({**local.config, "base_model_name_or_path": name}, local.tensors).save(tmp_path / "saved")
    card = ModelCard.load(tmp_path / "saved" / "README.md").data
    assert card.base_model is None
    assert not [tag for tag in card.tags if tag.startswith("base_model")]


def test_a_folder_here_hides_a_model_of_the_hub(
    hub: FakeHub, make_model: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("models/student", make_model(layers=2))
    transformers.AutoConfig.from_pretrained("models/student")
    assert fetched_commit("models/student") == commit
    monkeypatch.chdir(tmp_path)
    Path("models/student").mkdir(parents=True)
    assert fetched_commit("models/student") is None


def test_the_command_line_ports_a_revision_and_pushes(
    hub: FakeHub, module: str, make_model: Callable[..., str], run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    commit = hub.add("ada/lora", module, branch="v1")
    student, out = make_model(layers=1), tmp_path / "port"
    how = ("--student", student, "--revision", "v1", "--out", out, "--push-to", "ada/port")
    code, said, _ = run("transfer", "ada/lora", *how)
    assert code == 0
    assert "Pushed it: https://huggingface.co/ada/port/commit/" in said
    pushed = regraft.load("ada/port")
    assert (pushed.hash(), pushed.report["module_commit"]) == (regraft.load(out).hash(), commit)


@pytest.mark.parametrize(("name", "token"), [("a/b/c", TOKEN), ("ada/port", "hf_wrong")])
@pytest.mark.usefixtures("hub")
def test_a_push_is_refused_before_the_work(
    name: str,
    token: str,
    module: str,
    make_model: Callable[..., str],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    how = ("--student", make_model(layers=1), "--out", tmp_path / "port", "--push-to", name)
    code, _, said = run("transfer", module, *how)
    assert (code, f"cannot push to '{name}'" in said) == (2, True)
    assert not (tmp_path / "port").exists()
