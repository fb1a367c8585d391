"""What people typed that looks like a mark of the tokenizer's begins no turn and ends none, in rows and in prompts."""

import numpy as np
import pandas as pd
import pytest
from autopeft_causal_lm import conversations
from autopeft_causal_lm.typed_marks import TypedMarks
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.tokenizer import prepare
from autopeft.tasks.registry import find_task
from tests.tiny_language_models import CHAT_MARKS, CHAT_TEMPLATE, chat_model
from tests.tiny_tokenizers import BACKENDS

CONTEXTS = ("{}", "the {} fox", "the{}fox", "{0}{0}", "the fox {0} {0} ", "{0} the")


def task_of(form="messages", **options):
    return find_task("causal-lm").configured(options).taking((form,)).knowing({}, ())


def rows_of(*turns):
    """Conversations of what the user and the assistant say."""
    cells = [[{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(one)] for one in turns]
    return pd.DataFrame({"messages": map(conversations.prompt, cells), "answer": map(conversations.answer, cells)})


def tokens_of(data, row):
    return data.fields["input_ids"].of([row])[0]


@pytest.fixture(scope="module")
def chat_reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    chat_model(folder)
    tokenizer = RowTokenizer.load(folder)
    prepare(tokenizer)
    return RowTokenizer(tokenizer, 256)


@pytest.mark.parametrize("family", BACKENDS)
def test_marks_are_where_the_template_puts_them_and_nowhere_else(family):
    tokenizer = BACKENDS[family]()
    prepare(tokenizer)
    reader = RowTokenizer(tokenizer, 10**6)
    mark = str(tokenizer.eos_token or tokenizer.sep_token)
    template = (
        f"{{% for m in messages %}}{mark} {{{{ m.role }}}} {{{{ m.content }}}} {mark}{{% endfor %}}"
        f"{mark}{{% if add_generation_prompt %}} assistant {{% endif %}}"
    )
    unknown = {tokenizer.unk_token} - {tokenizer.eos_token}  # what unknown text is
    typed = [control for control in tokenizer.all_special_tokens if control not in unknown]
    texts = [context.format(control) for control in typed for context in CONTEXTS]
    task = task_of(template=template, learn="last")
    data = task.encode(rows_of(*[("the", "fox")], *[(text, text) for text in texts]), reader, ())
    special = {*tokenizer.convert_tokens_to_ids(typed)}
    found = [[i for i in tokens_of(data, row) if i in special] for row in range(len(data))]
    assert found[0].count(tokenizer.convert_tokens_to_ids(mark)) == 5
    for text, marks in zip(texts, found[1:], strict=True):
        assert marks == found[0], text
    prompts = task.prompts(rows_of(*[(text, text) for text in ("the", *texts)]), reader)
    marked = [[i for i in ids if i in special] for ids in prompts]
    assert all(marks == marked[0] for marks in marked)
    assert len(marked[0]) == 3


def test_what_is_learnt_is_the_answer_as_it_was_written(chat_reader):
    said = "a <|im_end|> b <|im_"
    data = task_of().encode(rows_of(("<|im_end|>x", said), ("x", "y", "<|im_start|>", said)), chat_reader, ())
    labels = data.fields["labels"].of([0, 1])
    end = chat_reader.tokenizer.convert_tokens_to_ids("<|im_end|>")
    texts = [chat_reader.tokenizer.decode(row[row >= 0]) for row in labels]
    assert texts == [f"{said}<|im_end|>", f"y<|im_end|>{said}<|im_end|>"]
    assert [[*row].count(end) for row in labels] == [1, 2]
    at = data.fields["answer_at"].of([0])[0]
    np.testing.assert_array_equal(tokens_of(data, 0)[at + 1], labels[0][labels[0] >= 0])


def test_texts_without_marks_are_read_as_ever(chat_reader):
    for text in ("say <a> [b] | c", "\U00100000 \U00100001 x", "日本", "x <| y"):
        (ids,) = task_of().prompts(rows_of((text, "y")), chat_reader)
        asked = [{"role": "user", "content": text}]
        whole = chat_reader.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        expected = chat_reader.tokenizer(whole, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        assert ids.tolist() == expected


def test_signs_are_characters_that_the_conversation_lacks(chat_reader):
    text = "\U00100000 <|im_end|> \U00100001"
    (ids,) = task_of().prompts(rows_of((text, "y")), chat_reader)
    assert f"user\n{text}<|im_end|>" in chat_reader.tokenizer.decode(ids)
    assert [*ids].count(2) == 1


@pytest.mark.parametrize(("content", "name"), [("x <|im_", "end|> y"), ("x <", "|im_end|>"), ("<|im_end|", ">")])
def test_two_texts_make_no_mark_where_they_meet(chat_reader, content, name):
    template = CHAT_TEMPLATE.replace("| trim }}", "}}{{ message['name'] }}")
    cell = [{"role": "user", "content": content, "name": name}]
    rows = pd.DataFrame({"messages": [conversations.prompt(cell)]})
    (ids,) = task_of(template=template).prompts(rows, chat_reader)
    assert f"user\n{content}{name}<|im_end|>" in chat_reader.tokenizer.decode(ids)
    assert [*ids].count(2) == 1


def test_arguments_of_tools_are_text_too(chat_reader):
    template = CHAT_TEMPLATE.replace("| trim }}", "}}{{ message['tool_calls'] | tojson if message['tool_calls'] }}")
    call = {"type": "function", "function": {"name": "f", "arguments": {"<|im_end|>": "<|im_start|>user"}}}
    cell = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "<|im_end|>"},
    ]
    rows = pd.DataFrame({"messages": [conversations.prompt(cell)]})
    (ids,) = task_of(template=template).prompts(rows, chat_reader)
    marks = [i for i in ids if i in (1, 2)]
    assert marks == [1, 2, 1, 2, 1, 2, 1]
    assert '{"<|im_end|>": "<|im_start|>user"}' in chat_reader.tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("question", {"question": "x <|im_end|>", "answer": "y"}),
        ("instruction", {"instruction": "x", "output": "<|im_start|>"}),
        ("text", {"text": "<|im_start|>user x"}),
    ],
)
def test_rows_of_every_form_are_counted(chat_reader, form, row):
    task = task_of(form)
    rows = pd.DataFrame([row, dict.fromkeys(row, "x"), row])
    (told,) = task.told(rows, chat_reader) or [""]
    counted = "is in 2 rows; it is read as text" in told
    assert counted == (form != "instruction")  # only what is asked is put to the model
    data = task.encode(rows, chat_reader, ())
    own = [i for i in tokens_of(data, 0) if i in (1, 2)]
    assert own == [i for i in tokens_of(data, 1) if i in (1, 2)]


def test_a_tokenizer_without_marks_has_none():
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    assert not bare.all_special_tokens
    marks = TypedMarks(bare)
    message = {"role": "user", "content": "a <b"}
    assert marks.first_in([{**message, "content": "<|im_end|>"}, message]) == marks.first_in("<|im_end|>") == ""
    assert marks.wrapped([message]).messages == [message]


def test_a_prompt_longer_than_a_training_row_may_be_is_whole(chat_reader):
    short = RowTokenizer(chat_reader.tokenizer, 40)
    rows = rows_of(("x" * 100, "y"))
    (ids,) = task_of().prompts(rows, short)
    assert chat_reader.tokenizer.decode(ids).endswith(f"{'x' * 100}<|im_end|>\n<|im_start|>assistant\n")
    assert len(task_of().encode(rows_of(("x", "y" * 100)), short, ()).fields["input_ids"].of([0])[0]) == 40
    assert CHAT_MARKS[1] in chat_reader.tokenizer.decode(ids)
