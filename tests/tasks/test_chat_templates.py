"""What chat templates leave out or get wrong is told; marks that are not special tokens are text where people type."""

import os

import pandas as pd
import psutil
import pytest
from autopeft_causal_lm import apart, conversations

from autopeft.common.exceptions import SpecError
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.tokenizer import prepare
from autopeft.tasks.registry import find_task
from tests.conftest import few
from tests.tiny_language_models import CHAT_TEMPLATE, chat_model

THINKING = CHAT_TEMPLATE.replace(
    "{% endfor %}", "{% endfor %}{% if false %}<think></think><tool_call>{# <shown> #}{% endif %}"
)
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    chat_model(folder)
    tokenizer = RowTokenizer.load(folder)
    tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "<shown>"])
    prepare(tokenizer)
    return RowTokenizer(tokenizer, 256)


def task_of(**options):
    return find_task("causal-lm").configured(options).taking(("messages",)).knowing({}, ())


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def rows_of(*cells):
    return pd.DataFrame({"messages": map(conversations.prompt, cells), "answer": map(conversations.answer, cells)})


SHORT = [said("system", "s"), said("user", "x"), said("assistant", "y")]
BOTH = [said("user", "x"), said("assistant", "", tool_calls=[CALL]), said("tool", "t"), said("assistant", "y")]
WITHOUT = CHAT_TEMPLATE.replace("messages %}", "messages if message.role != 'WHO' %}")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (WITHOUT.replace("WHO", "user"), "must print what the user says, but it prints nothing of message 2"),
        (CHAT_TEMPLATE.replace("<|im_end|>", ""), "must print a mark behind an answer"),
        (CHAT_TEMPLATE.replace("if add_generation_prompt", "if false"), "if `add_generation_prompt` is set"),
        (CHAT_TEMPLATE + "{{ range(10**5) | random }}", "prints something else each time"),
        (CHAT_TEMPLATE + "{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        (CHAT_TEMPLATE + "{{ raise_exception('a\nb' * 999) }}", 'it fails with: "a ba b'),
        (CHAT_TEMPLATE.replace("{% for", "{{ messages | length }}{% for"), "begins differently; give another"),
    ],
)
def test_a_template_that_will_not_do_is_refused_in_a_sentence(reader, template, told):
    with pytest.raises(SpecError) as error:
        task_of(template=template).encode(rows_of(SHORT), reader, ())
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TOO_MUCH = {
    "loops": (LOOPS, "must finish, but it took more than 1 seconds"),
    "a power": ("{{ 10 ** (10 ** 9) }}", "must finish"),
    "a product": ("{{ 'x' * 10**11 }}", "must run in 0.12 GiB of memory"),
    "doubling": (
        "{% set n = namespace(a='x') %}{% for i in range(40) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
        "in 0.12 GiB",
    ),
}


@pytest.mark.parametrize("what", few(TOO_MUCH, "loops", "a product"))
@pytest.mark.parametrize("where", ["{}{% for message", "{% if add_generation_prompt %}{}", "for some rows"])
def test_a_template_that_takes_too_much_is_stopped(reader, monkeypatch, where, what):
    monkeypatch.setattr(apart, "SECONDS", 1)
    monkeypatch.setattr(apart, "MEMORY", 2**27)
    put, told = TOO_MUCH[what]
    if where == "for some rows":  # which its trial, of other contents, does not find
        where, put = "{}{% for message", "{% if messages[0].content == 's' %}" + put + "{% endif %}"
    template = CHAT_TEMPLATE.replace(where.replace("{}", ""), where.replace("{}", put))
    before = psutil.Process().children()
    with pytest.raises(SpecError, match=told) as error:
        task_of(template=template).encode(rows_of(SHORT), reader, ())
    assert "\n" not in str(error.value)
    assert psutil.Process().children() == before


def test_what_fills_in_templates_ends_with_the_study_and_gives_its_errors_back():
    assert apart.each(str, [1, 2]) == ["1", "2"]
    with pytest.raises(ZeroDivisionError):
        apart.each(lambda one: 1 / one, [1, 0])
    with pytest.raises(SpecError, match="ended early"):
        apart.each(lambda one: os.kill(os.getpid(), 9), [1])


def test_what_a_template_leaves_out_is_counted(reader):
    silent = WITHOUT.replace("WHO", "system")
    rows = rows_of(SHORT, SHORT[1:], SHORT)
    assert task_of(template=silent).told(rows, reader) == [
        "The chat template leaves out the system's message in 2 rows, so the model does not read that."
    ]
    assert task_of(template=CHAT_TEMPLATE).told(rows, reader) == []
    with pytest.raises(SpecError, match="`system` in \\[task\\] must be read by the model"):
        task_of(template=silent, system="be kind").told(rows, reader)


def test_calls_of_tools_that_are_learnt_must_be_printed(reader):
    with pytest.raises(SpecError, match="print the tool calls that are learnt, but it prints nothing of message 2"):
        task_of(template=CHAT_TEMPLATE).encode(rows_of(BOTH), reader, ())
    (told,) = task_of(template=CHAT_TEMPLATE, learn="last").told(rows_of(BOTH), reader)
    assert "tool calls in 1 row" in told
    printing = CHAT_TEMPLATE.replace("| trim }}", "}}{{ message.tool_calls | tojson if message.tool_calls }}")
    assert task_of(template=printing).told(rows_of(BOTH), reader) == []


def test_several_templates_without_a_default_are_refused(reader):
    several = RowTokenizer(reader.tokenizer, 256)
    before, several.tokenizer.chat_template = several.tokenizer.chat_template, {"rag": "x", "tool_use": "y"}
    try:
        with pytest.raises(SpecError, match='"rag", "tool_use"'):
            task_of().encode(rows_of(SHORT), several, ())
    finally:
        several.tokenizer.chat_template = before


def test_thoughts_are_marks_of_the_assistant_and_text_of_others(reader):
    text = "a <think>b</think> <tool_call> <shown>"
    cell = [said(role, text) for role in ("system", "user", "assistant")]
    rows, task = rows_of(cell), task_of(template=THINKING)
    ids = task.encode(rows, reader, ()).fields["input_ids"].of([0])[0]
    tokens = reader.tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<tool_call>", "<shown>"])
    assert [[*ids].count(token) for token in tokens] == [2, 2, 2, 3]  # <shown> is in none of what a template prints
    assert reader.tokenizer.decode(ids).count(text) == 3
    (told,) = task.told(rows, reader)
    assert 'such as "<think>", is in 1 row; it is read as text' in told
    assert task.told(rows_of([said("user", "x"), said("assistant", text)]), reader) == []


def test_thoughts_that_a_user_types_in_two_parts_are_text_too(reader):
    template = THINKING.replace("| trim }}", "}}{{ message['name'] }}")
    cell = [said("user", "x <thi", name="nk> y")]
    rows = pd.DataFrame({"messages": [conversations.prompt(cell)]})
    (ids,) = task_of(template=template).prompts(rows, reader)
    assert "x <think> y" in reader.tokenizer.decode(ids)
    assert reader.tokenizer.convert_tokens_to_ids("<think>") not in ids
