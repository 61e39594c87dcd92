"""What is tried: every command, on inputs of which one thing was changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fuzz.changes import Change, contents, tensors, values
from fuzz.runner import Case
from fuzz.world import World, copied
from hypothesis import strategies as st

QUICK = ("--epochs", "0.05", "--batch-size", "24", "--quiet")
STEP = ("--batch-size", "16", "--quiet")

# Of the words of a command: IT is what is changed, a name in braces a good input.
IT = "IT"
Words = Sequence[str]

_ROWS = ("--task", "classification", "--data", "{data}")
OF_MODULE: Sequence[Words] = (
    ("plan", IT, "--student", "{student}", "--align", "none"),
    ("plan", IT, "--student", "{teacher}", "--head", "fresh"),
    ("transfer", IT, "--student", "{student}", "--align", "random", "--head", "fresh", "--out", "out"),
    ("convert", IT, "--to", "adapterhub", "--out", "out"),
    ("convert", IT, "--to", "peft", "--out", "out"),
    ("convert", IT, "--to", "lora", "--rank", "2", "--out", "out", "--quiet"),
    ("convert", IT, "--to", "merged", "--out", "out"),
    ("evaluate", IT, *_ROWS, "--quiet"),
    ("train", "--init", IT, "--model", "{teacher}", *_ROWS, *QUICK, "--out", "out"),
    ("compare", "{lora}", IT, "--texts", "{texts.txt}", "--quiet"),
    ("refine", IT, "--teacher", "{lora}", "--texts", "{texts.txt}", "--steps", "1", *STEP, "--out", "out"),
)
OF_LANGUAGE: Sequence[Words] = (
    ("plan", IT, "--student", "{decoder}"),
    ("convert", IT, "--to", "gguf", "--out", "out"),
    ("evaluate", IT, "--task", "lm", "--data", "{lm}", "--quiet"),
)
OF_MODEL: Sequence[Words] = (
    ("family", IT),
    ("plan", "{lora}", "--student", IT, "--align", "none", "--head", "fresh"),
    ("plan", "{lora}", "--student", "{student}", "--teacher", IT, "--align", "none"),
    ("plan", "{lora}", "--student", IT, "--texts", "{texts.txt}", "--align", "lsa", "--batch-size", "4", "--quiet"),
    ("convert", "{lora}", "--to", "merged", "--model", IT, "--out", "out"),
    ("convert", "{lora}", "--to", "adapterhub", "--model", IT, "--out", "out"),
    ("evaluate", "{lora}", "--model", IT, *_ROWS, "--quiet"),
    ("train", "--model", IT, *_ROWS, *QUICK, "--out", "out"),
    ("distill", "--teacher", IT, "--texts", "{texts.txt}", "--max-steps", "1", "--quiet", "--out", "out"),
    ("sample", "--teacher", "{teacher}", "--student", IT, "--texts", "{texts.txt}", *STEP, "--out", "out"),
)
OF_MOMENTS: Sequence[Words] = (
    ("plan", "{lora}", "--student", "{student}", "--moments", IT, "--align", "lsa"),
    ("transfer", "{lora}", "--student", "{student}", "--moments", IT, "--out", "out"),
    ("transfer", "{lora}", "--student", "{student}", "--moments", IT, "--moments", "{moments}", "--out", "out"),
)
OF_TEXTS: Sequence[Words] = (
    ("sample", "--teacher", "{teacher}", "--student", "{student}", "--texts", IT, *STEP, "--out", "out"),
    ("compare", "{lora}", "{ported}", "--texts", IT, "--quiet"),
    ("refine", "{ported}", "--teacher", "{lora}", "--texts", IT, "--steps", "1", *STEP, "--out", "out"),
    ("distill", "--teacher", "{teacher}", "--texts", IT, "--max-steps", "1", "--quiet", "--out", "out"),
)
OF_DATA: Sequence[Words] = (
    ("evaluate", "{lora}", "--task", "classification", "--data", IT, "--labels", "no,yes", "--quiet"),
    ("train", "--model", "{student}", "--task", "classification", "--data", IT, *QUICK, "--out", "out"),
)
OF_ROWS: Sequence[Words] = (("evaluate", "{language}", "--task", "lm", "--data", IT, "--quiet"),)
OF_WORDS: Sequence[Words] = (("train", "--model", "{student}", "--data", IT, *QUICK, "--out", "out"),)
OF_STORE: Sequence[Words] = (("report", IT, "--out", "out"), ("experiment", "plan", "{grid.yaml}", "--store", IT))
OF_RESULTS: Sequence[Words] = (("report", IT, "--out", "out"),)
OF_EXPERIMENT: Sequence[Words] = (("experiment", "plan", IT), ("experiment", "plan", IT, "--verbose"))
OF_FAMILIES: Sequence[Words] = (
    ("family", "{student}", "--families", IT),
    ("plan", "{lora}", "--student", "{student}", "--align", "none", "--families", IT),
)

# What is changed -> in which good input, how its files are called, what is done with it, and the share of all cases.
TARGETS: Mapping[str, tuple[str, str, Sequence[Words], int]] = {
    "a PEFT configuration": ("lora", "adapter_config.json", OF_MODULE, 5),
    "a bottleneck's configuration": ("bottleneck", "adapter_config.json", OF_MODULE, 3),
    "AdapterHub's configurations": ("hub", "*config.json", OF_MODULE, 3),
    "regraft.json": ("ported", "regraft.json", OF_MODULE, 3),
    "tensors of a module": ("lora", "*.safetensors", OF_MODULE, 4),
    "AdapterHub's tensors": ("hub", "*.bin", OF_MODULE, 2),
    "a language module": ("language", "adapter_*", OF_LANGUAGE, 2),
    "a model's configuration": ("student", "config.json", OF_MODEL, 4),
    "weights of a model": ("student", "*.safetensors", OF_MODEL, 3),
    "a tokenizer": ("student", "tokenizer*.json", OF_MODEL, 3),
    "moments": ("moments", "*", OF_MOMENTS, 5),
    "texts": (".", "texts.txt", OF_TEXTS, 1),
    "a table of texts": ("jsonl", "train.jsonl", OF_TEXTS, 1),
    "rows of CSV": ("data", "*.csv", OF_DATA, 1),
    "rows of JSON": ("jsonl", "*.jsonl", OF_DATA, 1),
    "rows of TSV": ("tsv", "*.tsv", OF_DATA, 1),
    "rows of Parquet": ("parquet", "*.parquet", OF_DATA, 1),
    "conversations": ("lm", "*.jsonl", OF_ROWS, 2),
    "sentences": ("ner", "*.conllu", OF_WORDS, 1),
    "a store": ("store", "**/*.json", OF_STORE, 3),
    "results": (".", "results.csv", OF_RESULTS, 2),
    "an experiment": (".", "grid.yaml", OF_EXPERIMENT, 4),
    "records of families": ("families", "*.yaml", OF_FAMILIES, 2),
}


def words(world: World, given: Words, changed: str) -> list[str]:
    """Put in the places what stands for them."""
    return [changed if word == IT else str(world / word[1:-1]) if word[:1] == "{" else word for word in given]


def changed_input(world: World, name: str, file: str, change: Change, given: Words) -> Callable[[Path], list[str]]:
    """Give what makes a case of a change: a file inside a good input, or the input itself (``.``)."""

    def prepare(place: Path) -> list[str]:
        inside = copied(world, file if name == "." else name, place)
        change(inside if name == "." else inside / file)
        # A file of a table stands for itself where texts are read.
        whole = given in OF_TEXTS and name != "."
        return words(world, given, str(inside / file if whole else inside))

    return prepare


@st.composite
def changes(draw: st.DrawFn, world: World) -> Case:
    """Draw a good input with one thing changed in it, and a command that reads it."""
    kind = draw(st.sampled_from([name for name, (*_, share) in TARGETS.items() for _ in range(share)]))
    name, pattern, commands, _ = TARGETS[kind]
    file = draw(st.sampled_from(sorted(path for path in (world / name).glob(pattern) if path.is_file())))
    given = draw(st.sampled_from(commands))
    by_value = {".json": values, ".yaml": values, ".safetensors": tensors}.get(file.suffix)
    how = by_value if by_value is not None and draw(st.integers(0, 3)) else contents
    label, change = draw(how(file))
    return Case(kind, label, changed_input(world, name, str(file.relative_to(world / name)), change, given))


# Words that no option should take, or that are at the edge of what it takes.
WORDS = (
    "", " ", "x", "-1", "0", "1", "1.5", "-0.5", "nan", "inf", "-inf", "1e400", str(2**31), str(2**32), str(2**63),
    "9" * 5000,
    "0 1", "0,1", "0,,1", ",", "0,0", "1,0", "a,b", "a,,b", "a=b", "=", "meta", "cuda", "cuda:99", "cpu:7", "xpu",
    "auto",
    "lora", "none", "ridge", "random", "head", "fresh", "skip", "avg", "last", "query", "all-linear", "../..",
    "/proc/self",
    "/dev/zero", "/dev/null", "/", ".", "~", "~nobody", "a" * 300, "a" * 100_000, "org/name", "org/name:config",
    "org/" + "n" * 300,
    "package:regraft/none", "package:nothing/x", "a\nb", "\x1b[31m", "\udcff", "é", "[", "(.*)*x", "x.gguf", "x:y.gguf",
    "x.txt", "x.csv", "{", "$HOME", "${NOTHING}", "--", "-",
)  # fmt: skip

_OPTIONS: Mapping[str, Words] = {
    "plan": (
        "--student", "--teacher", "--layers", "--align", "--spaces", "--scale", "--head", "--labels",
        "--teacher-labels",
        "--seed", "--pairing", "--max-length", "--batch-size", "--texts", "--column", "--text-split", "--max-texts",
        "--moments", "--task", "--data", "--lang", "--max-eval", "--device", "--dtype", "--device-map", "--hold-memory",
        "--families", "--nonsense",
    ),
    "sample": ("--layers", "--sites", "--max-length", "--batch-size", "--texts", "--max-texts", "--device", "--column"),
    "train": (
        "--model", "--peft", "--init", "--preset", "--batch-size", "--learning-rate", "--warmup", "--precision",
        "--seed",
        "--max-length", "--epochs", "--max-train", "--max-eval", "--rank", "--alpha", "--bottleneck-size", "--head",
        "--task",
        "--data", "--lang", "--column", "--labels", "--families", "--track",
    ),
    "evaluate": (
        "--model", "--batch-size", "--max-length", "--max-eval", "--task", "--data", "--lang", "--column", "--labels",
        "--split", "--harness",
    ),
    "compare": ("--teacher-model", "--model", "--batch-size", "--max-length", "--texts", "--column", "--device"),
    "refine": (
        "--teacher", "--model", "--teacher-model", "--steps", "--learning-rate", "--temperature", "--grow", "--rank",
        "--batch-size", "--warmup", "--precision", "--seed", "--max-length", "--texts", "--by-texts", "--answers",
        "--data",
    ),
    "distill": (
        "--teacher", "--every", "--layers", "--epochs", "--batch-size", "--learning-rate", "--max-length",
        "--max-steps",
        "--temperature", "--weight-kl", "--mlm-probability", "--save-every", "--seed", "--texts",
    ),
    "convert": ("--to", "--rank", "--model", "--name"),
    "experiment": ("--store",),
    "report": ("--reference", "--experiment"),
    "family": ("--families",),
}  # fmt: skip
_GOOD: Mapping[str, Words] = {
    "plan": OF_MODULE[0],
    "sample": OF_TEXTS[0],
    "train": OF_DATA[1],
    "evaluate": OF_DATA[0],
    "compare": OF_TEXTS[1],
    "refine": OF_TEXTS[2],
    "distill": OF_TEXTS[3],
    "convert": OF_MODULE[3],
    "experiment": OF_EXPERIMENT[0],
    "report": OF_RESULTS[0],
    "family": OF_MODEL[0],
}
_INPUT = {"plan": "lora", "sample": "texts.txt", "train": "data", "evaluate": "data", "compare": "texts.txt"}
_INPUT |= {"refine": "texts.txt", "distill": "texts.txt", "convert": "lora", "experiment": "grid.yaml"}
_INPUT |= {"report": "results.csv", "family": "student"}


def with_option(world: World, command: str, option: str, word: str) -> Callable[[Path], list[str]]:
    """Give what makes a case of an option: in its place where the command has it, else behind."""
    good = words(world, _GOOD[command], str(world / _INPUT[command]))
    at = good.index(option) if option in good else len(good)
    return lambda _: [*good[:at], option, word, *good[at + 2 :]]


_WORK = ("--steps", "--max-steps", "--epochs")


@st.composite
def options(draw: st.DrawFn, world: World) -> Case:
    """Draw a command with a word that one of its options does not take."""
    command = draw(st.sampled_from([*_OPTIONS, "plan", "plan", "convert", "train"]))
    option = draw(st.sampled_from(_OPTIONS[command]))
    known = st.sampled_from(WORDS)
    # A training of thousands of steps is long, not bad.
    word = draw(known if option in _WORK else st.one_of(known, st.text(max_size=6), st.integers().map(str)))
    return Case("arguments", f"{command} {option} {word[:40]!r}", with_option(world, command, option, word))


@st.composite
def positions(draw: st.DrawFn, world: World) -> Case:
    """Draw a command whose first word is something else than what it reads."""
    command = draw(st.sampled_from(["plan", "convert", "evaluate", "report", "family", "experiment plan", "compare"]))
    word = draw(st.one_of(st.sampled_from(WORDS), st.sampled_from([str(path) for path in world.root.iterdir()])))
    rest = {"plan": ["--student", "{student}"], "convert": ["--to", "peft", "--out", "out"], "report": ["--out", "out"]}
    rest |= {"compare": ["{lora}", "--texts", "{texts.txt}"]}
    given = [*command.split(), IT, *rest.get(command, [])]
    return Case("arguments", f"{command} {word[:40]!r}", lambda _: words(world, given, word))


def cases(world: World) -> st.SearchStrategy[Case]:
    """Draw a case of any kind."""
    drawn = st.sampled_from([changes, changes, changes, options, positions])
    return drawn.flatmap(lambda kind: kind(world))
