"""Reads cells that teach a language model to write: conversations, and prompts with their answers, each in one form.

A conversation is a JSON list of messages. A prompt or an answer is a JSON object with one key, which says whether it is
a text or messages; so a user's text is never taken for messages later, whatever it looks like. Each function leaves
its own output unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from autopeft import CellError, as_text
from autopeft_causal_lm.json_values import from_json, unboxed, whole
from autopeft_causal_lm.message import Message, is_missing, read_message
from autopeft_causal_lm.turns import check_turns

TEXT, MESSAGES = "autopeft_text", "autopeft_messages"
"""Keys of prompts and answers. Users' own texts may hold objects with plainer keys, such as {"text": "…"}."""
WRITTEN = re.compile(rf'\s*\{{\s*"({TEXT}|{MESSAGES})"')
"""The beginning of a prompt or an answer that was written here."""
BROKEN = re.compile(r"""\s*\[\s*\{\s*(['"])(role|from)\1\s*:""")
"""The beginning of a text that is meant as messages."""

LIST = "be a list of messages"
AS_JSON = 'write JSON such as [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
EITHER = "be a text or a list of messages"


def messages(cell: object) -> str:
    """A conversation, which may end with anyone's message.

    Args:
        cell: a list, a tuple or an array of messages in OpenAI's or ShareGPT's form, a mapping of lists of their
            fields, or the JSON of any of these.

    Returns:
        A JSON list of objects with `role` ("system", "user", "assistant" or "tool"), `content`, and if they were given
        `tool_calls`, `tool_call_id` and `name`, in this order.

    Raises:
        CellError: it is none of these, or the order of turns is not that of a chat.
    """
    return json.dumps(_conversation(cell), ensure_ascii=False)


def prompt(cell: object) -> str:
    """The part of a conversation before its last answer; the whole conversation if it does not end with an answer.

    Args:
        cell: a conversation as `messages` reads it, or a prompt of messages.

    Raises:
        CellError: as `messages`.
    """
    kept = _kept(cell)
    if isinstance(kept, str):
        raise CellError("is a prompt of plain text", AS_JSON, LIST)
    found = _conversation(cell if kept is None else kept)
    return _written(found[:-1] if found[-1]["role"] == "assistant" else found)


def answer(cell: object) -> str:
    """The assistant's message that ends a conversation.

    Args:
        cell: a conversation as `messages` reads it, or an answer.

    Raises:
        CellError: as `messages`, or the conversation ends with something else.
    """
    kept = _kept(cell)
    if isinstance(kept, str):
        raise CellError("is an answer of plain text", AS_JSON, LIST)
    if kept is not None and len(kept) == 1:
        return completion(cell)
    found = _conversation(cell if kept is None else kept)
    if found[-1]["role"] != "assistant":
        any_other = any(message["role"] == "assistant" for message in found)
        raise CellError(
            f"ends with message {len(found)} of the {found[-1]['role']}" if any_other else "has no such message",
            "remove what comes after the last answer" if any_other else "add an answer or remove the row",
            "end with a message of the assistant, which is the answer to learn",
        )
    return _written(found[-1:])


def prompt_or_text(cell: object) -> str:
    """A prompt in a row with a completion: a text as it is, or messages up to the one to answer.

    Args:
        cell: a single value, which counts as a text, or a conversation as `messages` reads it. JSON is a text too,
            unless it is a list whose first item has the keys of a message.

    Raises:
        CellError: it is neither, or ends with an answer.
    """
    found = _either(cell)
    if isinstance(found, str):
        return _text(found)
    made = _conversation(found)
    if made[-1]["role"] == "assistant":
        raise CellError(
            f"ends with message {len(made)} of the assistant",
            "move that into the completion, or give whole conversations as `messages`",
            "end with the message to answer",
        )
    return _written(made)


def completion(cell: object) -> str:
    """The answer in a row with a prompt: a text as it is, or one message of the assistant.

    Args:
        cell: a single value, which counts as a text, or a list of one message. JSON is a text too, unless it is a list
            whose first item has the keys of a message.

    Raises:
        CellError: it is neither.
    """
    found = _either(cell)
    if isinstance(found, str):
        return _text(found)
    items = _listed(found)
    made = [read_message(item, number) for number, item in enumerate(items, 1)]
    if [message["role"] for message in made] != ["assistant"]:
        raise CellError(
            f"has {len(made)} messages" if len(made) > 1 else f"has one of the {made[0]['role']}",
            "give whole conversations as `messages` instead of prompts and completions",
            "be a text or one message of the assistant",
        )
    return _written(made)


def parse(cell: str) -> str | list[Message]:
    """A prompt or an answer as these functions wrote it: its text, or its messages.

    Raises:
        CellError: it was not written here.
    """
    found: str | list[Message] | None = _kept(cell)
    if found is None:
        raise CellError("was not written by autopeft", "read it first", "be a prompt or an answer written by autopeft")
    return found


def text_of(answer: str) -> str:
    """An answer for people to read: its text, and its tool calls as JSON on a line of their own."""
    found = parse(answer)
    if isinstance(found, str):
        return found
    parts = [found[-1]["content"]]
    if calls := found[-1].get("tool_calls"):
        parts.append(json.dumps(calls, ensure_ascii=False))
    return "\n".join(part for part in parts if part.strip())


def _conversation(cell: object) -> list[Message]:
    made = [read_message(item, number) for number, item in enumerate(_listed(cell), 1)]
    check_turns([message["role"] for message in made])
    return made


def _listed(cell: object) -> list[Any]:
    """The items of a cell that is a list, before they are read."""
    cell = unboxed(cell)
    if isinstance(cell, str):
        cell = _of_json(cell)
    if isinstance(cell, CellError):  # the cell could not be read in the first place
        raise cell
    if isinstance(cell, Mapping):
        cell = _turned(cell)
    if not isinstance(cell, list | tuple):
        raise CellError("is empty" if is_missing(cell) else "is one value", AS_JSON, LIST)
    if not cell:
        raise CellError("has no message", "fill it or remove the row", LIST)
    return list(cell)


def _of_json(text: str) -> Any:
    if not text.lstrip().startswith(("[", "{")):
        raise CellError("is a text that is not a JSON list", AS_JSON, LIST)
    return from_json(text)


def _turned(cell: Mapping[Any, Any]) -> list[Any]:
    """The list of mappings that a mapping of lists stands for: `datasets` keeps sequences of mappings like that."""
    lists = [unboxed(one) for one in cell.values()]
    if not {"role", "from"} & {*cell} or not all(isinstance(one, list | tuple) for one in lists):
        raise CellError("is a mapping", AS_JSON, LIST)
    if len({len(one) for one in lists}) > 1:
        raise CellError("is a mapping of lists of unequal lengths", AS_JSON, LIST)
    return [dict(zip(cell, fields, strict=True)) for fields in zip(*lists, strict=True)]


def _either(cell: object) -> Any:
    """A text, or something else that should be messages."""
    kept = _kept(cell)
    if kept is not None:
        return kept
    cell = unboxed(cell)
    if isinstance(cell, list | tuple | Mapping):
        return cell
    try:
        text = as_text(cell)
    except CellError as error:
        raise CellError(error.found, error.advice, EITHER) from None
    return _of_json(text) if _means_messages(text) else text


def _means_messages(text: str) -> bool:
    """Whether a text is a JSON list of messages, or was meant to be one."""
    if not text.lstrip().startswith("["):
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return BROKEN.match(text) is not None
    first = found[0] if found else None
    keys = {*first} if isinstance(first, dict) else set()
    return bool(keys & {"role", "from"} and keys & {"content", "value", "tool_calls", "function_call"})


def _kept(cell: object) -> Any:
    """The content of a prompt or an answer that was written here; None for any other cell."""
    if not isinstance(cell, str) or not WRITTEN.match(cell):
        return None
    found = from_json(cell)
    key, value = next(iter(found.items()))
    if len(found) > 1 or not isinstance(value, str if key == TEXT else list) or not value:
        raise CellError(
            f"begins with the key {key}, but autopeft did not write the rest",
            "do not change cells that autopeft wrote",
            "use that key only as autopeft writes it",
        )
    return value


def _text(text: str) -> str:
    if not text.strip():
        raise CellError("is empty", "fill it or remove the row", EITHER)
    return json.dumps({TEXT: whole(text)}, ensure_ascii=False)


def _written(found: list[Message]) -> str:
    return json.dumps({MESSAGES: found}, ensure_ascii=False)
