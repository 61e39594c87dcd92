"""The one table of PEFT types: what each tensor's axes are, and which options mean more than the tensors say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from ..models.sites import Side, SiteShape, site_of
from .axes import Convention, Free, Gains, One, Reads, Role, Whole, Writes
from .peft_method import PeftMethod

# The authors reorder the rows of B by the mapping fitted on the input of the query projection.
_LORA_OUT = Writes("out", released="attention_input")
_LORA = (
    Role("lora_A.weight", (Free(), Reads("in")), into="lora_B.weight"),
    Role("lora_B.weight", (_LORA_OUT, Free()), scaled=True),
    Role("lora_B.bias", (_LORA_OUT,), scaled=True),
    Role("lora_magnitude_vector", (Writes("out"),)),
)


def _bottleneck(writes: Side) -> tuple[Role, ...]:
    # The authors sample the feed-forward output for both sides of a bottleneck.
    down, up = Reads("out", released="ff_output"), Writes(writes, released="ff_output")
    return (
        Role("bottleneck_down.weight", (Free(), down)),
        Role("bottleneck_down.bias", (Free(),), beside="bottleneck_down.weight"),
        Role("bottleneck_up.weight", (up, Free()), scaled=True),
        Role("bottleneck_up.bias", (up,), scaled=True),
    )


def _whole(*suffixes: str, scaled: tuple[str, ...] = ()) -> tuple[Role, ...]:
    return tuple(Role(suffix, (Whole(),), scaled=suffix in scaled) for suffix in suffixes)


_OF_LAYERS = ("layers_to_transform", "layers_pattern")
_READS, _WRITES = (Free(), Reads("in")), (Writes("out"), Free())
_LORA_REFUSED = {
    "layer_replication": "replicated layers have no counterpart",
    "target_parameters": "bare parameters are no sites",
    "trainable_token_indices": "token embeddings are tied to the teacher's vocabulary",
    "megatron_config": "Megatron's layers are split across devices",
    "use_qalora": "QA-LoRA's matrices act on groups of the teacher's quantised inputs",
    "use_bdlora": "BD-LoRA's matrices are blocks of the teacher's dimensions",
    "kasa_config": "KaSA changes the base weights too",
    "alora_invocation_tokens": "the tokens that switch it on are the teacher's vocabulary",
    "arrow_config": "it routes between several modules",
    "monteclora_config": "its matrices are samples of a distribution",
}

PEFT_TYPES: Mapping[str, PeftMethod] = {
    "LORA": PeftMethod(
        "LoRA",
        {"linear": _LORA},
        maps="any",
        averages=True,
        size="r",
        size_pattern="rank_pattern",
        alpha="lora_alpha",
        alpha_pattern="alpha_pattern",
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
        refused=_LORA_REFUSED,
        equal_bases={"use_dora": "DoRA's magnitudes are norms of rows of the teacher's weights"},
        grows=True,
        root_scaled="use_rslora",
        init="init_lora_weights",
        refused_inits=("pissa", "olora", "loftq", "corda", "lora_ga", "mica"),
        served=True,
    ),
    # Around a normalisation the module reads what leaves it and adds to what enters it.
    "BOTTLENECK": PeftMethod(
        "bottleneck",
        {"linear": _bottleneck(writes="out"), "norm": _bottleneck(writes="in")},
        maps="any",
        averages=True,
        size="bottleneck_size",
        of_layers=_OF_LAYERS,
        grows=True,
        ours=True,
    ),
    # B diag(E) A.
    "ADALORA": PeftMethod(
        "AdaLoRA",
        {
            "linear": (
                Role("lora_A", _READS),
                Role("lora_E", (Free(), One())),
                Role("lora_B", _WRITES, scaled=True),
            )
        },
        maps="any",
        size="init_r",
        size_pattern="rank_pattern",
        size_mask="lora_E",
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
        refused=_LORA_REFUSED,
    ),
    # An elementwise product of two products, which a permutation of rows and columns passes through.
    "LOHA": PeftMethod(
        "LoHa",
        {
            "linear": (
                Role("hada_w1_a", _WRITES, scaled=True),
                Role("hada_w1_b", _READS),
                Role("hada_w2_a", _WRITES),
                Role("hada_w2_b", _READS),
            )
        },
        maps="one-to-one",
        size="r",
        size_pattern="rank_pattern",
        alpha="alpha",
        alpha_pattern="alpha_pattern",
        of_layers=_OF_LAYERS,
    ),
    # A Kronecker product of w1 and w2, each whole or a product itself.
    "LOKR": PeftMethod(
        "LoKr",
        {
            "linear": _whole(
                "lokr_w1",
                "lokr_w1_a",
                "lokr_w1_b",
                "lokr_w2",
                "lokr_w2_a",
                "lokr_w2_b",
                scaled=("lokr_w1", "lokr_w1_a"),
            )
        },
        size="r",
        size_pattern="rank_pattern",
        alpha="alpha",
        alpha_pattern="alpha_pattern",
        of_layers=_OF_LAYERS,
    ),
    "IA3": PeftMethod(
        "IA3",
        {
            "linear": (
                Role("ia3_l", (Gains("out"), One()), scaled=True),
                Role("ia3_l", (One(), Gains("in")), scaled=True),
            )
        },
        maps="one-to-one",
        averages=True,
        of_bases=True,
        transposed="fan_in_fan_out",
        gains_read="feedforward_modules",
    ),
    "OFT": PeftMethod(
        "OFT",
        {"linear": _whole("oft_R.weight")},
        of_bases=True,
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
    ),
    "BOFT": PeftMethod(
        "BOFT",
        {"linear": _whole("boft_R", "boft_s")},
        of_bases=True,
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
    ),
    # The places of the spectrum are drawn from a seed and both widths.
    "FOURIERFT": PeftMethod(
        "FourierFT",
        {"linear": _whole("fourierft_spectrum", scaled=("fourierft_spectrum",))},
        averages=True,
        size="n_frequency",
        size_pattern="n_frequency_pattern",
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
    ),
    # Reflections of what the site reads, along the columns of u.
    "HRA": PeftMethod(
        "HRA",
        {"linear": (Role("hra_u", (Reads("in"), Free())),)},
        maps="one-to-one",
        apart=True,
        of_bases=True,
        size="r",
        of_layers=_OF_LAYERS,
    ),
    "MISS": PeftMethod(
        "MiSS",
        {"linear": _whole("miss_block", scaled=("miss_block",))},
        averages=True,
        size="r",
        of_layers=_OF_LAYERS,
    ),
    "C3A": PeftMethod(
        "C3A",
        {"linear": _whole("c3a_kernel", scaled=("c3a_kernel",))},
        averages=True,
        size="block_size",
        size_pattern="block_size_pattern",
        of_layers=_OF_LAYERS,
    ),
    "GRALORA": PeftMethod(
        "GraLoRA",
        {
            "linear": _whole(
                "gralora_A",
                "gralora_B",
                "gralora_A_general.weight",
                "gralora_B_general.weight",
                scaled=("gralora_B", "gralora_B_general.weight"),
            )
        },
        size="r",
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
    ),
    # The base weight times B A, element by element.
    "HIRA": PeftMethod(
        "HiRA",
        {"linear": (Role("hira_A", _READS), Role("hira_B", _WRITES, scaled=True))},
        maps="one-to-one",
        of_bases=True,
        size="r",
        size_pattern="rank_pattern",
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
    ),
    # Two vectors per site, around two random matrices that all sites share.
    "VERA": PeftMethod(
        "VeRA",
        {"linear": _whole("vera_lambda_b", "vera_lambda_d", scaled=("vera_lambda_b",))},
        size="r",
        of_layers=_OF_LAYERS,
        transposed="fan_in_fan_out",
        shared=(Role("base_model.vera_A", (Whole(),)), Role("base_model.vera_B", (Whole(),))),
    ),
}


def roles_of(peft_type: str, site: str) -> tuple[Role, ...]:
    """Return the rows of the table for a PEFT type on a site."""
    return PEFT_TYPES[peft_type].rows.get("norm" if site_of(site).is_norm else "linear", ())


def spaces_at(site: str) -> set[str]:
    """Name the spaces that any PEFT type on a site maps, in either convention."""
    rows = (role for peft_type in PEFT_TYPES for role in roles_of(peft_type, site))
    names = {
        name for role in rows for convention in get_args(Convention) for name in role.spaces(site, convention) if name
    }
    record = site_of(site)
    return names - {record.writes} | set(record.parts) if record.parts else names


def shape_at(role: Role, shape: tuple[int, ...], site: SiteShape) -> tuple[int, ...]:
    """Shape of a tensor with the axes of `shape` that are the module's own when it sits on `site`."""
    if Whole() in role.axes:
        return shape
    if len(shape) != len(role.axes):
        return (math.prod(shape),)
    return tuple(
        site.width(axis.side) if isinstance(axis, Reads | Writes | Gains) else size
        for axis, size in zip(role.axes, shape, strict=True)
    )
