"""Every command of the pages is one that regraft takes; those of the README, the guide and the tutorials run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import supported
import transformers
from conftest import make_texts, of_many_answers, write_split
from peft import LoraConfig, get_peft_model

from regraft.cli.main import commands as application

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted(ROOT.glob("docs/tutorials/*.md"))
SKILL = ROOT / "skills" / "regraft" / "SKILL.md"
PAGES = (ROOT / "README.md", SKILL, *sorted(ROOT.glob("docs/*.md")), *TUTORIALS)
Run = Callable[..., tuple[int, str, str]]


def commands(page: Path) -> Iterator[list[str]]:
    """List the arguments of the regraft commands in the page's shell blocks."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "regraft":
                yield words[1:]


ALL = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize("words", [words for _, words in ALL], ids=[f"{page.stem}: {' '.join(w)}" for page, w in ALL])
def test_a_command_is_taken_as_it_stands(words: list[str]) -> None:
    said = {"$TASK": "ner", "$PEFT": "lora", "$LANG_": "de"}
    words = [said.get(word, word) for word in words]
    _, bound, _ = application(words).parse_args(words, exit_on_error=False, print_error=False)
    assert bound.arguments or words == ["demo"]


@pytest.mark.slow
def test_the_commands_of_the_guide_run_in_order(
    make_model: Callable[..., str],
    make_module: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    """Models are tiny and data local, and what a page leaves to its reader is there."""
    monkeypatch.chdir(tmp_path)
    teacher, student, other = make_model(layers=4), make_model(layers=2), make_model(width=48, layers=2)
    places = {"$TEACHER": teacher, "T": teacher, "S": other, "OTHER": other, "DIR": "data", "student": student}
    places |= {"200": "5", "100,400,1600": "20,40"}  # steps, texts
    (tmp_path / "data" / "en").mkdir(parents=True)
    for split, rows in (("train", 60), ("val", 20), ("test", 20)):
        write_split(tmp_path / "data" / "en" / f"{split}.conllu", rows, seed=rows)
    for file in ("texts.txt", "corpus.txt", "part-1.txt", "part-2.txt"):
        (tmp_path / file).write_text("\n".join(make_texts(90, seed=len(file) + ord(file[5]))))
    texts, second = ((tmp_path / file).read_text().split("\n") for file in ("texts.txt", "corpus.txt"))
    pairs = list(zip(texts, second, strict=True))
    (tmp_path / "pairs.tsv").write_text("\n".join("\t".join(row) for row in [("premise", "hypothesis"), *pairs]))
    for module in ("teacher-lora", "module-a", "module-b"):
        (tmp_path / module).symlink_to(of_many_answers(make_module(teacher, "lora", labels=9), texts))
    nli = make_module(teacher, "lora", labels=3, task_type="SEQ_CLS")
    (tmp_path / "teacher-nli").symlink_to(of_many_answers(nli, pairs))
    questions = "\n".join("\t".join(row) for row in [("question", "context"), *pairs])
    (tmp_path / "questions.tsv").write_text(questions)
    (tmp_path / "teacher-qa").symlink_to(make_module(teacher, "lora", labels=2, task_type="QUESTION_ANS"))
    (tmp_path / "student-lora").symlink_to(make_module(other, "lora", labels=9))
    # Of single texts, with columns and a head of another's.
    (tmp_path / "reviews").mkdir()
    (tmp_path / "my-lora").symlink_to(
        of_many_answers(make_module(teacher, "lora", labels=2, task_type="SEQ_CLS"), texts)
    )
    for split in ("train", "val", "test"):
        rows = [f"{text},{('negative', 'positive')[number % 2]}" for number, text in enumerate(texts)]
        (tmp_path / "reviews" / f"{split}.csv").write_text("\n".join(["review,stars", *rows]))
    # Of language models.
    llama = str(tmp_path / "llama")
    shutil.copytree(make_model("llama", layers=2, tie_word_embeddings=True), llama)
    template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    (tmp_path / "llama" / "chat_template.jinja").write_text(template)
    for folder in ("texts", "chats"):
        (tmp_path / folder).mkdir()
    said = [{"role": "user", "content": "who walks"}, {"role": "assistant", "content": "the doctor"}]
    for split in ("train", "val", "test"):
        (tmp_path / "texts" / f"{split}.txt").write_text("\n".join(make_texts(20, seed=len(split))))
        (tmp_path / "chats" / f"{split}.jsonl").write_text("\n".join([json.dumps({"messages": said})] * 3))
    (tmp_path / "decoder-lora").symlink_to(make_module(llama, "lora", task_type="CAUSAL_LM"))
    ran = []
    for words in commands(ROOT / "docs" / "guide.md"):
        if {"my/set", "org/name:config", "minilm-wikineural", "demo"} & {*words} or words[0] == "report":
            continue  # on the hub, or minutes
        arguments = [places.get(word, word) if word != "student" or words[n - 1] != "--out" else word
                     for n, word in enumerate(words)]  # fmt: skip
        if "--harness" in words:
            continue  # an extra
        if "lm" in words and words[0] == "train":
            arguments[arguments.index(other)] = llama
        if words[0] == "compare" and "ported" in words:  # of the module before it
            port = (words[1], "--student", other, "--texts", "texts.txt", "--out", "ported", "--replace")
            code, _, err = run("transfer", *port)
            assert code == 0, err
        if words[0] in ("train", "evaluate") and "--data" not in words:
            arguments += ["--data", "data"]
        if words[0] == "convert" and "DIR" in words:
            arguments[arguments.index("data")] = "decoder-lora" if "gguf" in words else "teacher-lora"
        if words[0] in ("train", "distill") and "--epochs" not in words:
            arguments += ["--epochs", "1"]
        code, out, err = run(*arguments, "--replace") if "--out" in words else run(*arguments)
        assert code == 0, f"regraft {' '.join(words)}: {err or out}"
        ran.append(words[0])
    assert {"plan", "transfer", "train", "evaluate", "distill", "convert"} <= {*ran}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(page for page in TUTORIALS if page.stem != "decoders")], ids=lambda page: page.stem
)
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """On the models that ship; trainings are cut short."""
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        less = {"320": "32", "3": "1", "100": "4"}  # rows, epochs, steps
        code, out, err = run(*(less.get(word, word) for word in words))
        assert code == 0, f"regraft {' '.join(words)}: {err or out}"
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(block, {})


@pytest.mark.slow
def test_the_tutorial_of_decoders_runs(
    make_model: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """On tiny decoders in place of those of the hub."""
    monkeypatch.chdir(tmp_path)
    sizes = {"tie_word_embeddings": True, "layers": 2}
    teacher, student = make_model("gemma3_text", **sizes), make_model("llama", width=48, **sizes)
    base = transformers.AutoModelForCausalLM.from_pretrained(teacher)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(tmp_path / "my-lora")
    (tmp_path / "texts").mkdir()
    for file in ("texts.txt", "other-texts.txt", *(f"texts/{split}.txt" for split in ("train", "val", "test"))):
        (tmp_path / file).write_text("\n".join(make_texts(90, seed=len(file))))
    places = {"HuggingFaceTB/SmolLM2-135M-Instruct": student, "100": "4"}
    refused = []
    for words in commands(ROOT / "docs" / "tutorials" / "decoders.md"):
        code, out, err = run(*(places.get(word, word) for word in words))
        refused += [words] if code == 2 else []
        assert code == 0 or words[0] == "plan", f"regraft {' '.join(words)}: {err or out}"
    assert ["--texts" in words for words in refused] == [False]  # the plan without them, as the page says


def test_the_tables_of_what_is_supported_are_those_of_the_records() -> None:
    document = supported.DOCUMENT.read_text(encoding="utf-8")
    assert supported.filled(document) == document
    assert all(table in document for table in supported.tables().values())
