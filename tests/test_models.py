from __future__ import annotations

from collections.abc import Callable

from regraft.models.pretrained import resolve
from regraft.models.sites import attention_heads


def test_heads_are_counted_per_space_whatever_a_configuration_calls_them(make_model: Callable[..., str]) -> None:
    bert, distilbert = resolve(make_model("bert", num_attention_heads=8)), resolve(make_model("distilbert", layers=2))
    grouped = resolve(make_model("llama", num_key_value_heads=2))
    assert attention_heads(distilbert, bert) == dict.fromkeys(("query_output", "key_output", "value_output"), (4, 8))
    # Under grouped-query attention several queries share a key and a value.
    assert attention_heads(grouped, bert) == {"query_output": (4, 8), "key_output": (2, 8), "value_output": (2, 8)}
    assert attention_heads(bert, grouped) == {"query_output": (8, 4), "key_output": (8, 2), "value_output": (8, 2)}
