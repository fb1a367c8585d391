"""Cells of messages, mutated: the one form, which is read as itself again, or a `CellError`."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
from autopeft_causal_lm.conversations import answer, completion, messages, parse, prompt, prompt_or_text, text_of

from autopeft.data.cells import CellError
from tests.fuzz.test_data import LONGEST, SECONDS, check_part, limit
from tests.fuzz.test_kinds import mutate

CASES, SLICE, PART = 500, 40, 20
"""Mutated cells in all; how many `make test` runs; how many a test has."""

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, None, 2.5], "b": "x"}}}
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "time is it?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "10:00", "tool_call_id": "c1", "name": "f"},
    {"role": "assistant", "content": "Ten.", "weight": 1},
    {"role": "user", "content": "Thank you."},
    {"role": "assistant", "content": "\U0001f600"},
]
SHAREGPT = [
    {"from": "human", "value": "What time is it?"},
    {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
    {"from": "observation", "value": "10:00"},
    {"from": "gpt", "value": "Ten."},
]
SHORT = ([TURNS[5]], [TURNS[6]], "Hi")
KEYS = ("role", "content", "from", "value", "tool_calls", "function_call", "weight", "name", "\ud800", 7)
INSERTED = ('"', "\\", "[", "{", "}", ",", "\\ud800", "NaN", "[" * 9999, "9" * 5000, '"role": "user", ', "\x00", "'")


def changed(draw: random.Random) -> Any:
    """A cell in one of its forms, with some of it mutated."""
    cell = copy.deepcopy(draw.choice((TURNS, TURNS, SHAREGPT, *SHORT)))
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        cell = mutate(cell, draw)
        if isinstance(cell, list) and cell and isinstance(cell[-1], dict) and draw.random() < 0.2:
            cell[draw.randrange(len(cell))] = {**cell[-1], draw.choice(KEYS): mutate("user", draw)}
    match draw.randrange(6):
        case 0 | 1:
            return as_json(cell, draw)
        case 2 if isinstance(cell, list):
            made = np.empty(len(cell), dtype=object)
            made[:] = cell
            return made
        case 3:
            return draw.choice((prompt, answer, prompt_or_text, completion))(cell)
    return cell


def as_json(cell: Any, draw: random.Random) -> str:
    text = json.dumps(cell, ensure_ascii=draw.random() < 0.5)
    if draw.random() < 0.5:
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice(INSERTED) + text[place + draw.randrange(3) :]
    return text


def check(case: int) -> bool:
    """Read one cell in every way; whether one of them read it."""
    draw = random.Random(case)
    read = 0
    with limit(SECONDS):
        try:
            cell = changed(draw)
        except CellError:
            return False
        for one in (messages, prompt, answer, prompt_or_text, completion):
            try:
                made = one(cell)
            except CellError as error:
                told = f"{error.rule} {error.found} {error.advice}"
                assert len(told) < LONGEST
                assert "\n" not in told
                continue
            read += 1
            assert one(made) == made
            made.encode()
            if one is messages:
                assert all({"role", "content"} <= {*message} for message in json.loads(made))
            else:
                assert parse(made)
                assert isinstance(text_of(made), str)
    return read > 0


@pytest.mark.parametrize("first", range(0, SLICE, PART))
def test_some_mutated_cells_are_conversations_or_one_sentence(first):
    check_part(first, PART, check)


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(SLICE, CASES, PART))
def test_mutated_cells_are_conversations_or_one_sentence(first):
    check_part(first, PART, check)
