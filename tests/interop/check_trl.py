"""Ask TRL's SFTTrainer whether it trains on what regraft ports between decoders, for one step.

Usage: PYTHONPATH=TRL python tests/interop/check_trl.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from check_llama_cpp import SIZES
from common import perturb
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from trl import SFTConfig, SFTTrainer

import regraft

# Teacher and student.
PAIRS = (("llama", "qwen2"), ("qwen3", "gemma2"))
TOKENIZER = Path(__file__).parents[1] / "fixtures" / "unigram.json"
WORDS = ("the", "river", "runs", "past", "a", "city", "where", "doctors", "and", "teachers", "live")
TEXTS = [" ".join(WORDS[(start * step) % len(WORDS)] for step in range(1, 13)) for start in range(1, 41)]


def write_base(model_type: str, width: int, layers: int, folder: Path) -> Path:
    """Write a language model of random weights with its tokenizer."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(TOKENIZER)), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": len(tokenizer)}
    config = transformers.AutoConfig.for_model(model_type, **{**SIZES, **sizes})
    torch.manual_seed(layers)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def port(teacher: Path, student: Path, folder: Path) -> Path:
    """Write a LoRA on all linear layers of the teacher, and its port to the student."""
    model = transformers.AutoModelForCausalLM.from_pretrained(teacher)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM"))
    perturb(adapted)
    adapted.save_pretrained(folder / "module")
    ported = regraft.transfer(regraft.load(folder / "module"), str(student), texts=TEXTS, align="ridge", progress=False)
    ported.save(folder / "ported")
    return folder / "ported"


def problems(student: Path, ported: Path, folder: Path) -> list[str]:
    """Train for a step; say what is not as it has to be."""
    model = transformers.AutoModelForCausalLM.from_pretrained(student)
    adapted = PeftModel.from_pretrained(model, str(ported), is_trainable=True)
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    said: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-2, "report_to": [], "use_cpu": True, "bf16": False}
    settings = SFTConfig(output_dir=str(folder / "trained"), save_strategy="no", disable_tqdm=True, **said)
    tokenizer = transformers.AutoTokenizer.from_pretrained(student)
    trainer = SFTTrainer(
        adapted, settings, train_dataset=Dataset.from_dict({"text": TEXTS}), processing_class=tokenizer
    )
    trainer.remove_callback(transformers.PrinterCallback)
    loss = trainer.train().training_loss
    after = trainer.model.state_dict()
    trainer.save_model(str(folder / "saved"))
    its, mine = (regraft.load(path).tensors for path in (folder / "saved", ported))
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    checks = {
        f"the loss is {loss}": 0 < loss < float("inf"),
        "the module that was trained has other tensors": its.keys() == mine.keys(),
        "what is trained is not the module": moved == {name for name in before if "lora_" in name},
    }
    return [problem for problem, good in checks.items() if not good]


def main() -> None:
    """Print a line per pair."""
    failed = 0
    for teacher, student in PAIRS:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            bases = write_base(teacher, 32, 4, folder / "teacher"), write_base(student, 48, 2, folder / "student")
            found = problems(bases[1], port(*bases, folder), folder)
        failed += bool(found)
        print(f"{'FAILED' if found else 'ok':<8}{teacher} to {student:<16}{'; '.join(found)}")
    print(f"{len(PAIRS)} ports, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
