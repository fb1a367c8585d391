"""Check peft's `adapter_config.json`, which anybody may have written: what it may hold, and what it must agree with.

peft itself trusts it: patterns are matched as regular expressions, ranks are allocated, named modules are imported.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft import PeftConfig
    from torch import nn

    from autopeft.common.params import Params

NAME = re.compile(r"[\w.-]{1,200}")
"""A text that is not a path and means itself even if peft reads it as a regular expression."""

MOST = 65_536
"""The largest integer accepted as a size: far above any rank, and a matrix of it still fits into memory."""

OF_NO_EFFECT = ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision")
"""Fields that say where an add-on comes from, or that peft sets again when it loads one."""

FIRST_VALUES = (True, False, "gaussian")
"""Allowed values of `init_…_weights`: others change the base model's weights, or need data or minutes."""

FORBIDDEN = ("megatron_config", "megatron_core", "layer_replication")
"""Fields that import modules, or change the base model's layers."""


def read(path: Path) -> dict[str, Any]:
    """The fields of a configuration.

    Raises:
        UserInputError: the file cannot be read, or is not a configuration of a peft type known here.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    content: Any = plain_file.read_json(path)
    kind = content.get("peft_type") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise UserInputError(f"{path} must name a `peft_type` that peft knows, but has {str(kind)[:80]!r}; restore it.")
    known = {field.name for field in fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}
    if unknown := sorted(content.keys() - known):
        raise UserInputError(
            f"{path} has the field {unknown[0][:80]!r}, which the peft installed here does not know; install the "
            f"version that wrote it ({str(content.get('peft_version'))[:20]})."
        )
    return dict(content)


def build(content: Mapping[str, Any]) -> PeftConfig:
    """Build peft's configuration from fields that were compared or screened."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kept = {name: value for name, value in content.items() if name not in ("auto_mapping", "runtime_config")}
    return PEFT_TYPE_TO_CONFIG_MAPPING[content["peft_type"]](**kept)


def compare(content: Mapping[str, Any], made: PeftConfig, path: Path) -> None:
    """Make sure that a configuration matches what the method makes; a missing field has peft's default.

    Raises:
        UserInputError: a field differs; it names the first.
    """
    wanted, default = made.to_dict(), _defaults(type(made))
    for name in sorted({*wanted, *content} - {*OF_NO_EFFECT, "runtime_config"}):
        found, expected = content.get(name, default.get(name)), wanted.get(name, default.get(name))
        if _plain(found) != _plain(expected):
            raise UserInputError(
                f"{path} does not match what its method builds (`{name}` is {_short(found)} in place of "
                f"{_short(expected)}); restore the file, or install the version of the plugin that wrote it."
            )


def screen(content: Mapping[str, Any], path: Path, method: str, params: Params, base: nn.Module) -> None:
    """Make sure that a configuration whose method is not installed is harmless, and agrees with its card.

    Args:
        content: its fields.
        path: where it was read from.
        method: on the card. A method with the name of a peft type must have that type.
        params: on the card. A number there must equal the field of that name.
        base: the model it is for.

    Raises:
        UserInputError: a field holds anything but numbers and plain names, or more of them than there are modules.
    """
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = content["peft_type"]
    if method.upper() in PeftType.__members__ and kind != method.upper():
        raise UserInputError(f'{path} must be of the method "{method}", but its `peft_type` is {kind}; restore it.')
    default = _defaults(PEFT_TYPE_TO_CONFIG_MAPPING[kind])
    most = len(list(base.modules()))
    for name, value in content.items():
        if name in (*OF_NO_EFFECT, "peft_type", "task_type") or _plain(value) == _plain(default.get(name)):
            continue
        if name in params and not isinstance(params[name], str) and params[name] != value:
            raise UserInputError(
                f"{path} must agree with the card, but `{name}` is {_short(value)} in place of {params[name]}; restore "
                "both files."
            )
        if not _harmless(name, value, most):
            raise UserInputError(
                f"{path} has {_short(value)} for `{name}`, which is loaded only if the plugin that wrote it is "
                f'installed and says the same; install the plugin of "{method}".'
            )
    missing = [name for name in params if name in default and name not in content]
    if missing:
        raise UserInputError(f"{path} must agree with the card, but has no `{missing[0]}`; restore both files.")


def _harmless(name: str, value: Any, most: int) -> bool:
    """Whether a field is a number or a plain name, or at most `most` of them: peft tries each on every module."""
    if name in FORBIDDEN or name.endswith("_path"):
        return False
    if name.startswith("init_") and name.endswith("_weights"):
        return value in FIRST_VALUES
    if isinstance(value, dict):
        return len(value) <= most and all(map(_single, value)) and all(map(_number, value.values()))
    if isinstance(value, list):
        return len(value) <= most and all(map(_single, value))
    return _single(value)


def _single(value: Any) -> bool:
    return value is None or _number(value) or (isinstance(value, str) and bool(NAME.fullmatch(value)))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= MOST  # NaN fails this too


def _defaults(kind: type[PeftConfig]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


def _plain(value: Any) -> Any:
    """A value as JSON would return it; names once and in order, since peft keeps them in sets or adds them again."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        every = [_plain(each) for each in value]
        return sorted(set(every)) if all(isinstance(each, str) for each in every) else every
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
