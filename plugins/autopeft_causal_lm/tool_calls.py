"""Reads the tool calls in an assistant's message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autopeft import CellError
from autopeft_causal_lm.json_values import from_json, plain

RULE = "have tool calls as a list of mappings"
ADVICE = 'write them as [{"type": "function", "function": {"name": "…", "arguments": {…}}}]'

OLD_RULE = "have readable function calls"
OLD_ADVICE = 'write each as {"name": "…", "arguments": {…}}, or use `tool_calls`'


def tool_calls(value: object) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form, or its JSON; arguments stay a text or a mapping, whichever they are.

    Raises:
        CellError: they are not a list of mappings, or JSON cannot hold them.
    """
    try:
        found = plain(from_json(value) if isinstance(value, str) else value)
    except CellError as error:
        raise CellError(f"has something as `tool_calls` that {error.found}", error.advice, error.rule) from None
    if not isinstance(found, list) or not found or not all(isinstance(call, dict) and call for call in found):
        raise CellError("has `tool_calls` in another form", ADVICE, RULE)
    return found


def from_function_call(value: object) -> list[dict[str, Any]]:
    """Tool calls from a function call in the form of ShareGPT and OpenAI's first one, or from a list of these.

    Args:
        value: a mapping with `name` and `arguments`, a list of these, or the JSON of either.

    Raises:
        CellError: it cannot be read.
    """
    try:
        found = plain(from_json(value) if isinstance(value, str) else value)
    except CellError as error:
        raise CellError(f"has a function call that {error.found}", OLD_ADVICE, OLD_RULE) from None
    calls = [found] if isinstance(found, Mapping) else found
    if not isinstance(calls, list) or not calls:
        raise CellError("has a function call that is not a mapping", OLD_ADVICE, OLD_RULE)
    return [{"type": "function", "function": _function(call)} for call in calls]


def _function(call: Any) -> dict[str, Any]:
    if not isinstance(call, dict) or {*call} != {"name", "arguments"}:
        raise CellError("has a function call without `name` and `arguments`, or with more", OLD_ADVICE, OLD_RULE)
    if not isinstance(call["name"], str) or not call["name"].strip():
        raise CellError("has a function call whose `name` is not a text", OLD_ADVICE, OLD_RULE)
    if not isinstance(call["arguments"], str | dict):
        raise CellError("has a function call whose `arguments` are neither a mapping nor a text", OLD_ADVICE, OLD_RULE)
    return {"name": call["name"], "arguments": call["arguments"]}
