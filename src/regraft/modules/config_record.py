"""What ``adapter_config.json`` may hold: the fields of PEFT's own class, of the types that PEFT declares."""

from __future__ import annotations

import dataclasses
import re
import time
import types
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from pydantic import BaseModel, ConfigDict, Field, create_model

from ..errors import ModuleFileError, first_line, quoted
from ..schema import make
from .config import check_portable, parse_config
from .peft_types import PEFT_TYPES

# PEFT declares whole numbers where people also write others, such as an alpha.
_Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=4096)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Size = Annotated[int, Field(ge=1, le=1 << 20)]
_PLAIN: Mapping[Any, Any] = {int: _Number, float: _Number, str: _Text, dict: dict[str, Any], bool: bool}
_REGULAR = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save")
_LISTED = ("layers_pattern", "modules_to_save")  # whose lists PEFT takes for patterns, too


def check_config(config: Mapping[str, Any], source: str, paths: Collection[str]) -> None:
    """Check a configuration; a PEFT type that is PEFT's but is not ported is refused later, by its name.

    Args:
        config: PEFT's configuration.
        source: what to call the module in messages.
        paths: some of those that its patterns are matched against.

    Raises:
        ModuleFileError: a type or a value that PEFT would not take, or a pattern that is no regular expression or never
            ends.
    """
    peft_type = config.get("peft_type")
    if not isinstance(peft_type, str):
        raise ModuleFileError(f"{source}: peft_type is {quoted(peft_type)}, expected a name such as LORA")
    if peft_type not in PEFT_TYPE_TO_CONFIG_MAPPING:  # nothing can be done with it, ported or not
        check_portable(config, source)
    if peft_type not in PEFT_TYPES:
        return
    make(
        _record(peft_type),
        config,
        lambda problem: ModuleFileError(f"{source}, adapter_config.json: {problem}; mend it"),
    )
    for pattern in _patterns(config, peft_type):
        _check_pattern(pattern, source, paths)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parse_config(config)
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # what PEFT itself does not take
        raise ModuleFileError(f"{source}, adapter_config.json: {first_line(error)}; mend it") from error


@cache
def _record(peft_type: str) -> type[BaseModel]:
    method, config_class = PEFT_TYPES[peft_type], PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(peft_type)]
    hints = get_type_hints(config_class)
    fields = {field.name: _plain(hints[field.name]) for field in dataclasses.fields(config_class)}
    fields |= {name: _Share for name in fields if name.endswith("dropout")}
    sizes: Any = list[bool] if method.size_mask else _Size
    own: dict[str, Any] = {method.size: _Size, method.size_pattern: dict[str, sizes] | None}
    own |= {method.alpha: _Number, method.alpha_pattern: dict[str, _Number] | None}
    fields |= {name: kind for name, kind in own.items() if name in fields}
    declared: dict[str, Any] = {name: (kind, None) for name, kind in fields.items()}
    # What PEFT does not declare, another version of it wrote; it reads none of that.
    return create_model(config_class.__name__, __config__=ConfigDict(strict=True, protected_namespaces=()), **declared)


def _plain(hint: Any) -> Any:
    """Give what JSON has for a type."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return Union[tuple({_plain(type(value)) for value in inside})]  # noqa: UP007 (made of a tuple)
    if origin in (Union, types.UnionType):
        return Union[tuple(_plain(one) for one in inside)]  # noqa: UP007
    if origin is dict:
        return dict[str, _plain(inside[1])]  # type: ignore[misc]
    if origin is not None:  # lists, tuples and other collections
        return list[_plain(inside[0])]  # type: ignore[misc]
    if dataclasses.is_dataclass(hint):  # PEFT makes them of objects
        return dict[str, Any]
    return type(None) if hint is type(None) else _PLAIN.get(hint, Any)


def _patterns(config: Mapping[str, Any], peft_type: str) -> Iterator[str]:
    """Give what PEFT takes for regular expressions; of lists of targets it takes the names as they are."""
    for option in _REGULAR:
        given = config.get(option)
        if isinstance(given, str):
            yield given
        elif isinstance(given, list) and option in _LISTED:
            yield from given
    for option in (PEFT_TYPES[peft_type].size_pattern, PEFT_TYPES[peft_type].alpha_pattern):
        yield from (config.get(option) or {}) if option else ()


# CPU seconds that a match may take: thousands of times what an honest one does.
_LONGEST_MATCH = 0.1


def _check_pattern(pattern: str, source: str, paths: Iterable[str]) -> None:
    """Refuse what is no regular expression, or takes a time that grows without bound with the length of a path."""
    if re.fullmatch(r"[\w.]*", pattern):
        return
    try:
        matches = re.compile(rf"(.*\.)?({pattern})$").match, re.compile(pattern).fullmatch
    except (re.error, RecursionError, OverflowError) as error:
        raise ModuleFileError(
            f"{source}: {quoted(pattern)} in adapter_config.json is no regular expression ({error}); mend it"
        ) from error
    long = "base_model.model.model.layers.10.self_attn.q_proj." * 2
    for path in (*paths, long):
        # Longer and longer, also so that nothing matches: what never ends shows before it does not end.
        for length in range(1, len(path) + 1):
            start = time.thread_time()
            for match in matches:
                for end in ("", "!", "\x7f"):
                    match(path[:length] + end)
            if time.thread_time() - start > _LONGEST_MATCH:
                raise ModuleFileError(
                    f"{source}: the regular expression {quoted(pattern)} in adapter_config.json takes too long to "
                    "match; write it without repetitions inside repetitions"
                )
