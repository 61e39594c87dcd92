"""What regraft has to know of a PEFT type: the record of `peft_types.PEFT_TYPES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .axes import Role

Maps = Literal["any", "one-to-one", "none"]


@dataclass(frozen=True)
class PeftMethod:
    """A PEFT type; a new one is a new record.

    Attributes:
        name: what its paper calls it.
        rows: its tensors by the kind of site that it sits on.
        maps: what kind of map takes its tensors to another space so that they compute there what they did.
        averages: whether the mean over layers of its tensors is the mean of what it does: where that is linear in them.
            LoRA's is not; its authors' layer matching averages it all the same.
        apart: whether zeros are no tensors of it (no reflection has the direction 0), so that no layer can be silent
            while another one is fitted.
        of_bases: whether what it adds is a function of the base weights, so that a copy adds the same only where these
            are equal, and elsewhere means the same operation.
        size: the option that says how wide its free axes are; empty without one.
        size_pattern: the option that says where they are otherwise: path -> size; empty without one.
        size_mask: where that option does not give sizes but lists which of `size` are left: the tensor behind the path.
        alpha: the option that scales what it writes; empty without one, or where it belongs to no place.
        alpha_pattern: as `size_pattern`.
        of_layers: options that speak of the teacher's layers, of which the sites say all.
        transposed: the option that says whether the base model's weights lie transposed; empty without one.
        gains_read: the option that names the sites whose gains are of what they read; empty without one.
        shared: its tensors that all sites share, by their whole keys. They are as wide as the widest of the sites.
        refused: option -> why a module with it would be wrong elsewhere.
        equal_bases: option -> why a module with it can only be copied, and only between equal base weights.
        init: the option that names the initialisation; empty without one.
        refused_inits: how the names of initialisations begin that also change the base weights, so that the module
            alone is not what was trained.
        grows: whether more of its free axes, or a new place, changes nothing as long as what writes there is zero, and
            can still be trained.
        root_scaled: the option by which what it writes is divided by the root of its size, not by its size.
        served: whether servers of language models (vLLM, llama.cpp) load it.
        ours: whether PEFT knows it only once regraft is imported.
    """

    name: str
    rows: Mapping[Literal["linear", "norm"], tuple[Role, ...]]
    maps: Maps = "none"
    averages: bool = False
    apart: bool = False
    of_bases: bool = False
    size: str = ""
    size_pattern: str = ""
    size_mask: str = ""
    alpha: str = ""
    alpha_pattern: str = ""
    of_layers: tuple[str, ...] = ()
    transposed: str = ""
    gains_read: str = ""
    shared: tuple[Role, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    equal_bases: Mapping[str, str] = field(default_factory=dict)
    init: str = ""
    refused_inits: tuple[str, ...] = ()
    grows: bool = False
    root_scaled: str = ""
    served: bool = False
    ours: bool = False

    @property
    def scales(self) -> bool:
        """Whether what it writes can be multiplied by a factor."""
        return any(role.scaled for rows in self.rows.values() for role in rows)

    def bound(self, config: Mapping[str, Any]) -> str:
        """Say why a module with this configuration can only be copied between equal base weights; empty if not so."""
        return next((reason for option, reason in self.equal_bases.items() if config.get(option)), "")

    def patterns(self, config: Mapping[str, Any], sizes: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
        """Say of places by their paths what a configuration does not say of all.

        Args:
            config: PEFT's configuration, with `size` and `alpha`.
            sizes: path of a place -> size and alpha there.
        """
        options = ((self.size, self.size_pattern), (self.alpha, self.alpha_pattern))
        patterns: dict[str, dict[str, Any]] = {
            pattern: {path: pair[number] for path, pair in sizes.items() if pair[number] != config[option]}
            for number, (option, pattern) in enumerate(options)
            if pattern
        }
        if self.size_mask:
            patterns[self.size_pattern] = {
                f"{path}.{self.size_mask}": [number < size for number in range(config[self.size])]
                for path, size in patterns[self.size_pattern].items()
            }
        return patterns
