"""What is written is whole, is written by one process at a time, and a command that is stopped ends in order."""

from __future__ import annotations

import ast
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers

import regraft
from regraft.errors import ModuleFileError
from regraft.experiment.store import Store
from regraft.files.directories import claimed, new_directory
from regraft.files.writing import told, write_json
from regraft.modules.module import Module
from regraft.stopping import Stopped, stoppable, undisturbed

SOURCE = Path(regraft.__file__).parent


def module_of(size: int, value: float = 1.0) -> Module:
    """Make a module of so many bytes."""
    return Module({"peft_type": "LORA", "r": 1}, {"base_model.model.a.lora_A.weight": torch.full((size // 4,), value)})


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# Full disks.


@pytest.fixture(params=[20, 60, 150, 400])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Directory on a file system of so many kB."""
    place = tmp_path / "small"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(place)]
    try:
        subprocess.run(mounting, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    with pytest.raises(
        ModuleFileError, match=r"^cannot write .*/small/out: No space left on device \(.*B are free there"
    ):
        module_of(500_000).save(small_disk / "out")
    assert names(small_disk) == []
    module_of(100).save(small_disk / "out")
    before = regraft.load(small_disk / "out").hash()
    with pytest.raises(ModuleFileError, match="No space left on device"):
        module_of(500_000).save(small_disk / "out", replace=True)
    assert names(small_disk) == ["out"]
    assert regraft.load(small_disk / "out").hash() == before


def test_a_file_that_does_not_fit_leaves_the_one_before(small_disk: Path) -> None:
    write_json(small_disk / "file.json", "old")
    with pytest.raises(ModuleFileError, match=r"cannot write .*/small/file.json: No space left on device"):
        write_json(small_disk / "file.json", "x" * 500_000)
    assert names(small_disk) == ["file.json"]
    assert (small_disk / "file.json").read_text() == '"old"\n'


def test_a_disk_that_is_full_for_other_libraries(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "cache"))

    monkeypatch.setattr("regraft.modules.module.load", fill)
    code, _, error = run("transfer", "module", "--student", "model", "--out", tmp_path / "out")
    assert code == 2
    assert error.startswith(f"error: cannot write {tmp_path / 'cache'}: No space left on device (")
    assert len(error.splitlines()) == 1


def test_all_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, then the directory that holds them, then the one that gets its name."""
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_ino))
    module_of(100).save(tmp_path / "out", curve=[{"step": 1}])
    files = [path.stat().st_ino for path in (tmp_path / "out").iterdir()]
    whole, named = (tmp_path / "out").stat().st_ino, tmp_path.stat().st_ino
    assert flushed[-2:] == [whole, named]
    assert set(files) < set(flushed[:-2])


def test_nothing_else_opens_files_for_writing() -> None:
    """Two modules of `files` write. Besides, activations are held on disk, and transformers writes whole models."""
    allowed = {"activations/shelf.py": {"save_file"}, "modules/model_directory.py": {"save_pretrained"}}
    allowed |= {"modules/module.py": {"torch.save"}}  # into memory
    allowed |= {"files/writing.py": {"save_file", "write_bytes", "replace"}, "files/directories.py": {"rename"}}
    found: dict[str, set[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and (name := writes(call)):
                found.setdefault(str(file.relative_to(SOURCE)), set()).add(name)
    assert found == allowed


def writes(call: ast.Call) -> str:
    """Name how a call writes, where it does."""
    said = ast.unparse(call.func)
    name = said.rpartition(".")[2]
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    if name == "open":
        return name if any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes) else ""
    if said in ("torch.save", "os.rename", "os.replace", "json.dump", "np.save"):
        return said
    if name in ("write_text", "write_bytes"):  # of a path, not the functions of that name
        return name if isinstance(call.func, ast.Attribute) else ""
    if name == "replace":  # of a path, not of a string or a record
        return name if len(given) == 1 else ""
    return name if name in ("save_file", "save_pretrained", "rename") else ""


# One process at a time.


@pytest.fixture
def held(tmp_path: Path) -> Iterator[None]:
    """Hold ``tmp_path / "out"`` as another process does."""
    lock = os.open(tmp_path / ".out.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


@pytest.mark.usefixtures("held")
def test_the_second_of_two_processes_is_refused(
    run: Callable[..., tuple[int, str, str]],
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    ner_folder: Path,
    tmp_path: Path,
) -> None:
    model = make_model(layers=2)
    module = make_module(model)
    for command in (
        ("transfer", module, "--student", model),
        ("convert", module, "--to", "peft"),
        ("train", "--model", model, "--data", ner_folder, "--quiet"),
    ):
        code, _, error = run(*command, "--out", tmp_path / "out")
        assert code == 2
        assert f"error: another process is writing {tmp_path / 'out'}; wait until it has ended, or choose" in error
        assert "Traceback" not in error
        assert names(tmp_path) == [".out.lock"]


def test_a_lock_that_nobody_holds_any_more_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / ".out.lock").touch()
    module_of(100).save(tmp_path / "out")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_of(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lockless(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", lockless)
    with pytest.warns(UserWarning, match=r"the file system of .*/out has no file locks \(.*\), so nothing keeps other"):
        module_of(100).save(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    with (
        pytest.raises(ModuleFileError, match="expected a file system with working flock"),
        Store(tmp_path).claim("key"),
    ):
        pass


def test_what_a_killed_process_left_beside_is_removed_and_the_old_put_back(tmp_path: Path) -> None:
    module_of(100).save(tmp_path / "out")
    before = regraft.load(tmp_path / "out").hash()
    (tmp_path / "out").rename(tmp_path / ".out.regraft-old")  # it died between two renames
    (tmp_path / ".out.regraft-new").mkdir()
    (tmp_path / ".out.regraft-new" / "half").touch()
    with pytest.raises(ModuleFileError, match=r"out exists; choose another name, or replace it \(--replace\)"):
        module_of(200).save(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert regraft.load(tmp_path / "out").hash() == before


def test_directories_within_are_left_open(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out", False, ()) as directory:
        (directory / "chat_templates").mkdir()
        (directory / "chat_templates" / "one.jinja").touch(mode=0o600)
    assert (tmp_path / "out" / "chat_templates").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "chat_templates" / "one.jinja").stat().st_mode & 0o777 == 0o644


def test_folders_on_the_way_stay_only_where_something_is_written(tmp_path: Path) -> None:
    with claimed(tmp_path / "a" / "b" / "out", False, ()):
        assert names(tmp_path / "a" / "b") == [".out.lock"]
    assert names(tmp_path) == []
    module_of(100).save(tmp_path / "a" / "b" / "out")
    assert names(tmp_path / "a" / "b") == ["out"]


# Signals.


@pytest.fixture
def _heard() -> Iterator[None]:
    """What is started in the background may ignore Ctrl-C, as may what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_a_sentence(
    number: signal.Signals,
    code: int,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(number)

    def stop(*_: object, **__: object) -> None:
        assert names(tmp_path) == [".out.lock"]
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # as `timeout` does
        time.sleep(10)

    monkeypatch.setattr("regraft.modules.module.load", stop)
    ended = run("transfer", "module", "--student", "model", "--out", tmp_path / "out")
    assert ended == (code, "", "stopped: nothing is half written; run the same command again\n")
    assert names(tmp_path) == []
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("_heard")
def test_a_signal_ends_a_command_while_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "cyclopts.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "regraft", "families"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode == 130
    assert ended.stderr == "stopped: nothing is half written; run the same command again\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device here that is always full")
def test_what_the_writer_of_tokenizers_says_of_a_full_disk_is_told(
    make_model: Callable[..., str], tmp_path: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(make_model(layers=2))
    with (
        pytest.raises(ModuleFileError, match=r"cannot write .*out: No space left on device \("),
        told(tmp_path / "out"),
    ):
        tokenizer.backend_tokenizer.save("/dev/full")
    with pytest.raises(Exception, match="of another kind"), told(tmp_path / "out"):
        raise Exception("of another kind")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device here that is always full")
@pytest.mark.parametrize("command", [(), ("families",), ("families", "--json"), ("--help",), ("--version",)])
def test_a_full_disk_behind_the_output_is_told(command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-m", "regraft", *command], stdout=full, stderr=-1, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("error: cannot print: No space left on device; make room")


def test_a_signal_waits_for_what_must_not_be_left_half_done() -> None:
    done = []

    def work() -> None:
        with stoppable():
            with undisturbed():
                with undisturbed():
                    os.kill(os.getpid(), signal.SIGTERM)
                    done.append("inner")
                done.append("outer")
            done.append("after")

    with pytest.raises(Stopped) as stopped:
        work()
    assert done == ["inner", "outer"]
    assert stopped.value.number == signal.SIGTERM


def test_a_signal_that_was_ignored_before_is_ignored() -> None:
    """As for a command that is started with nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
@pytest.mark.slow
def test_a_training_that_is_stopped_says_how_to_go_on(
    make_model: Callable[..., str], ner_folder: Path, tmp_path: Path
) -> None:
    how = ["--data", str(ner_folder), "--epochs", "500", "--rank", "4", "--quiet", "--out", "out"]
    command = [sys.executable, "-m", "regraft", "train", "--model", make_model(layers=2), *how]
    started = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while started.poll() is None and not list(tmp_path.glob("out.training/*/regraft-checkpoint.json")):
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    error = started.communicate(timeout=60)[1]
    assert started.returncode == 130, error
    sentence = (
        f"stopped: what was trained so far is in {tmp_path}/out.training, and the same command goes on from there"
    )
    assert error.splitlines()[-1] == sentence
    assert "Traceback" not in error
    assert names(tmp_path) == ["out.training"]
