"""Settings of a study given as text, such as `search.trials=5` on a command line, converted to the setting's type."""

from __future__ import annotations

import tomllib
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel

from autopeft.common.exceptions import SpecError, nearest, quoted
from autopeft.common.training_words import EXAMPLES, training_word
from autopeft.study.sections import GATHERED, NO_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORM = "a setting and its value, such as search.trials=5"


def overridden(content: Mapping[str, Any], settings: Sequence[str], study: type[BaseModel]) -> dict[str, Any]:
    """The content of a study file with some settings overridden.

    A value is read as TOML, else as text; with commas in it, it is a list if the setting takes one.

    Args:
        content: tables and settings.
        settings: such as ``search.trials=5``, ``budget.max_gpu_memory=2 GiB`` or ``search.lora.r=4,32``.
        study: declares the settings.

    Raises:
        SpecError: one has another form, or does not name a setting.
    """
    found = dict(content)
    for setting in settings:
        name, sign, text = setting.partition("=")
        path = [part.strip() for part in name.split(".")]
        if not sign or not all(path):
            raise SpecError(f"`--set` must be {FORM}, but got {quoted(setting)}.")
        kind = _kind(path, study)
        table = found
        for part in path[:-1]:
            inner = table.get(part)
            table[part] = dict(inner) if isinstance(inner, dict) else {}
            table = table[part]
        table[path[-1]] = _value(text.strip(), kind)
    return found


def _kind(path: Sequence[str], study: type[BaseModel]) -> Any:
    """The type of a setting as its section declares it; `Any` for those that only a plugin knows."""
    key, *rest = path
    fields = {name: field.annotation for name, field in study.model_fields.items() if name not in NO_SETTINGS}
    if key not in fields:
        raise SpecError(f"`--set` names {quoted('.'.join(path))}, which is not a setting; {_advice(key, fields)}")
    kind: Any = fields[key]
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        if rest:
            raise SpecError(f"`--set` names {quoted('.'.join(path))}, but `{key}` is not a table; set `{key}` itself.")
        return kind
    if not rest:
        example = next((name for name in kind.model_fields if name not in GATHERED.get(key, ())), "NAME.SETTING")
        raise SpecError(f"`--set` must name a setting in [{key}], such as {key}.{example}, but names the table itself.")
    known = {name: field.annotation for name, field in kind.model_fields.items() if name not in GATHERED.get(key, ())}
    if rest[0] in known and len(rest) == 1:
        return known[rest[0]]
    if key in GATHERED and rest[0] not in known:
        return Any
    hint = nearest(rest[0], known) if rest[0] not in known else f"`{rest[0]}` is not a table."
    hint = _on_training(rest[0]) or hint
    raise SpecError(f"`--set` names {quoted('.'.join(path))}, which is not a setting; {hint}")


def _advice(key: str, fields: Mapping[str, Any]) -> str:
    if hint := _on_training(key):
        return hint
    sections = {name: kind for name, kind in fields.items() if hasattr(kind, "model_fields")}
    elsewhere = next((name for name, section in sections.items() if key in section.model_fields), None)
    return f'did you mean "{elsewhere}.{key}"?' if elsewhere else nearest(key, fields)


def _on_training(name: str) -> str:
    """How to give a training setting; empty where `name` means something else."""
    word = training_word(name)
    return f"training is set in [search]: --set search.{EXAMPLES[word].replace(' ', '')}." if word else ""


def _value(text: str, kind: Any) -> Any:
    """The text read as TOML, if the setting takes that value; else the text."""
    kinds = _plain(kind)
    if kinds == {str}:
        return _toml(text) if text[:1] in ("'", '"') else text
    value = _toml(text)
    if isinstance(value, str) and (list in kinds or kind is Any) and "," in value and text[:1] not in ("'", '"'):
        value = [_toml(part.strip()) for part in value.split(",")]
    if list in kinds and str not in kinds and not isinstance(value, list):
        return [value if isinstance(value, str) else text]
    return value


def _toml(text: str) -> Any:
    try:
        found = tomllib.loads(f"x = {text}")
    except (ValueError, RecursionError):
        return text
    return found["x"] if set(found) == {"x"} else text


def _plain(kind: Any) -> set[Any]:
    """The types of values that an annotation allows, except None, which cannot be written."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return set().union(*(_plain(one) for one in get_args(kind))) - {type(None)}
    if hasattr(kind, "__metadata__"):  # annotated
        return _plain(get_args(kind)[0])
    if origin is not None and origin not in (list, dict):  # a Literal, of texts
        return {type(value) for value in get_args(kind)}
    found = origin or kind
    return {str} if getattr(found, "__name__", "") == "Path" else {found}
