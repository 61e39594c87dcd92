"""In regraft's environment: PEFT's own tests ask of the bottleneck what they ask of several of PEFT's methods.

Each test that PEFT runs for several methods, LoRA among them, is run for `BottleneckConfig` in their place. The tiny
models that it takes from the hub are replaced by models of the same classes with random weights: they lie in the
working directory under their names on the hub, where transformers finds them.

Usage: python tests/interop/check_peft.py PEFT [OPTION OF PYTEST ...], with the folder of PEFT's source distribution
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import peft
import pytest
import torch
import transformers

from regraft import BottleneckConfig

FILES = (
    "test_config.py",
    "test_custom_models.py",
    "test_decoder_models.py",
    "test_encoder_decoder_models.py",
    "test_feature_extraction_models.py",
    "test_seq_classifier.py",
    "test_token_classification_qa.py",
)

NO_MERGING = "they merge, which a bottleneck cannot since it is not linear"
NO_WRAPPING = "they wrap convolutions, embeddings or attention, a bottleneck norms and linear layers"
OF_THE_HUB = "they load a configuration from the hub"
OTHER_DEFAULTS = "they change the default targets of other methods"
# Part of a test's name -> why such tests are not run.
LEFT_OUT = {
    "merg": NO_MERGING,
    "test_forward_float16": NO_MERGING,
    "test_forward_bfloat16": NO_MERGING,
    "test_disable_adapters[": "they expect a fresh adapter to change nothing, and AdapterHub's changes a little",
    "batches_lora_conv": NO_WRAPPING,
    "batches_mha_raises": NO_WRAPPING,
    "test_from_pretrained[": OF_THE_HUB,
    "test_from_pretrained_cache_dir[": OF_THE_HUB,
    "test_save_pretrained_with_runtime_config[": OF_THE_HUB,
    "test_default_target_modules_list_of_str": OTHER_DEFAULTS,
    "test_default_target_modules_str": OTHER_DEFAULTS,
}

# Name on the hub -> class.
MODELS = {
    "peft-internal-testing/tiny-random-BertModel": "BertModel",
    "peft-internal-testing/tiny-random-RobertaModel": "RobertaModel",
    "peft-internal-testing/tiny-random-DebertaModel": "DebertaModel",
    "peft-internal-testing/tiny-random-DebertaV2Model": "DebertaV2Model",
    "peft-internal-testing/tiny-random-BertForSequenceClassification": "BertForSequenceClassification",
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": "RobertaForSequenceClassification",
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": "LlamaForSequenceClassification",
    "peft-internal-testing/tiny-random-OPTForCausalLM": "OPTForCausalLM",
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": "GPT2LMHeadModel",
    "peft-internal-testing/tiny-random-GPTJForCausalLM": "GPTJForCausalLM",
    "trl-internal-testing/tiny-random-LlamaForCausalLM": "LlamaForCausalLM",
    "peft-internal-testing/tiny-dummy-qwen2": "Qwen2ForCausalLM",
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": "Gemma3ForCausalLM",
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": "T5ForConditionalGeneration",
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": "BartForConditionalGeneration",
}
# Each configuration takes what it knows.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 37),
    **dict.fromkeys(("pad_token_id", "decoder_start_token_id"), 0),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rotary_dim": 4,
    "vocab_size": 150,
    "initializer_range": 0.2,  # so that adapters change what is generated
    "max_position_embeddings": 64,
}
# Task -> modules of which each model has one; the default ones where all models have them.
TARGETS = {
    "SEQ_CLS": ["output.LayerNorm", "down_proj"],
    "CAUSAL_LM": ["self_attn.out_proj", "mlp.c_proj", "fc_out", "down_proj"],
    "SEQ_2_SEQ_LM": ["wo", "final_layer_norm"],
}
# Names of a test's parameters -> their values.
VALUES: dict[str, list[Any]] = {
    "config_cls": [BottleneckConfig],
    "config_class, mandatory_kwargs": [(BottleneckConfig, {})],
    "test_name, model_id, config_cls, config_kwargs": [
        (f"{model} {number}", model, BottleneckConfig, config)
        for number, (model, config) in enumerate(
            (
                ("MLP", {"target_modules": "lin0"}),
                ("MLP", {"target_modules": ["lin0"]}),
                ("MLP", {"target_modules": ["lin1"], "non_linearity": "gelu"}),
                ("MLP", {"target_modules": ["lin0", "lin1"], "scaling": 2.0}),
                ("MLP", {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
                ("MLP_LayerNorm", {"target_modules": "layernorm0"}),
                ("MLP_LayerNorm", {"target_modules": ["layernorm0", "lin0"]}),
                ("EmbConv1D", {"target_modules": ["lin0"]}),
            )
        )
    ],
    "test_name, tuner_method, config_cls, config_kwargs_1, config_kwargs_2": [
        ("same", "bottleneck", BottleneckConfig, {"target_modules": ["lin0"]}, {"target_modules": ["lin0"]}),
        ("different", "bottleneck", BottleneckConfig, {"target_modules": ["lin0"]}, {"target_modules": ["lin1"]}),
    ],
}


def is_lora(value: Any) -> bool:
    return value is peft.LoraConfig or isinstance(value, peft.LoraConfig)


def cells(row: Any) -> tuple[Any, ...]:
    return row if isinstance(row, tuple) else (row,)


def for_bottleneck(names: str, rows: list[Any]) -> list[Any]:
    """Give the values of a test's parameters with the bottleneck in place of PEFT's methods."""
    if names == "config_cls,config_kwargs":
        task = rows[0][1]["task_type"]
        return [(BottleneckConfig, {"task_type": task, "target_modules": TARGETS.get(task)})]
    if names.startswith("test_name, config"):
        return [tuple(map(_like, row)) for row in rows if any(map(is_lora, row))]
    return VALUES.get(names, rows)


def _like(value: Any) -> Any:
    if not isinstance(value, peft.LoraConfig):
        return value
    return BottleneckConfig(target_modules=value.target_modules, modules_to_save=value.modules_to_save)


class InTheirPlace:
    """Plugin of pytest that runs the tests for the bottleneck."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        marks = metafunc.definition.own_markers
        asked = [mark for mark in marks if mark.name == "parametrize"]
        if any(is_lora(cell) for mark in asked for row in mark.args[1] for cell in cells(row)):
            others = [mark for mark in marks if mark not in asked]
            metafunc.definition.own_markers = others + [
                pytest.mark.parametrize(mark.args[0], for_bottleneck(*mark.args), **mark.kwargs).mark for mark in asked
            ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        run, left = [], []
        for item in items:
            values = item.callspec.params.values() if hasattr(item, "callspec") else ()
            if not any(value is BottleneckConfig or isinstance(value, BottleneckConfig) for value in values):
                reason = "they are for other methods alone"
            else:
                reason = next((reason for part, reason in LEFT_OUT.items() if part in item.name), "")
            (left if reason else run).append(item)
            self.left_out[reason] += bool(reason)
        items[:] = run
        config.hook.pytest_deselected(items=left)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            # Tests of mixed batches skip all methods but those that they name.
            for module in (item.module, sys.modules["tests.testing_common"]):
                if "mixed_adapter_batches" in item.name and hasattr(module, "LoraConfig"):
                    patch.setattr(module, "LoraConfig", BottleneckConfig)
            return (yield)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for reason, count in self.left_out.most_common():
            if count:
                terminalreporter.write_line(f"{count} tests left out: {reason}")


def write_models() -> None:
    for name, class_name in MODELS.items():
        model_class = getattr(transformers, class_name)
        torch.manual_seed(0)
        model_class(model_class.config_class(**SIZES)).save_pretrained(name)


def import_without_diffusers(name: str) -> None:
    """Import a module of PEFT's tests; of diffusers they only ask whether a model is one of its pipelines."""
    diffusers: Any = ModuleType("diffusers")
    diffusers.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})
    sys.modules["diffusers"] = diffusers
    importlib.import_module(name)
    del sys.modules["diffusers"]


def main(folder: Path, options: list[str]) -> int:
    sys.path.insert(0, str(folder))
    (folder / "tests" / "__init__.py").touch()  # its tests import each other as one package
    (folder / "models").mkdir(exist_ok=True)
    os.chdir(folder / "models")
    transformers.utils.logging.disable_progress_bar()
    write_models()
    import_without_diffusers("tests.testing_common")
    # PEFT's options want a coverage report, and errors for what a newer transformers warns of.
    ours = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-W", "ignore::FutureWarning", "--disable-warnings"]
    files = [str(folder / "tests" / name) for name in FILES]
    return int(pytest.main([*ours, *options, *files], plugins=[InTheirPlace()]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
