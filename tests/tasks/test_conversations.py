"""Cells that teach a language model to write: every form as one, and one sentence for what is none."""

import csv
import datetime
import json
import time

import numpy as np
import pandas as pd
import pytest
from autopeft_causal_lm.conversations import (
    answer,
    completion,
    messages,
    parse,
    prompt,
    prompt_or_text,
    text_of,
)
from autopeft_causal_lm.shapes import shape_of

from autopeft.data.cells import CellError, Texts
from autopeft.data.table import read_table

ASKED = {"role": "user", "content": "Wie spät ist es?"}
SAID = {"role": "assistant", "content": "Zehn."}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOOL = {"role": "tool", "content": "10:00", "tool_call_id": "c1", "name": "clock"}
TURNS = [SYSTEM, ASKED, CALLED, TOOL, SAID]


def written(*found):
    return json.dumps([*found], ensure_ascii=False)


def user(**more):
    return {**ASKED, **more}


def said(**more):
    return {**SAID, **more}


def nested(depth):
    found = "x"
    for _ in range(depth):
        found = [found]
    return found


def refused(read, cell, found):
    with pytest.raises(CellError) as error:
        read(cell)
    assert found in error.value.found
    assert error.value.advice
    assert error.value.rule
    return error.value


FORMS = {
    "a list": TURNS,
    "a tuple": tuple(TURNS),
    "an array": np.array(TURNS, dtype=object),
    "JSON": json.dumps(TURNS),
    "JSON with white space": json.dumps(TURNS, indent=2) + "\n",
    "an array of JSON": np.array(json.dumps(TURNS)),
    "keys of every message": [{key: one.get(key) for key in ("weight", "name", *TOOL, *CALLED)} for one in TURNS],
    "NaN for missing keys": [{"name": float("nan"), "tool_call_id": pd.NA, **one} for one in TURNS],
    "a mapping of lists": {
        "content": [one["content"] for one in TURNS],
        "role": np.array([one["role"] for one in TURNS], dtype=object),
        "tool_calls": [one.get("tool_calls") for one in TURNS],
        "tool_call_id": [one.get("tool_call_id") for one in TURNS],
        "name": [one.get("name") for one in TURNS],
    },
    "ShareGPT": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": ASKED["content"], "weight": 0},
        {"from": "function_call", "value": json.dumps({"name": "clock", "arguments": {"zone": "CET"}})},
        {"from": "observation", "value": "10:00", "tool_call_id": "c1", "name": "clock"},
        {"from": "gpt", "value": "Zehn.", "weight": 1},
    ],
    "other roles": [
        {"role": "developer", "content": "Be brief."},
        {"role": " User ", "content": ASKED["content"], "train": False},
        {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": {"zone": "CET"}}},
        {"role": "FUNCTION", "content": "10:00", "tool_call_id": "c1", "name": "clock"},
        {"from": "Model", "value": "Zehn.", "train": np.True_},
    ],
    "parts": [
        SYSTEM,
        user(content=[{"type": "text", "text": "Wie spät "}, {"type": "text", "text": "ist es?", "image_url": None}]),
        {**CALLED, "content": []},
        TOOL,
        said(content=np.array([{"type": "text", "text": "Zehn.", "annotations": []}], dtype=object)),
    ],
    "calls as JSON": [SYSTEM, ASKED, {**CALLED, "tool_calls": json.dumps([CALL])}, TOOL, SAID],
    "calls in an array": [SYSTEM, ASKED, {**CALLED, "tool_calls": np.array([CALL], dtype=object)}, TOOL, SAID],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_as_one(form):
    assert messages(FORMS[form]) == written(*TURNS)


@pytest.mark.parametrize("name", ["gpt", "chatgpt", "assistant", "model", "bot", "GPT\n"])
@pytest.mark.parametrize("asker", ["human", "user"])
def test_names_of_roles_in_sharegpt(asker, name):
    cell = [{"from": asker, "value": ASKED["content"]}, {"from": name, "value": "Zehn."}]
    assert messages(cell) == written(ASKED, SAID)


def test_what_is_read_again_is_itself():
    once = messages(TURNS)
    assert messages(once) == once
    for read in (prompt, answer):
        assert read(read(once)) == read(once) == read(TURNS)
    for read in (prompt_or_text, completion):
        for cell in ("plain", "[1]", '{"text": "x"}', '"', " a ", json.dumps([SAID if read is completion else ASKED])):
            assert read(read(cell)) == read(cell)


def test_arguments_of_calls_stay_as_they_are():
    as_text = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": null}'}}
    deep = {"function": {"name": "f", "arguments": {"list": [None, 1, 2.5, True, {"é": []}]}}}
    made = json.loads(messages([ASKED, {"role": "assistant", "tool_calls": [as_text, deep]}]))
    assert made[1] == {"role": "assistant", "content": "", "tool_calls": [as_text, deep]}
    several = [{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": {}}]
    made = json.loads(messages([ASKED, {"from": "function_call", "value": several}]))
    assert made[1]["tool_calls"] == [{"type": "function", "function": call} for call in several]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
def test_a_file_of_any_format_gives_the_same_cells(tmp_path, suffix):
    zones = [{**CALL, "function": {"name": "clock", "arguments": {"town": "Rome"}}}]
    rows = [{"messages": TURNS}, {"messages": [ASKED, SAID]}, {"messages": [ASKED, {**CALLED, "tool_calls": zones}]}]
    path = tmp_path / f"rows.{suffix}"
    match suffix:
        case "parquet":
            pd.DataFrame(rows).to_parquet(path)
        case "csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["messages"])
                writer.writeheader()
                writer.writerows({"messages": json.dumps(row["messages"])} for row in rows)
        case _:
            lines = [json.dumps(row) for row in rows]
            path.write_text("\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]")
    assert [messages(cell) for cell in read_table(path)["messages"]] == [written(*row["messages"]) for row in rows]


def test_an_empty_cell_is_told_with_its_row():
    reader = Texts(others={"messages": messages})
    reader.of("messages", pd.Series([[ASKED], None, float("nan")], index=[1, 2, 3]))
    with pytest.raises(
        Exception, match=r"rows, row 2: the column .messages. must not be empty, .* \(in 2 rows in all\)"
    ):
        reader.check("the rows", {"messages": "messages"})


def test_a_fault_makes_one_sentence():
    reader = Texts(others={"messages": messages})
    reader.of("messages", pd.Series([[ASKED, {"role": "\nadmin" * 99, "content": "x"}]], index=[7]))
    with pytest.raises(Exception, match=r"^the rows, row 7: every cell .* must have a known role .*\.$") as error:
        reader.check("the rows", {"messages": "messages"})
    assert 'has message 2, which has the role "\\nadmin' in str(error.value)
    assert len(str(error.value)) < 400


CYCLE = []
CYCLE.append(CYCLE)
ROLE_TWICE = '[{"role": "user", "role": "assistant", "content": "x"}]'
CALL_OF = "has a function call"

FAULTS = {
    "no list": ("hello", "is a text that is not a JSON list"),
    "a JSON text": ('"hello"', "is a text that is not a JSON list"),
    "a JSON number": ("5", "is a text that is not a JSON list"),
    "one message": (ASKED, "is a mapping"),
    "one message as JSON": (json.dumps(ASKED), "is a mapping"),
    "a number": (5, "is one value"),
    "nothing": (None, "is empty"),
    "no number": (float("nan"), "is empty"),
    "no message": ([], "has no message"),
    "no message as JSON": ("[]", "has no message"),
    "no message in an array": (np.array([]), "has no message"),
    "Python's own writing": (str([ASKED]), "is a text that is not JSON"),
    "cut off": (json.dumps([ASKED])[:-1], "is a text that is not JSON"),
    "lists of several lengths": ({"role": ["user"], "content": []}, "unequal lengths"),
    "a key twice": (ROLE_TWICE, 'the key "role" twice'),
    "NaN in JSON": ('[{"role": "user", "content": NaN}]', "holds the number NaN"),
    "brackets": ("[" * 100_000, "is nested deeper"),
    "digits": (f'[{{"role": "user", "content": {"9" * 5000}}}]', "thousands of digits"),
    "a text as item": ([ASKED, "Zehn."], "has message 2, which is a text"),
    "a list as item": ([["user", "x"]], "has message 1, which is a value of type list"),
    "no role": ([{"content": "x"}], "has no role"),
    "a role of nothing": ([{"role": None, "content": "x"}], "has no role"),
    "a number as role": ([{"role": 1, "content": "x"}], "a role that is a number"),
    "an unknown role": ([user(role="admin")], 'which has the role "admin"'),
    "role and from": ([user(**{"from": "human"})], 'has the key "from"'),
    "no content": ([{"role": "user"}], "has no `content`"),
    "a content of nothing": ([user(content=None)], "has no `content`"),
    "a number as content": ([user(content=3)], "has a `content` that is a number"),
    "a truth value as content": ([user(content=True)], "has a `content` that is a truth value"),
    "a mapping as content": ([user(content={"a": 1})], "has a `content` that is a mapping"),
    "long digits as content": ([user(content=CellError("is a whole number"))], "thousands of digits"),
    "an image": ([user(content=[{"type": "image_url", "image_url": {"url": "x"}}])], 'a part of the type "image_url"'),
    "a part without a type": ([user(content=["x"])], "a part that has no type"),
    "a part with more": ([user(content=[{"type": "text", "text": "x", "cache": 1}])], 'a part with the key "cache"'),
    "a part of nothing": ([user(content=[{"type": "text"}])], "has no `text`"),
    "an empty answer": ([ASKED, said(content=" \n")], "has message 2, which is empty"),
    "an answer of no parts": ([ASKED, said(content=[])], "has message 2, which is empty"),
    "a later system": ([ASKED, SYSTEM, SAID], "has one as message 2"),
    "two systems": ([SYSTEM, SYSTEM, ASKED], "has one as message 2"),
    "the system alone": ([SYSTEM], "has nothing there"),
    "the assistant first": ([SAID, ASKED], "has message 1 of the assistant"),
    "the assistant after the system": ([SYSTEM, SAID, ASKED], "has message 2 of the assistant"),
    "the user twice": ([ASKED, SAID, ASKED, ASKED], "has messages 3 and 4 both of the user"),
    "the assistant twice": ([ASKED, SAID, SAID], "has messages 2 and 3 both of the assistant"),
    "a tool unasked": ([ASKED, TOOL, SAID], "has message 2 of a tool"),
    "half a character": ([user(content="x\ud800")], "holds \\ud800"),
    "half a character in JSON": ('[{"role": "user", "content": "\\udc00"}]', "holds \\udc00"),
    "half a character in a call": ([ASKED, {**CALLED, "tool_calls": [{"\ud83d": 1}]}], "holds \\ud83d"),
    "a deep call": ([ASKED, {**CALLED, "tool_calls": [{"a": nested(60)}]}], "is nested deeper"),
    "a call in itself": ([ASKED, {**CALLED, "tool_calls": [{"a": CYCLE}]}], "is nested deeper"),
    "calls of the user": ([user(tool_calls=[CALL])], "has calls, but the role user"),
    "calls in two forms": ([ASKED, {**CALLED, "function_call": {"name": "f", "arguments": ""}}], "in two forms"),
    "calls as a mapping": ([ASKED, said(tool_calls={"a": 1})], "`tool_calls` in another form"),
    "calls of texts": ([ASKED, said(tool_calls=["f"])], "`tool_calls` in another form"),
    "calls of no JSON": ([ASKED, said(tool_calls="f(x)")], "`tool_calls` that is a text that is not JSON"),
    "a date in a call": ([ASKED, said(tool_calls=[{"a": datetime.date(2020, 1, 1)}])], 'of type "date"'),
    "times in a call": ([ASKED, said(tool_calls=[{"a": np.array(["2020"], "M8[ns]")}])], 'of type "ndarray"'),
    "no finite number in a call": ([ASKED, said(tool_calls=[{"a": float("inf")}])], "holds the number inf"),
    "digits in a call": ([ASKED, said(tool_calls=[{"a": 10**5000}])], "thousands of digits"),
    "a number as key in a call": ([ASKED, said(tool_calls=[{1: "a"}])], 'a key of type "int"'),
    "a number as name": ([user(name=5)], "has a `name` that is a number"),
    "no JSON as call": ([ASKED, {"from": "function_call", "value": "f(x)"}], f"{CALL_OF} that is a text"),
    "a number as call": ([ASKED, {"from": "function_call", "value": 5}], f"{CALL_OF} that is not a mapping"),
    "a call without a name": ([ASKED, {"from": "function_call", "value": "{}"}], f"{CALL_OF} without `name`"),
    "a call without a value": ([ASKED, {"from": "function_call"}], "has no content"),
    "a blank name": ([ASKED, said(function_call={"name": " ", "arguments": ""})], "whose `name` is not a text"),
    "a list of arguments": (
        [ASKED, said(function_call={"name": "f", "arguments": [1]})],
        "are neither a mapping nor a text",
    ),
    "an answer not to learn": ([ASKED, said(weight=0)], "has a `weight` other than 1"),
    "an answer not to train": ([ASKED, said(train=False)], "has a `train` other than 1"),
    "thoughts": ([ASKED, said(reasoning_content="Hm.")], 'has the key "reasoning_content"'),
    "another key": ([user(id=1)], 'has the key "id"'),
    "a key that is not a text": ([{**ASKED, 5: 1}], "has the key of type int"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_conversation_is_told(fault):
    refused(messages, *FAULTS[fault])
    for read in (prompt, answer):
        refused(read, *FAULTS[fault])


def test_advice_fits_the_fault():
    assert "chat template" in refused(messages, [ASKED, said(thinking="Hm.")], "thinking").advice
    assert "json.dumps" in refused(messages, str([ASKED]), "not JSON").advice


def test_a_conversation_is_a_prompt_and_its_answer():
    assert parse(prompt(TURNS)) == TURNS[:-1]
    assert parse(answer(TURNS)) == TURNS[-1:]
    assert parse(answer(TURNS[:3])) == [CALLED]
    assert parse(prompt([ASKED, SAID, ASKED, SAID])) == [ASKED, SAID, ASKED]


def test_a_conversation_that_waits_for_an_answer_is_a_prompt_alone():
    for waiting in ([ASKED, SAID, ASKED], TURNS[:4], [ASKED]):
        assert parse(prompt(waiting)) == waiting
    error = refused(answer, [ASKED, SAID, ASKED], "ends with message 3 of the user")
    assert error.advice == "remove what comes after the last answer"
    refused(answer, TURNS[:4], "ends with message 4 of the tool")
    refused(answer, [SYSTEM, ASKED], "has no such message")


def test_prompts_and_completions_may_be_messages():
    assert parse(prompt_or_text([SYSTEM, ASKED])) == [SYSTEM, ASKED]
    assert parse(prompt_or_text(json.dumps([ASKED, SAID, ASKED]))) == [ASKED, SAID, ASKED]
    assert parse(completion(np.array([SAID], dtype=object))) == [SAID]
    assert parse(completion('[{"from": "gpt", "value": "Zehn."}]')) == [SAID]
    refused(prompt_or_text, [ASKED, SAID], "ends with message 2 of the assistant")
    assert "`messages`" in refused(completion, TURNS, "has 5 messages").advice
    refused(completion, [ASKED], "has one of the user")
    refused(completion, [], "has no message")
    for read in (prompt_or_text, completion):
        refused(read, SAID, "is a mapping")


JSON_TEXTS = (
    "[]", "[1, 2]", '["a"]', "{}", '{"role": "user", "content": "x"}', '{"messages": []}', '{"text": "x"}',
    '[{"from": "Rome", "to": "Paris"}]', '[{"content": "a", "value": 3}]', '[{"a": 1, "a": 2}]', "[NaN]",
    "[" * 100_000, "[link](http://a.b)", "[" + "9" * 5000 + "]", '"x"', "null", '{"autopeft": 1}',
)  # fmt: skip


@pytest.mark.parametrize("read", [prompt_or_text, completion])
@pytest.mark.parametrize("text", [*JSON_TEXTS, " leading", "two\nlines", "\x00", "\U0001f600"])
def test_a_text_that_is_no_list_of_messages_stays_the_text(read, text):
    made = read(text)
    assert parse(made) == text_of(made) == text
    assert read(made) == made


def test_single_values_are_texts():
    assert [parse(completion(cell)) for cell in (5, 5.0, 2.5, True, b"x", np.int64(3), np.str_("y"))] == [
        "5", "5", "2.5", "True", "x", "3", "y",
    ]  # fmt: skip
    assert parse(completion(np.datetime64("2020-01-01", "ns"))).startswith("2020-01-01")


@pytest.mark.parametrize("read", [prompt_or_text, completion])
@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("\ud800", "half a character"),
        ({1}, "is a set"),
        (None, "NoneType"),
        (float("inf"), "is the number inf"),
        (ROLE_TWICE, '"role" twice'),
        (str([SAID]), "not JSON"),
        (json.dumps([SAID])[:-1], "not JSON"),
        ('[{"from": "Rome", "value": "x"}]', 'the role "Rome"'),
        ('{"autopeft_text": 5}', "autopeft did not write the rest"),
        ('{"autopeft_text": "a", "b": 1}', "autopeft did not write the rest"),
        ('{"autopeft_messages": []}', "autopeft did not write the rest"),
        ('{"autopeft_messages": ["a"]}', "which is a text"),
        ('{"autopeft_text": ', "not JSON"),
    ],
)
def test_what_is_no_text_and_no_messages_is_told(read, cell, found):
    refused(read, cell, found)


def test_plain_text_is_no_conversation():
    refused(prompt, prompt_or_text("Hi"), "is a prompt of plain text")
    refused(answer, completion("Hi"), "is an answer of plain text")
    refused(parse, "Hi", "was not written by autopeft")
    refused(prompt, answer(TURNS), "has message 1 of the assistant")


def test_what_a_person_reads_of_an_answer():
    assert text_of(answer(TURNS)) == "Zehn."
    assert text_of(answer(TURNS[:3])) == json.dumps([CALL])
    assert text_of(answer([ASKED, said(tool_calls=[CALL])])) == f"Zehn.\n{json.dumps([CALL])}"


def test_long_contents_take_no_time():
    long = json.dumps([user(content="Wörter\n" * 100_000), said(content="word " * 100_000)])
    many = [*[ASKED, SAID] * 10_000]
    keys = "[{" + ", ".join(f'"k{place}": 1' for place in range(50_000)) + ', "k49999": 1}]'
    before = time.process_time()
    for cell in (long, many):
        assert prompt(prompt(cell)) == prompt(cell)
        assert answer(cell)
    refused(messages, keys, '"k49999" twice')
    assert time.process_time() - before < 3


@pytest.mark.parametrize(
    ("columns", "form", "read", "left", "told"),
    [
        (["id", "messages"], "messages", ["messages"], ["id"], "as conversations, from `messages`."),
        (["conversations"], "messages", ["conversations"], [], "as conversations, from `conversations`."),
        (
            ["conversations", "messages"],
            "messages",
            ["messages"],
            ["conversations"],
            "from `messages`, not as conversations from `conversations`.",
        ),
        (
            ["completion", "prompt"],
            "prompt-completion",
            ["prompt", "completion"],
            [],
            "from `prompt` and `completion`.",
        ),
        (["output", "instruction"], "alpaca", ["instruction", "output"], [], "from `instruction` and `output`."),
        (
            ["system", "input", "output", "instruction", "history"],
            "alpaca",
            ["instruction", "output", "input", "system"],
            ["history"],
            "as instructions with outputs, from `instruction`, `output`, `input` and `system`.",
        ),
        (["question", "answer"], "question-answer", ["question", "answer"], [], "from `question` and `answer`."),
        (["text"], "text", ["text"], [], "as plain texts, from `text`."),
        (
            ["text", "prompt", "messages"],
            "messages",
            ["messages"],
            ["text", "prompt"],
            "from `messages`, not as plain texts from `text`.",
        ),
    ],
)
def test_the_form_of_a_table_is_found_by_its_columns(columns, form, read, left, told):
    found = shape_of(columns)
    assert (found.form, [*found.columns], [*found.left]) == (form, read, left)
    assert found.told.startswith("The rows are read as ")
    assert found.told.endswith(told)


@pytest.mark.parametrize("columns", [[], ["prompt"], ["question", "label"], ["Text"], ["input", "output"]])
def test_columns_of_no_form(columns):
    assert shape_of(columns) is None
