"""Language models that write: which form rows have, what is learnt of them, and the way from rows to written texts."""

import json

import numpy as np
import pandas as pd
import pytest

import autopeft as api
from autopeft.common.exceptions import ModelError, SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from tests.conftest import DTYPE, WORDS, autopeft_here
from tests.tiny_language_models import language_model
from tests.writing_study import better_than_the_base_model, run_readme, run_study

CHATML = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }} <|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)
ANSWERS = ("yes", "no", "maybe okay")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    language_model(folder, "gpt2")
    return folder


def conversations(count=90, seed=0):
    """Which of three words begins a question tells the answer."""
    generator = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        rest = " ".join(WORDS[word] for word in generator.integers(4, len(WORDS), generator.integers(1, 6)))
        asked = {"role": "user", "content": f"{WORDS[place % 3]} {rest}"}
        rows.append([asked, {"role": "assistant", "content": ANSWERS[place % 3]}])
    return rows


def problem_of(folder, model, rows, metric="neg_loss", **task):
    pd.DataFrame(rows).to_json(folder / "rows.jsonl", orient="records", lines=True)
    content = {
        "name": "writes",
        "model": {"name_or_path": str(model), "dtype": DTYPE},
        "task": {"kind": "causal-lm", **task},
        "data": {"train": "rows.jsonl"},
        "validation": {"folds": 2, "metric": metric},
    }
    return Problem.from_spec(StudySpec.from_mapping(content, folder=folder), discover())


def learnt(problem, row):
    """The tokens of a training row that are learnt, as text."""
    tokens = problem.train.fields["labels"].of([row])[0]
    return problem.reader.tokenizer.decode(tokens)


FORMS = {
    "messages": lambda asked, answer: {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    },
    "conversations": lambda asked, answer: {
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    },
    "prompt": lambda asked, answer: {"prompt": f"{asked} ", "completion": answer},
    "prompt of messages": lambda asked, answer: {
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": answer}],
    },
    "instruction": lambda asked, answer: {"instruction": asked.split()[0], "input": asked, "output": answer},
    "question": lambda asked, answer: {"question": asked, "answer": answer},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_teaches_the_answer_alone(tmp_path, model, form):
    rows = [FORMS[form](messages[0]["content"], messages[1]["content"]) for messages in conversations()]
    problem = problem_of(tmp_path, model, rows, template="auto" if form == "prompt" else CHATML)
    truths = {
        learnt(problem, row).replace("[UNK]", "").replace("[SEP]", "").strip() for row in range(len(problem.train))
    }
    assert truths == {*ANSWERS}
    assert {*problem.test.truths} <= {*ANSWERS}
    (told,) = [note for note in problem.rows.notes if note.startswith("The rows are read as")]
    assert all(f"`{name}`" in told for name in rows[0])


def test_the_system_column_of_instructions_is_the_systems_message(tmp_path, model):
    rows = [
        {"instruction": m[0]["content"], "output": m[1]["content"], "system": "w9" if place % 2 else None}
        for place, m in enumerate(conversations())
    ]
    problem = problem_of(tmp_path, model, rows, template="plain", system="w8")
    assert problem.task.inputs == ("instruction", "system")
    texts = [row.text for row in problem.task.rendered(problem.rows.train, problem.reader.tokenizer)]
    assert {text[:2] for text in texts} == {"w8", "w9"}
    assert [text[:2] == "w9" for text in texts] == [cell == "w9" for cell in problem.rows.train["system"]]
    assert json.loads(
        problem.task.code({"instruction": ["a"], "system": ["b"]}).partition(" = ")[2].partition("\n")[0]
    ) == [[{"role": "system", "content": "b"}, {"role": "user", "content": "a"}]]


def test_a_text_is_learnt_whole(tmp_path, model):
    texts = [f"{messages[0]['content']} {messages[1]['content']}" for messages in conversations()]
    problem = problem_of(tmp_path, model, [{"text": text} for text in texts])
    rows = problem.rows.train["text"].tolist()
    assert learnt(problem, 0) == f"{' '.join(rows[0].split()[1:])} [SEP]"


def test_names_in_data_choose_the_form(tmp_path, model):
    rows = [{"text": "w1 w2", "ask": m[0]["content"], "reply": f" {m[1]['content']}"} for m in conversations()]
    pd.DataFrame(rows).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    content = {
        "model": {"name_or_path": str(model), "dtype": DTYPE},
        "task": {"kind": "causal-lm"},
        "data": {"train": "rows.jsonl", "prompt": "ask", "completion": "reply"},
        "name": "named",
    }
    problem = Problem.from_spec(StudySpec.from_mapping(content, folder=tmp_path), discover())
    assert problem.task.inputs == ("prompt",)
    assert learnt(problem, 0).removesuffix(" [SEP]") in ANSWERS


SEVERAL = [
    {"role": "user", "content": "w1"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "w2"},
    {"role": "assistant", "content": "no"},
]


@pytest.mark.parametrize(("learn", "wanted"), [("all", ["yes", "no"]), ("last", ["no"])])
def test_of_several_answers_all_or_the_last_are_learnt(tmp_path, model, learn, wanted):
    rows = [{"messages": [*SEVERAL[:2], {"role": "user", "content": f"w{n + 3}"}, SEVERAL[3]]} for n in range(30)]
    problem = problem_of(tmp_path, model, rows, template=CHATML, learn=learn)
    assert [word for word in learnt(problem, 0).split() if word != "[UNK]"] == wanted


def test_a_prompt_with_two_answers_is_on_one_side_of_the_split_and_told(tmp_path, model):
    rows = [{"messages": messages} for messages in conversations()]
    again = [{"messages": [messages[0], {"role": "assistant", "content": "great"}]} for messages in conversations(30)]
    problem = problem_of(tmp_path, model, [*rows, *again])
    assert any("rows share their `messages`" in note for note in problem.rows.notes)
    assert not {*problem.rows.train["messages"]} & {*problem.rows.test["messages"]}


def test_a_template_that_says_a_beginning_differently_is_refused(tmp_path, model):
    template = CHATML.replace("{% for", "{{ messages | length }} {% for")
    rows = [{"messages": [*SEVERAL[:2], {"role": "user", "content": WORDS[n]}, SEVERAL[3]]} for n in range(30)]
    with pytest.raises(SpecError, match='set `learn = "last"`'):
        problem_of(tmp_path, model, rows, template=template)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("chat", "has no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ nonsense", "the chat template must take every conversation"),
        ("{% for message in messages %}{{ message['role'] }}{% endfor %}", "print what the assistant says"),
    ],
)
def test_a_template_that_will_not_do_is_refused(tmp_path, model, template, told):
    with pytest.raises(SpecError, match=told):
        problem_of(tmp_path, model, [{"messages": one} for one in conversations()], template=template)


def test_rows_without_an_answer_that_fits_are_refused(tmp_path, model):
    pd.DataFrame({"messages": conversations()}).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    content = {
        "model": {"name_or_path": str(model), "max_length": 8},
        "task": {"kind": "causal-lm", "system": " ".join(WORDS[:9])},
        "data": {"train": "rows.jsonl"},
        "name": "short",
    }
    with pytest.raises(SpecError, match="`max_length` in \\[model\\] must leave part of an answer"):
        Problem.from_spec(StudySpec.from_mapping(content, folder=tmp_path), discover())


def test_a_score_that_is_not_known_is_refused_before_anything_trains(tmp_path, model):
    with pytest.raises(SpecError, match="rouge_l"):
        problem_of(tmp_path, model, [{"messages": one} for one in conversations()], scores=["rouge_ll"])


def test_an_encoder_is_refused(tmp_path, tiny_model):
    with pytest.raises(ModelError, match="was pretrained to continue a text, but bert"):
        problem_of(tmp_path, tiny_model, [{"messages": one} for one in conversations()])


@pytest.fixture(scope="module")
def study(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("study")
    pd.DataFrame({"messages": conversations(120)}).to_json(folder / "rows.jsonl", orient="records", lines=True)
    search = {"epochs": 15, "batch_size": 8, "learning_rate": 0.03}
    return folder, run_study(folder, model, "rows.jsonl", {"kind": "causal-lm", "template": "plain"}, search)


@pytest.fixture(scope="module")
def winner(study):
    return api.load(study[0] / "outputs" / "writes" / "winner")


def test_a_study_is_better_than_the_base_model(study):
    assert better_than_the_base_model(study[1]) > 0.5


def test_the_report_shows_what_was_written(study):
    done = autopeft_here("report", "study.toml", cwd=study[0])
    assert done.returncode == 0, done.stderr
    assert "What was written" in done.stdout
    page = (study[0] / "outputs" / "writes" / "report.html").read_text()
    assert "base model" in page
    assert "exact_match" in page


def test_the_winner_writes_for_rows_of_a_file(study, winner):
    folder = study[0]
    rows = pd.DataFrame({"messages": conversations(7, seed=1)})
    rows.to_json(folder / "some.jsonl", orient="records", lines=True)
    done = autopeft_here("predict", "outputs/writes/winner", "--input", "some.jsonl", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    texts = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    asked = rows.assign(messages=rows["messages"].map(lambda messages: messages[:1]))
    assert texts == winner.predict(asked)
    answers = winner.answers(rows.assign(answer=rows["messages"]))
    assert answers.shape == (7, 3)
    alone = [winner.predict(asked.iloc[[place]])[0] for place in range(7)]
    assert texts == alone, "padding must not bear on what is written"


@pytest.mark.parametrize("form", ["merged", "peft"])
def test_exports_write_the_same_by_their_readme(model, winner, form, tmp_path, monkeypatch):
    folder = api.export(winner, tmp_path / "made", form)
    made = run_readme(folder, model, monkeypatch)
    sample = pd.DataFrame({"messages": made["conversations"]})
    assert made["texts"] == winner.predict(sample)
    trained, tokenizer = made["model"], made["tokenizer"]
    rows = conversations(50, seed=2)
    prompts = [
        tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True) for messages in rows
    ]
    inputs = tokenizer(
        prompts,
        padding=True,
        padding_side="left",
        add_special_tokens=False,
        split_special_tokens=False,
        return_tensors="pt",
    )
    tokens = trained.generate(**inputs, max_new_tokens=winner._task.limits.new, do_sample=False, eos_token_id=[3])
    texts = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert texts == winner.predict(pd.DataFrame({"messages": [messages[:1] for messages in rows]}))


def test_mlflow_gives_the_same(winner, tmp_path):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(api.export(winner, tmp_path / "made", "mlflow")))
    rows = pd.DataFrame({"messages": [messages[:1] for messages in conversations(5, seed=3)]})
    assert model.predict(rows)["text"].tolist() == winner.predict(rows)


def test_onnx_is_refused(winner, tmp_path):
    with pytest.raises(api.AutopeftError, match="ONNX holds one pass of a model"):
        api.export(winner, tmp_path / "made", "onnx")


def test_the_kind_is_told_from_its_settings():
    task = find_task("causal-lm").configured({"max_new_tokens": 5}).taking(["prompt"])
    assert task.inputs == ("prompt",)
    with pytest.raises(SpecError):
        find_task("causal-lm").configured({"learn": "none"})
