"""Answers that stand in a text: from a file in SQuAD's form to a winner, its report and its exports; and bad rows."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch

import autopeft as api
from autopeft.common.exceptions import DataError, SpecError
from autopeft.data.load import load_rows
from autopeft.study.file import StudySpec
from autopeft.tasks import user_metric
from autopeft.tasks.registry import find_task
from autopeft.testing.task_case import TaskCase
from tests.conftest import DTYPE, HEAVY, WORDS, autopeft_here

TASK = find_task("question-answering")


def questions(count: int = 72, *, none: bool = False) -> list[dict]:
    """Contexts in which the answer to "w0" is w5 and that to "w1" is w6; some are longer than the tiny model reads."""
    generator = np.random.default_rng(0)
    rows = []
    for place in range(count):
        asked = place % 2
        words = [*generator.choice(WORDS[10:], 80 if place % 6 == 0 else generator.integers(5, 15))]
        missing = none and place % 3 == 0
        if not missing:
            words.insert(generator.integers(0, len(words)), WORDS[5 + asked])
        context = "  ".join(words)
        texts = [] if missing else [WORDS[5 + asked]]
        answers = {"text": texts, "answer_start": [context.index(text) for text in texts]}
        rows.append({"question": WORDS[asked], "context": context, "answers": answers, "title": f"t{place // 4}"})
    return rows


def nested(rows: list[dict]) -> dict:
    """As SQuAD publishes them, an article for each title."""
    articles: dict[str, list] = {}
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        asked = {"question": row["question"], "answers": answers, "is_impossible": not answers, "id": "x"}
        articles.setdefault(row["title"], []).append({"context": row["context"], "qas": [asked]})
    data = [{"title": title, "paragraphs": paragraphs} for title, paragraphs in articles.items()]
    return {"version": "v2.0", "data": data}


def loaded(folder, name, options=None, **data):
    content = {
        "name": "s",
        "model": {"name_or_path": "model"},
        "task": {"kind": "question-answering", **(options or {})},
        "data": {"train": name, **data},
    }
    spec = StudySpec.from_mapping(content, folder=folder)
    return load_rows(spec, TASK.configured(spec.task.options).taking(spec.data.named))


def write(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return name


def test_the_same_rows_come_from_every_form(tmp_path):
    rows = questions(none=True)
    frame = pd.DataFrame(rows)
    write(tmp_path, rows)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.assign(answers=frame["answers"].map(json.dumps)).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "squad.json").write_text(json.dumps(nested(rows)))
    first = frame.assign(
        answer=["".join(row["answers"]["text"][:1]) for row in rows],
        answer_start=["".join(map(str, row["answers"]["answer_start"][:1])) for row in rows],
    )
    first.drop(columns="answers").to_csv(tmp_path / "flat.csv", index=False)
    first.assign(answer=first["answer"].replace("", None)).to_parquet(tmp_path / "flat.parquet")
    found = {name: loaded(tmp_path, name) for name in ("rows.jsonl", "rows.parquet", "rows.csv", "rows.json")}
    found["squad.json"] = loaded(tmp_path, "squad.json")
    flat = {"answer": "answer", "answer_start": "answer_start"}
    for name in ("flat.csv", "flat.parquet"):
        found[name] = loaded(tmp_path, name, {"unanswerable": True}, **flat)
    expected = found["rows.jsonl"]
    assert expected.facts == {"unanswerable": True}
    assert expected.notes[-1].endswith("training rows have no answer, so the winner may answer with none.")
    for name, rows in found.items():
        columns = ["question", "context", "answers"]
        assert rows.train[columns].values.tolist() == expected.train[columns].values.tolist(), name
        assert rows.test[columns].values.tolist() == expected.test[columns].values.tolist(), name
    assert expected.train["answers"].map(type).eq(tuple).all()


def test_rows_in_memory_are_kept_and_read_again(tmp_path):
    from autopeft.tuning import specify

    rows = questions(none=True)
    tables = {"name": "t", "model": {"name_or_path": "m"}}
    squad = {**tables, "output": str(tmp_path / "a"), "task": {"kind": "question-answering"}}
    spec = specify(squad, pd.DataFrame(rows), None)
    flat = [{**row, "answer": (row["answers"]["text"] or [None])[0]} for row in rows]
    options = {"kind": "question-answering", "unanswerable": True}
    plain = specify(
        {**tables, "output": str(tmp_path / "b"), "task": options}, {"train": flat, "answer": "answer"}, None
    )
    found = [load_rows(spec, TASK.configured(spec.task.options).taking(spec.data.named)) for spec in (spec, plain)]
    texts = [[[text for text, _ in answers] for answers in rows.train["answers"]] for rows in found]
    assert texts[0] == texts[1]
    assert any("do not say where their answer starts" in note for note in found[1].notes)


def test_contexts_stay_whole_unless_another_group_is_named(tmp_path):
    rows = [{**row, "question": f"{row['question']} w{place}"} for row in questions(24) for place in range(3)]
    write(tmp_path, rows)
    found = loaded(tmp_path, "rows.jsonl")
    assert not {*found.train["context"]} & {*found.test["context"]}
    assert found.train["group"].equals(found.train["context"])
    found = loaded(tmp_path, "rows.jsonl", group="title")
    assert {*found.train["group"]} <= {row["title"] for row in rows}


def answer(text, start, **more):
    return {"answers": {"text": [text], "answer_start": [start]}, **more}


CONTEXT = "one two three two"
BAD = {
    "elsewhere": (answer("two", 3), r'row 5: the answer "two" must be .* from character 3 on, .* but " tw" is '
                  r"there; it first occurs at 4"),
    "behind": (answer("two", 400), "that ends after 17 characters"),
    "nowhere": (answer("ten", 3), r'row 5: the answer "ten" must be in the context, but is not'),
    "question": (answer("two", 4, question=" "), r'row 5: the column "question" must not be empty'),
    "context": (answer("two", 4, context=None), r'row 5: the column "context" must not be empty'),
    "unequal": ({"answers": {"text": ["two"], "answer_start": []}}, "has 1 in `text` but 0 in `answer_start`"),
    "number": ({"answers": 5}, r"row 5: every cell of the column .answers. must hold answers in SQuAD.s form"),
    "text": ({"answers": "two"}, "is a text that is not JSON"),
    "none": ({"answers": None}, r'row 5: the column "answers" must not be empty'),
    "no list": ({"answers": {"answer_start": [3]}}, "has no list `text`"),
    "empty": (answer("", 4), "has an empty answer .* use empty lists for no answer"),
    "typed": (answer(3, 4), "has an answer that is not a text"),
    "negative": (answer("two", -1), "has a start that is not a whole number"),
    "half": (answer("two", 4.5), "has a start that is not a whole number"),
    "truth": (answer("two", True), "has a start that is not a whole number"),
    "deep": ({"answers": [["two", 4, 5]]}, "has a list of something other than answers"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_told_in_a_sentence(name, tmp_path):
    row, expected = BAD[name]
    rows = [{"question": "which ?", "context": f"{CONTEXT} {n}", **answer("two", 4)} for n in range(30)]
    rows[4] = {"question": "which ?", "context": CONTEXT, **row}
    with pytest.raises(DataError, match=expected) as told:
        loaded(tmp_path, write(tmp_path, rows))
    assert str(told.value).startswith(str(tmp_path / "rows.jsonl"))
    assert len(str(told.value)) < 800


FLAT = {
    "empty": ({"answer": ""}, {}, r"row 5: every cell of the column .answer. must hold an answer, but this one is "
              r"empty .* `unanswerable = true`"),
    "missing": ({"answer": None}, {}, "must hold an answer, but this one is empty"),
    "nowhere": ({"answer": "ten"}, {}, "in the context, but is not"),
    "start": ({"answer": "two", "start": "x"}, {"answer_start": "start"}, "must be a whole number from 0 on"),
    "places": ({"answer": "two", "start": 3}, {"answer_start": "start"}, "it first occurs at 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAT)
def test_bad_rows_of_plain_columns_are_told_in_a_sentence(name, tmp_path):
    row, data, expected = FLAT[name]
    rows = [{"question": "which ?", "context": f"{CONTEXT} {n}", "answer": "two", "start": 4} for n in range(30)]
    rows[4] = {"question": "which ?", "context": CONTEXT, "start": "", **row}
    with pytest.raises(DataError, match=expected):
        loaded(tmp_path, write(tmp_path, rows), answer="answer", **data)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"data": [{"paragraphs": 3}]}, r"data\[0\]\.paragraphs, must be a list as in SQuAD's files, but is 3"),
        ({"data": [{"paragraphs": [{"context": "a"}]}]}, r"data\[0\]\.paragraphs\[0\]\.qas, must be a list"),
        ({"data": [{"paragraphs": []}, 4]}, r"data\[1\], must be a JSON object"),
        ({"data": [{"paragraphs": [{"context": "a", "qas": [["b"]]}]}]}, r"qas\[0\], must be a JSON object"),
        ({"data": [{"paragraphs": [{"context": "a"} | {"qas": [{"question": "b", "answers": [{"text": "c"}]}]}]}]},
         r"row data\[0\]\.paragraphs\[0\]\.qas\[0\]: the answer .c. must be in the context, but is not"),
        ({"data": [{"paragraphs": [{"qas": [{"question": "b", "answers": []}]}]}]}, "row data.* must not be empty"),
        ({"data": [{"paragraphs": []}]}, "must hold at least one row"),
        ({"data": []}, "must hold a JSON list of objects"),
    ],
)  # fmt: skip
def test_a_file_unlike_squads_is_told_with_the_place(content, expected, tmp_path):
    (tmp_path / "squad.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=expected):
        loaded(tmp_path, "squad.json")


def test_settings_that_do_not_go_together_are_told(tmp_path):
    write(tmp_path, questions())
    with pytest.raises(SpecError, match="either the column `answers`, or `answer`"):
        loaded(tmp_path, "rows.jsonl", answers="answers", answer="answer")
    with pytest.raises(SpecError, match="name `answer` too"):
        loaded(tmp_path, "rows.jsonl", answer_start="start")
    with pytest.raises(SpecError, match="stride"):
        TASK.configured({"stride": -1})
    with pytest.raises(DataError, match="must know whether a question may have no answer"):
        TASK.knowing({})
    write(tmp_path, [{**row, "answers": {"text": [], "answer_start": []}} for row in questions()])
    with pytest.raises(DataError, match="at least one training row must have an answer"):
        loaded(tmp_path, "rows.jsonl")
    write(tmp_path, questions())
    write(tmp_path, questions(none=True), "test.jsonl")
    with pytest.raises(DataError, match=r"test.jsonl, row 1: every held-out question must have an answer"):
        loaded(tmp_path, "rows.jsonl", test="test.jsonl")


def test_a_context_of_more_characters_than_answers_can_name_is_refused():
    from autopeft_question_answering.answer_cells import LONGEST, read_context

    assert len(read_context("a" * LONGEST)) == LONGEST
    with pytest.raises(api.CellError, match="16,777,217") as told:
        read_context("a" * (LONGEST + 1))
    assert told.value.rule == "be a text of at most 16,777,216 characters"
    assert all(int(np.float32(place)) == place for place in (LONGEST, LONGEST - 1))


SCORES = [
    ("The cat!", ["a  CAT"], 1.0, 1.0), ("the big cat", ["cat"], 2 / 3, 0.0), ("dog", ["cat", "dog"], 1.0, 1.0),
    ("", ["cat"], 0.0, 0.0), ("", [], 1.0, 1.0), ("the", [], 0.0, 0.0), ("the", ["a"], 1.0, 1.0),
    ("cat", ["the"], 0.0, 0.0), ("cat cat dog", ["cat dog dog"], 2 / 3, 0.0), ("one-two", ["onetwo"], 1.0, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("given", "texts", "f1", "exact"), SCORES)
def test_scores_are_squads(given, texts, f1, exact):
    from autopeft_question_answering import squad_score

    assert squad_score.f1(given, texts) == pytest.approx(f1)
    assert squad_score.exact_match(given, texts) == exact


def test_scores_are_those_of_another_library():
    torchmetrics = pytest.importorskip("torchmetrics.functional.text")
    for given, texts, f1, exact in SCORES:
        if given and texts:
            answers = {"text": list(texts), "answer_start": [0] * len(texts)}
            found = torchmetrics.squad({"prediction_text": given, "id": "1"}, {"answers": answers, "id": "1"})
            assert (float(found["f1"]), float(found["exact_match"])) == pytest.approx((100 * f1, 100 * exact))


def outputs(starts, ends):
    return type("Outputs", (), {"start_logits": torch.tensor(starts), "end_logits": torch.tensor(ends)})()


def test_the_best_span_is_in_the_context_in_order_and_not_too_long():
    spans = torch.tensor([[[-1, -1], [0, 1], [2, 3], [4, 5], [6, 7], [-1, -1]]])
    batch = {"spans": spans, "none_at": torch.tensor([0]), "attention_mask": torch.ones(1, 6, dtype=torch.long)}

    def best(starts, ends, most=3):
        return TASK.configured({"max_answer_tokens": most}).answer(outputs([starts], [ends]), batch)[0].tolist()

    assert best([9.0, 0, 1, 0, 0, 9], [9.0, 0, 0, 2, 0, 9])[:4] == [2, 5, 3, 18]
    assert best([0.0, 0, 0, 5, 0, 0], [0.0, 5, 0, 0, 1, 0])[:3] == [4, 7, 6]  # no end before the start
    assert best([0.0, 5, 0, 0, 0, 0], [0.0, 0, 0, 0, 5, 0])[:3] == [0, 1, 5]  # nor more than 3 tokens behind
    assert best([0.0, 5, 0, 0, 0, 0], [0.0, 0, 0, 0, 5, 0], 4)[:3] == [0, 7, 10]
    *_, span, none = best([0.0] * 6, [0.0] * 6)
    assert span == pytest.approx(1 / 36)
    assert none == pytest.approx(1 / 36)
    batch["spans"] = torch.full((1, 6, 2), -1)  # a window of no context
    found = best([0.0] * 6, [0.0] * 6)
    assert np.isfinite(found).all()
    assert found[:2] == [0, 0]


def test_padding_counts_neither_in_the_loss_nor_in_what_is_probable():
    batch = {
        "attention_mask": torch.tensor([[1, 1, 0]]), "start_positions": torch.tensor([0]),
        "end_positions": torch.tensor([1]), "none_at": torch.tensor([0]),
        "spans": torch.tensor([[[-1, -1], [0, 3], [-1, -1]]]),
    }  # fmt: skip
    found = outputs([[0.0, 0.0, 50.0]], [[0.0, 0.0, 50.0]])
    assert float(TASK.loss(found, batch)) == pytest.approx(np.log(2))
    assert TASK.answer(found, batch)[0, 4:].tolist() == pytest.approx([0.25, 0.25])


def test_the_best_window_answers_and_none_is_what_all_windows_say():
    answers = np.array([[5, 6, 1.0, 4.0, 0.1, 0.7], [8, 9, 3.0, 2.0, 0.5, 0.3], [1, 2, 2.0, 0.0, 0.6, 0.2]], np.float32)
    found = TASK.combine(answers, np.array([7, 7, 3]))
    np.testing.assert_allclose(found, [[8, 9, 3.0, 2.0, 0.5, 0.3], [1, 2, 2.0, 0.0, 0.6, 0.2]])
    rows = pd.DataFrame({"context": ["0123456789"] * 2})

    def texts(options, unanswerable):
        task = TASK.configured(options).knowing({"unanswerable": unanswerable})
        return task.worded(found, rows)[:, 0].tolist()

    assert texts({}, True) == ["8", "1"]
    assert texts({"no_answer_threshold": -1.5}, True) == ["", "1"]
    assert texts({"no_answer_threshold": -1.5}, False) == ["8", "1"]
    task = TASK.configured({"no_answer_threshold": -1.5}).knowing({"unanswerable": True})
    worded = task.worded(found, rows)
    assert task.table(worded, ()).values.tolist() == [["", pytest.approx(0.3), -1, -1], ["1", pytest.approx(0.6), 1, 2]]
    assert task.as_json(worded[0], ())["answer"] is None
    assert task.as_json(worded[1], ()) | {"score": 0, "no_answer": 0} == {
        "answer": "1", "start": 1, "end": 2, "score": 0, "no_answer": 0, "margin": 2.0,
    }  # fmt: skip
    assert task.written(worded, ()) == ["[]", '["1"]']


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm_roberta", "t5", "llama", "modernbert"])
def test_the_tokens_of_an_answer_are_those_of_its_characters(name):
    from autopeft.models.row_tokenizer import RowTokenizer
    from autopeft.models.tokenizer import prepare
    from tests.tiny_tokenizers import BACKENDS

    tokenizer = BACKENDS[name]()
    prepare(tokenizer)
    context = "a b the fox runs, " * 6 + "the  sly fox/dog runs"
    start = context.index("sly fox")
    rows = pd.DataFrame({"question": ["the fox", "b"], "context": [context] * 2})
    rows["answers"] = [(("  sly fox", start - 2),), ()]
    task = TASK.configured({"stride": 12}).knowing({"unanswerable": True})
    data = task.encode(rows, RowTokenizer(tokenizer, 48), ())
    assert len(data) > 2
    seen = set()
    for window in data.everything:
        batch = {name: tensor[0] for name, tensor in data.batch([window]).items()}
        first, last = int(batch["start_positions"]), int(batch["end_positions"])
        if data.row_of[window] == 1 or first == int(batch["none_at"]) == last:
            assert first == last == int(batch["none_at"])
            continue
        seen.add(context[int(batch["spans"][first, 0]) : int(batch["spans"][last, 1])])
    assert seen == {"sly fox"}


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("questions")
    (folder / "model").symlink_to(tiny_model)
    (folder / "squad.json").write_text(json.dumps(nested(questions(120, none=True))))
    (folder / "study.toml").write_text(
        f"""
name = "questions"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "question-answering"
stride = 10
[data]
train = "squad.json"
group = "title"
[search]
methods = ["lora"]
trials = 2
references = false
epochs = 12
batch_size = 8
learning_rate = 0.02
[validation]
folds = 2
"""
    )
    done = autopeft_here("run", "study.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_study_of_questions_beats_an_empty_answer(study):
    folder, result = study
    assert result["metric"] == "f1"
    assert result["test"]["baseline_name"] == "empty answer"
    assert 0.2 < result["test"]["baseline"] < 0.5 < result["test"]["winner"]
    with (folder / "outputs" / "questions" / "test_predictions.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["row", "label", "winner"]
    assert rows[0][0].startswith("data[")
    assert {row[header.index("empty_answer")] for row in rows} == {"[]"}
    assert "[]" in {row[2] for row in rows}
    assert {row[2] for row in rows} & {'["w5"]', '["w6"]'}
    assert sum(row[1] == row[2] for row in rows) / len(rows) == pytest.approx(result["test"]["winner"], abs=0.2)


def test_its_report_shows_where_it_is_good(study):
    folder, result = study
    done = autopeft_here("report", "study.toml", "--json", cwd=folder)
    report = json.loads(done.stdout)
    scores = {entry["name"]: entry for entry in report["test"]["scores"]}
    low, high = scores["the winner"]["interval"]
    assert low <= result["test"]["winner"] <= high
    titles = [section["title"] for section in report["sections"]]
    assert titles[:2] == ["By the question's first word", "By the answer's length"]
    done = autopeft_here("report", "study.toml", cwd=folder)
    assert "By the answer's length" in done.stdout
    assert "By the answer&#39;s length" in (folder / "outputs" / "questions" / "report.html").read_text()


def test_the_winner_answers_with_places_in_the_context(study):
    folder, _ = study
    winner = api.load(folder / "outputs" / "questions" / "winner")
    rows = pd.DataFrame(questions(30, none=True))[["question", "context"]]
    rows.to_csv(folder / "some.csv", index=False)
    done = autopeft_here("predict", "outputs/questions/winner", "--input", "some.csv", cwd=folder)
    table = pd.read_csv(io.StringIO(done.stdout), keep_default_na=False)
    assert [*table.columns] == ["question", "context", "answer", "score", "start", "end"]
    for text, context, start, end in zip(table["answer"], rows["context"], table["start"], table["end"], strict=True):
        assert text == (context[start:end] if start >= 0 else "")
    assert table["answer"].tolist() == winner.predict(rows)
    assert table["score"].between(0, 1).all()
    assert "" in set(table["answer"])
    done = autopeft_here("predict", "outputs/questions/winner", "--input", "some.csv", "--json", cwd=folder)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["answer"] or "" for one in told] == table["answer"].tolist()
    assert [one["start"] for one in told if one["answer"] is None] == [None] * (table["answer"] == "").sum()
    assert all((one["margin"] < 0) == (one["answer"] is None) for one in told)
    done = autopeft_here("predict", "outputs/questions/winner", cwd=folder)
    assert "needs the columns question, context; give a file with --input" in done.stderr
    (folder / "squad_like.json").write_text((folder / "squad.json").read_text())
    done = autopeft_here("predict", "outputs/questions/winner", "--input", "squad_like.json", cwd=folder)
    assert len(done.stdout.splitlines()) == 121


@pytest.mark.parametrize("form", ["merged", "peft", "mlflow", "onnx"])
def test_its_exports_answer_as_it_does(form, study, tmp_path):
    folder, _ = study
    winner = api.load(folder / "outputs" / "questions" / "winner")
    rows = pd.DataFrame([row for row in questions(30, none=True) if len(row["context"]) < 80])[["question", "context"]]
    if form == "onnx":
        pytest.importorskip("onnxscript")
    made = api.export(winner, tmp_path / "made", form)
    if form == "mlflow":
        import mlflow.pyfunc

        table = mlflow.pyfunc.load_model(str(made)).predict(rows)
        assert table["answer"].tolist() == winner.predict(rows)
        return
    starts, ends, tokens = run_readme(made, form, rows, folder)
    for row, (question, context) in enumerate(rows.itertuples(index=False)):
        encoding = tokens.encodings[row]
        inside = [place for place, text in enumerate(encoding.sequence_ids) if text == 1]
        spans = [(a, b) for a in inside for b in inside if a <= b < a + 30]
        a, b = max(spans, key=lambda span: starts[row][span[0]] + ends[row][span[1]])
        none = starts[row][0] + ends[row][0] > starts[row][a] + ends[row][b]
        text = "" if none else context[encoding.offsets[a][0] : encoding.offsets[b][1]]
        assert [text] == winner.predict(pd.DataFrame({"question": [question], "context": [context]}))


def run_readme(made, form, rows, folder):
    """The Python of the README, with these rows in the place of its own; returns both logits and the tokens."""
    text = (made / "README.md").read_text()
    assert "the answer goes from the largest start logit" in text or form != "merged"
    assert "question-answering" in text
    code = text.split("```python\n")[1].split("```")[0]
    sample = winner_sample()
    for key, cells in sample.items():
        assert json.dumps(cells) in code
        code = code.replace(json.dumps(cells), repr(rows[key].tolist()))
    code = code.replace('base = "model"', f"base = {str(folder / 'model')!r}")
    values: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        exec(compile(code, "README.md", "exec"), values)
    found = [np.asarray(torch.as_tensor(values[name]).detach()) for name in ("start_logits", "end_logits")]
    return *found, values["inputs"]


def winner_sample():
    return TASK.sample(["a", "b"])


def test_the_mark_of_no_answer_is_the_tokenizers_or_the_first_token():
    from autopeft_question_answering.encoding import _none_at

    tokens, offsets = np.array([5, 6, 9, 9, 7]), np.array([0, 3, 5])
    assert _none_at(tokens, offsets, 9).tolist() == [2, 0]
    assert _none_at(tokens, offsets, None).tolist() == [0, 0]


def test_an_answer_without_a_start_is_learnt_at_the_first_place_of_whole_words():
    from autopeft_question_answering.answer_cells import UNKNOWN
    from autopeft_question_answering.encoding import _extent

    assert _extent("w10 w1 w1", (("w1", UNKNOWN),)) == (4, 6)
    assert _extent("xw1y (w1)", (("(w1)", UNKNOWN),)) == (5, 9)
    assert _extent("xw1y", (("w1", UNKNOWN),)) == (1, 3)
    assert _extent("xw1y", (("w1", 1),)) == (1, 3)


def test_a_metric_of_the_users_own_gets_lists_of_texts():
    def own(truths, answers):
        assert all(isinstance(answer, list) and len(answer) < 2 for answer in answers)
        return max(len(text) for texts in truths for text in texts)

    case = TaskCase(TASK)
    task = case.task.measuring("m:own", user_metric.metric("m:own", own, TASK))
    assert task.score("m:own", case.data.truths, case.answers(case.data.everything)) > 1
