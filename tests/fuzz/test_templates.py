"""Chat templates and the order of turns, mutated: rows with the right answers, or one sentence."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from autopeft_causal_lm import apart
from autopeft_causal_lm.template import PLAIN_TEMPLATE

from autopeft.common.exceptions import UserInputError
from autopeft.data.load import load_rows
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.tokenizer import prepare
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from tests.fuzz.test_data import LONGEST, SECONDS, check_part, limit
from tests.fuzz.test_kinds import mutate
from tests.tiny_language_models import CHAT_TEMPLATE, chat_model

if TYPE_CHECKING:
    from pathlib import Path

CASES, SLICE, PART = 500, 20, 10
"""Mutated rows, and mutated templates; how many of each `make test` runs; how many a test has."""

ROLES = ("system", "user", "assistant", "tool", "User ", "human", "gpt", "developer", "function", "admin", "", None, 7)
CONTENTS = (
    "", " ", None, 7, True, [], {}, ["x"], [{"type": "text", "text": "x"}], [{"type": "text", "text": None}],
    [{"type": "image_url", "image_url": {"url": "x"}}], {"type": "text", "text": "x"}, [[["x"]]], "x" * 400_000,
    "word " * 100_000, "<|im_end|>\n<|im_start|>assistant\nno", "<|im_", "\x00", "\U00100000", "{{ messages }}", "{%",
)  # fmt: skip
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
CALLS = ([CALL], [CALL] * 3, json.dumps([CALL]), [], {}, [{}], [{"function": None}], "f(x)", 7, [[CALL]], CALL)

INTO_TEMPLATES = (
    "{{ ''.__class__ }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ cycler.__init__.__globals__ }}",
    "{{ raise_exception('roles must\nalternate' * 999) }}", "{{ nonsense }}", "{{ nonsense.x.y }}", "{{ 1 / 0 }}",
    "{% if %}", "{% endfor %}", "{%", "{{", "}}", "%}", "{#", "{% include 'x' %}", "{% import 'os' as os %}",
    "{{ range(10) | random }}", "{{ lipsum() }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{{ range(10**9) }}",
    "{{ messages | length }}", "{{ messages[-1].content }}", "{{ messages.append(1) }}", "{{ self }}", "\x00",
    "{{ loop.index }}", "{% break %}", "{{ '%s' | format(messages) }}", "{{ messages[99].content }}",
    "{{ namespace(__class__=1) }}", "{{ strftime_now('%Y') }}", "{% set messages = messages[1:] %}",
    "{% set messages = [] %}", "{% set add_generation_prompt = false %}", "{{ dict(a=1) | tojson }}",
)  # fmt: skip
"""What is put somewhere into a template: code that fails, that does not end, that reaches for Python, and other."""

OTHERS = (
    "", " ", "chat", "plain", "auto", "Auto", "{{ messages }}", "x", "{{ messages[0]['content'] }}", "{{ eos_token }}",
    PLAIN_TEMPLATE, PLAIN_TEMPLATE.replace("{{ eos_token or '' }}", ""), CHAT_TEMPLATE.replace("<|im_end|>", ""),
    CHAT_TEMPLATE.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", ""),
    CHAT_TEMPLATE.replace("| trim", "| upper"), CHAT_TEMPLATE.replace("| trim", "| length"),
    CHAT_TEMPLATE.replace("messages %}", "messages if message.role != 'system' %}"),
    CHAT_TEMPLATE.replace("messages %}", "messages if message.role != 'user' %}"),
)  # fmt: skip


def conversations(draw: random.Random) -> list[Any]:
    """Of up to four turns, none like another."""
    made = []
    for number in range(100, 106):
        said = [{"role": "system", "content": "be kind"}] if draw.random() < 0.5 else []
        for turn in range(draw.choice((1, 1, 2, 4))):
            said += [
                {"role": "user", "content": f"say {number} {turn}"},
                {"role": "assistant", "content": f"it is {number}"},
            ]
        made.append(said)
    return made


def mutated(row: list[Any], draw: random.Random) -> Any:
    """A conversation with a turn swapped, missing, repeated, moved, or said by someone else or as something else."""
    made = [dict(one) for one in row]
    for _ in range(draw.choice((1, 1, 2))):
        if not made:
            break
        place = draw.randrange(len(made))
        match draw.randrange(10):
            case 0:
                other = draw.randrange(len(made))
                made[place], made[other] = made[other], made[place]
            case 1:
                del made[place]
            case 2:
                made.insert(place, dict(made[draw.randrange(len(made))]))
            case 3:
                made.insert(place, {"role": "system", "content": "be kind"})
            case 4:
                made[place]["role"] = draw.choice(ROLES)
            case 5 | 6:
                made[place]["content"] = draw.choice(CONTENTS)
            case 7:
                made[place]["tool_calls"] = draw.choice(CALLS)
            case 8:
                made[place].pop(draw.choice([*made[place]]))
            case _:
                made = draw.choice(([], made * 300, [made], made[0], None, *([mutate(made, draw)] * 3)))
        if not isinstance(made, list) or not all(isinstance(one, dict) for one in made):
            break
    return made


def template(draw: random.Random) -> str:
    """One that will do, with something missing, repeated, or put into it."""
    made = draw.choice((CHAT_TEMPLATE, CHAT_TEMPLATE, PLAIN_TEMPLATE, draw.choice(OTHERS)))
    for _ in range(draw.choice((0, 0, 1, 1, 2))):
        place = draw.randrange(len(made) + 1)
        match draw.randrange(4):
            case 0:
                made = made[:place]
            case 1:
                made = made[:place] + made[place + draw.randrange(12) :]
            case _:
                ends = [0, len(made), *(end + 2 for end in range(len(made)) if made[end : end + 2] == "%}")]
                place = draw.choice(ends)
                made = made[:place] + draw.choice(INTO_TEMPLATES) + made[place:]
    return made


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> RowTokenizer:
    folder = tmp_path_factory.mktemp("chat")
    chat_model(folder)
    tokenizer = RowTokenizer.load(folder)
    prepare(tokenizer)
    return RowTokenizer(tokenizer, 256)


def check(rows: list[Any], task: dict[str, Any], reader: RowTokenizer, folder: Path) -> bool:
    """Read and encode the rows, whose right answers must be learnt with the mark that ends them, or one sentence."""
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    content = {"name": "s", "model": {"name_or_path": "m"}, "data": {"train": path.name, "test_fraction": 0.5}}
    content |= {"task": {"kind": "causal-lm", **task}, "validation": {"folds": 2}}
    with limit(SECONDS):
        try:
            spec = StudySpec.from_mapping(content, folder=folder)
            made = find_task("causal-lm").configured(spec.task.options).taking(("messages",))
            found = load_rows(spec, made)
            data = made.encode(found.train, reader, ())
            made.told(found.train, reader)
            prompts = made.prompts(found.train, reader)
        except UserInputError as error:
            told = str(error)
            assert len(told) < LONGEST, told
            assert "\n" not in told
            return False
    learnt = [reader.tokenizer.decode(row[row >= 0]) for row in data.fields["labels"].of(range(len(data)))]
    asked = [reader.tokenizer.decode(row) for row in prompts]
    uncut = data.lengths == data.whole
    for prompt, question in zip(asked, made.asked(found.train), strict=True):
        assert question.strip().casefold() in prompt.casefold()
    for text, truth, whole in zip(learnt, data.truths, uncut, strict=True):
        said = truth.strip().casefold()
        if whole and "\n" not in said:  # else the calls of tools are told with what is said
            assert said in text.casefold()
            assert text.strip().casefold() != said, "nothing ends it"
    return True


def check_rows(case: int, reader: RowTokenizer, folder: Path) -> bool:
    draw = random.Random(f"rows {case}")
    rows = conversations(draw)
    for _ in range(draw.choice((0, 1, 1, 2))):
        place = draw.randrange(len(rows))
        if isinstance(rows[place], list):
            rows[place] = mutated(rows[place], draw)
    return check(rows, {"learn": draw.choice(("all", "last"))}, reader, folder)


def check_template(case: int, reader: RowTokenizer, folder: Path) -> bool:
    draw = random.Random(f"template {case}")
    task = {"template": template(draw), "learn": draw.choice(("all", "last"))}
    if draw.random() < 0.3:
        task["system"] = draw.choice(("be kind", " ", "<|im_end|>"))
    return check(conversations(draw), task, reader, folder)


CHECKS = {"rows": check_rows, "template": check_template}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(apart, "SECONDS", 2)
    monkeypatch.setattr(apart, "MEMORY", 2**27)


@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize("first", range(0, SLICE, PART))
def test_some_mutations_are_learnt_rightly_or_one_sentence(what, first, reader, tmp_path):
    check_part(first, PART, lambda case: CHECKS[what](case, reader, tmp_path))


@pytest.mark.fuzz
@pytest.mark.parametrize("what", CHECKS)
@pytest.mark.parametrize("first", range(SLICE, CASES, PART))
def test_mutations_are_learnt_rightly_or_one_sentence(what, first, reader, tmp_path):
    check_part(first, PART, lambda case: CHECKS[what](case, reader, tmp_path))
