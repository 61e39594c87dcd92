"""Make the small models and the data that `regraft demo` runs on, without a network.

    python recipes/micro_models.py --out src/regraft/demo

``teacher`` and ``student`` are the pair that matches: the student is what `regraft distill` makes of the teacher.
``wide-teacher`` and ``apart-student`` were pretrained apart, on other texts, with other tokenizers. Weights are
written in 16 bits, and load in 32. The same machine and versions make the same files, byte for byte, with the
tokenizers that are in the folder: these are kept, since the library that trains tokenizers breaks ties by chance. Where
there is none a new one is made. Ten to fifteen minutes of one CPU core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets.utils import disable_progress_bars
from micro.data import SEPARATOR, Text, pretraining_texts, write_tasks
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForPreTraining,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from regraft.demo.shipped import LANGUAGES, SEED, TASKS
from regraft.distillation.masking import collator, encode
from regraft.distillation.options import DistillOptions
from regraft.distillation.students import distill

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LONGEST = 80
RATE = 1e-3  # twice as much, or INIT, and the models of four layers stay at the frequencies of words
INIT = 0.05
MASKED = 0.2


@dataclass(frozen=True)
class Recipe:
    """A model to pretrain as BERT was: by masked words, and by whether a sentence follows the other."""

    width: int
    layers: int
    seed: int
    tokenizer: str
    vocabulary: int
    texts: int
    epochs: float


RECIPES = {
    "teacher": Recipe(width=64, layers=4, seed=1, tokenizer="wordpiece", vocabulary=600, texts=40000, epochs=5),
    "wide-teacher": Recipe(width=96, layers=4, seed=2, tokenizer="unigram", vocabulary=700, texts=40000, epochs=4),
    "apart-student": Recipe(width=64, layers=2, seed=3, tokenizer="wordpiece", vocabulary=500, texts=40000, epochs=5),
}
DISTILLATION = DistillOptions(
    epochs=2.0, batch_size=64, learning_rate=1e-3, max_length=LONGEST, seed=4, save_every=1000
)
DISTILLATION_TEXTS = 40000


def make_tokenizer(kind: str, vocabulary: int, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer; it does not number the sentences of a pair, since `distill` reads a pair as one text."""
    options: dict[str, Any] = {"vocab_size": vocabulary, "special_tokens": SPECIAL, "show_progress": False}
    plain = [text.replace(f"{SEPARATOR} ", "") for text in texts]
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(**options)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **options)
    tokenizer.train_from_iterator(plain, trainer)
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:0 </s>:0", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],
    )


def pretrain(recipe: Recipe, out: Path) -> None:
    """Pretrain a model and write it."""
    drawn = pretraining_texts(recipe.texts, recipe.seed, LANGUAGES)
    texts = [str(text) for text in drawn]
    tokenizer = (
        PreTrainedTokenizerFast.from_pretrained(out)
        if (out / "tokenizer.json").is_file()
        else make_tokenizer(recipe.tokenizer, recipe.vocabulary, texts)
    )
    set_seed(recipe.seed)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        intermediate_size=2 * recipe.width,
        max_position_embeddings=LONGEST,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=INIT,
        pad_token_id=1,
    )
    rows = encode(texts, tokenizer, LONGEST, masked=True)
    rows = rows.add_column("next_sentence_label", [_label(text) for text in drawn])
    model = AutoModelForPreTraining.from_config(config)
    with TemporaryDirectory() as work:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=work,
                num_train_epochs=recipe.epochs,
                per_device_train_batch_size=64,
                learning_rate=RATE,
                warmup_steps=0.05,
                lr_scheduler_type="linear",
                weight_decay=0.01,
                seed=recipe.seed,
                logging_steps=250,
                save_strategy="no",
                remove_unused_columns=False,
                dataloader_pin_memory=False,
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=rows,
            data_collator=collator(tokenizer, MASKED, recipe.seed),
        )
        trainer.train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    halve(out)


def _label(text: Text) -> int:
    """BERT's next-sentence label: 0 where the second sentence follows, -100 where there is none."""
    return -100 if text.follows is None else int(not text.follows)


def halve(directory: Path) -> None:
    """Round a model's file to 16 bits; its configuration goes on to say in what precision it loads: 32 bits."""
    weights = load_file(directory / "model.safetensors")
    save_file(
        {name: tensor.half() for name, tensor in weights.items()}, directory / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((directory / "config.json").read_text())
    assert config["dtype"] == "float32", config["dtype"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models/ and tasks/")
    parts = [*RECIPES, "student", "tasks"]
    parser.add_argument("--only", nargs="+", default=parts, choices=parts, help="which of them to make")
    arguments = parser.parse_args()
    disable_progress_bars()
    for name in arguments.only:
        start, models_folder = time.time(), arguments.out / "models"
        if name == "tasks":
            write_tasks(arguments.out / name, SEED, TASKS, LANGUAGES)
        elif name == "student":
            texts = [str(text) for text in pretraining_texts(DISTILLATION_TEXTS, DISTILLATION.seed, LANGUAGES)]
            done = distill(
                models_folder / "teacher",
                models_folder / name,
                texts,
                options=DISTILLATION,
                replace=True,
                progress=False,
            )
            halve(done.path)
            print(done.before, done.after)
        else:
            pretrain(RECIPES[name], models_folder / name)
        print(f"{name}: {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
