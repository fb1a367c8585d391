"""Reads one message of a conversation from the forms in which people keep them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import pandas as pd

from autopeft import CellError, quoted
from autopeft_causal_lm.json_values import unboxed, whole
from autopeft_causal_lm.tool_calls import from_function_call, tool_calls

SHAREGPT = {"from": "role", "value": "content"}
"""Keys of ShareGPT's form → OpenAI's."""

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "tool": "tool", "observation": "tool", "function_response": "tool", "function": "tool",
    "function_call": "assistant",
}  # fmt: skip
"""Names of roles, in lower case → the role."""

KEPT = ("role", "content", "tool_calls", "tool_call_id", "name")
"""Keys that a message may have, in their order."""

LEARNT = ("weight", "train", "training")
"""Keys that say whether to learn a message."""
LEARNT_KINDS = (bool, int, float, np.bool_, np.integer)

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys under which models' thoughts are kept."""

Message = dict[str, Any]


def read_message(item: object, number: int) -> Message:
    """A message with `role` and `content`, and `tool_calls`, `tool_call_id` and `name` if it has them.

    Keys whose value is empty are left out. The role decides whether to learn a message: `weight`, `train` and
    `training` may not contradict it. Any other key is refused, since otherwise nobody would notice that it is ignored.

    Args:
        item: in OpenAI's or ShareGPT's form.
        number: of the message, from 1, for errors.

    Raises:
        CellError: it is not such a message.
    """
    try:
        return _message(item)
    except CellError as error:
        raise CellError(f"has message {number}, which {error.found}", error.advice, error.rule) from None


def _message(item: object) -> Message:
    fields = _fields(item)
    name = _role(fields.pop("role", None))
    role = ROLES[name]
    call = fields.pop("content", None) if name == "function_call" else fields.pop("function_call", None)
    _check_keys(role, fields)
    if call is None and name == "function_call":
        raise CellError("has no content", "write the call into it", "have readable function calls")
    made: Message = {"role": role, "content": ""}
    if call is not None or "tool_calls" in fields:
        made["tool_calls"] = _calls(role, call, fields.get("tool_calls"))
    if "content" in fields or "tool_calls" not in made:
        made["content"] = _content(fields.get("content"))
    if role == "assistant" and "tool_calls" not in made and not made["content"].strip():
        raise CellError("is empty", "fill it, or end the conversation before it", "have no empty answers")
    for key in ("tool_call_id", "name"):
        if key in fields:
            made[key] = _text(fields[key], key)
    return made


def _fields(item: object) -> dict[str, Any]:
    """The fields of a message, by OpenAI's keys, without empty ones; only role and content may be empty."""
    if not isinstance(item, Mapping):
        raise CellError(
            f"is {_kind(item)}",
            'write each as {"role": "user", "content": "…"}',
            "be a list of mappings with `role` and `content`",
        )
    found = {key: value for key, value in item.items() if not is_missing(value)}
    for other, key in SHAREGPT.items():
        if other in found and key not in found:
            found[key] = found.pop(other)
    return {key: value for key, value in found.items() if key in ("role", "content") or not _says_nothing(value)}


def _role(value: object) -> str:
    advice, rule = "use system, user, assistant or tool", "have a known role in each message"
    if value is None:
        raise CellError("has no role", advice, rule)
    if not isinstance(value, str):
        raise CellError(f"has a role that is {_kind(value)}", advice, rule)
    if (name := value.strip().lower()) not in ROLES:
        raise CellError(f"has the role {quoted(value)}", advice, rule)
    return name


def _check_keys(role: str, fields: Mapping[Any, Any]) -> None:
    for key, value in fields.items():
        if key in KEPT:
            continue
        if key in LEARNT:
            if role == "assistant" and not (isinstance(value, LEARNT_KINDS) and value == 1):
                raise CellError(
                    f"has a `{key}` other than 1",
                    "end the conversation before an answer that should not be learnt, and remove that key",
                    "teach all of its answers alike",
                )
            continue
        advice = (
            "write the thoughts into the content as the model's chat template does, or remove them"
            if key in THOUGHTS
            else "remove it from the messages"
        )
        raise CellError(f"has the key {_named(key)}", advice, f"have messages with only {', '.join(KEPT)}")


def _calls(role: str, old: object, new: object) -> list[dict[str, Any]]:
    """Tool calls, from either of their two forms."""
    if role != "assistant" or (old is not None and new is not None):
        raise CellError(
            f"has calls, but the role {role}" if role != "assistant" else "has calls in two forms",
            "keep one `tool_calls` in the message of the assistant that made the calls",
            "have tool calls in the assistant's messages, in one form",
        )
    return tool_calls(new) if old is None else from_function_call(old)


def _content(value: object) -> str:
    """The text of a message; if it has parts, their texts are joined."""
    value = unboxed(value)
    if isinstance(value, list | tuple):
        return "".join(map(_part, value))
    return _text(value, "content")


def _part(part: object) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        raise CellError(
            "has a content with a part that has no type",
            'make the content a text, or a list such as [{"type": "text", "text": "…"}]',
            "have texts as contents",
        )
    if kind != "text":
        raise CellError(
            f"has a part of the type {quoted(kind)}", "remove rows with images or sound", "have only texts as contents"
        )
    if more := [key for key in part if key not in ("type", "text") and not _says_nothing(part[key])]:
        raise CellError(
            f"has a part with the key {_named(more[0])}",
            "remove it",
            "have contents whose parts have only type and text",
        )
    return _text(part.get("text"), "text")


def _text(value: object, key: str) -> str:
    rule = "have texts in messages"
    if is_missing(value):
        raise CellError(f"has no `{key}`", "fill it, or remove the message", rule)
    if not isinstance(value, str):
        raise CellError(f"has a `{key}` that is {_kind(value)}", "write it as text, in quotes", rule)
    return whole(value)


def is_missing(value: object) -> bool:
    """Whether it is None, NaN, NaT or NA."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _named(key: object) -> str:
    return quoted(key) if isinstance(key, str) else f"of type {type(key).__name__}"


def _says_nothing(value: object) -> bool:
    return is_missing(value) or (isinstance(value, Sized) and len(value) == 0)


def _kind(value: object) -> str:
    kinds = ((str, "a text"), (bool, "a truth value"), (int | float, "a number"), (Mapping, "a mapping"))
    if isinstance(value, CellError):
        return "a number of thousands of digits"
    return next((name for kind, name in kinds if isinstance(value, kind)), f"a value of type {type(value).__name__}")
