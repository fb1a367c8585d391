"""The right one of several choices, from the rows of a file to a report, a prediction and an export."""

import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from autopeft_multiple_choice.choices import as_choices

import autopeft as api
from autopeft.common.exceptions import DataError, SpecError
from autopeft.data.asked_rows import open_rows
from autopeft.data.load import load_rows
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from autopeft.winner import mlflow_model
from tests.conftest import DTYPE, HEAVY, WORDS, autopeft_here

TASK = find_task("multiple-choice")


def questions(count: int = 90, fewest: int = 2, most: int = 4) -> pd.DataFrame:
    """Questions whose right choice is the one that says w0."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        texts = [" ".join(generator.choice(WORDS[10:], generator.integers(1, 4))) for _ in range(most)]
        texts = texts[: fewest + number % (most - fewest + 1)]
        right = int(generator.integers(len(texts)))
        texts[right] += " w0 w0"
        asked = " ".join(generator.choice(WORDS[10:], 3))
        rows.append({"question": asked, "context": f"w1 {asked}", "choices": texts, "label": right})
    return pd.DataFrame(rows)


def write(rows: pd.DataFrame, folder) -> None:
    """As JSON lines, where a cell may be a list."""
    rows.to_json(folder / "rows.jsonl", orient="records", lines=True)


def specify(folder, rows, options=None, **data):
    write(rows, folder)
    content = {
        "name": "choices",
        "model": {"name_or_path": "model", "dtype": DTYPE},
        "task": {"kind": "multiple-choice", **(options or {})},
        "data": {"train": "rows.jsonl", **data},
        "validation": {"folds": 2},
    }
    return StudySpec.from_mapping(content, folder=folder)


def loaded(folder, rows, options=None, **data):
    """The rows of a study, and its task as it is after they were read."""
    spec = specify(folder, rows, options, **data)
    task = TASK.configured(options or {}).taking(spec.data.named)
    found = load_rows(spec, task)
    return found, task.knowing(found.facts)


LETTERS = "ABCD"


@pytest.mark.parametrize(
    ("form", "label"),
    [
        ("number", lambda row: row["label"]),
        ("number_from_1", lambda row: row["label"] + 1),
        ("letter", lambda row: LETTERS[row["label"]]),
        ("letter", lambda row: LETTERS[row["label"]].lower()),
        ("text", lambda row: row["choices"][row["label"]]),
    ],
)
def test_labels_say_which_choice_is_right_in_any_of_these_forms(tmp_path, form, label):
    rows = questions()
    data, task = loaded(tmp_path, rows.assign(label=rows.apply(label, axis=1)))
    assert data.facts == {"labels_are": form, "choices": 4}
    told = {"number": "counted from 0", "number_from_1": "counted from 1"}.get(form, f"the {form} of the right choice")
    assert any(told in note for note in data.notes)
    assert any("from 2 to 4 choices" in note for note in data.notes)
    encoded = task.encode(data.test, Words(), ())
    expected = rows["label"].to_numpy()[np.asarray(data.test.index) - 1]
    assert encoded.truths.tolist() == expected.tolist()


def test_names_beside_the_choices_are_what_labels_may_be_as_in_arc(tmp_path):
    rows = questions()
    names = [LETTERS if number % 3 else "1234" for number in range(len(rows))]
    cells = [
        {"text": texts, "label": [*some[: len(texts)]]} for texts, some in zip(rows["choices"], names, strict=True)
    ]
    labels = [some[place] for some, place in zip(names, rows["label"], strict=True)]
    data, task = loaded(tmp_path, rows.assign(choices=cells, answerKey=labels), label="answerKey")
    assert data.facts["labels_are"] == "name"
    assert task.encode(data.test, Words(), ()).truths.tolist() == [
        rows["label"][number - 1] for number in data.test.index
    ]
    pairs = [list(map(list, zip(cell["label"], cell["text"], strict=True))) for cell in cells]
    entries = [[dict(zip(("label", "text"), pair, strict=True)) for pair in some] for some in pairs]
    for other in (pairs, entries, [json.dumps(cell) for cell in cells]):
        again = loaded(tmp_path, rows.assign(choices=other, label=labels))[0]
        assert again.train["choices"].tolist() == data.train["choices"].tolist()


def test_choices_may_stand_in_columns_and_labels_name_them(tmp_path):
    rows = questions(fewest=3, most=3)
    columns = {f"ending{place}": [texts[place] for texts in rows["choices"]] for place in range(3)}
    flat = rows.drop(columns="choices").assign(**columns, label=[f"ending{place}" for place in rows["label"]])
    options = {"choice_columns": [*columns]}
    data, task = loaded(tmp_path, flat, options, context="context")
    assert task.inputs == ("question", "context", "ending0", "ending1", "ending2")
    assert task.texts == 2
    assert data.facts == {"labels_are": "name", "choices": 3}
    assert task.written(np.array([[0.1, 0.2, 0.7]]), ()) == ["ending2"]
    by_number = loaded(tmp_path, flat.assign(label=rows["label"]), options)[1]
    assert by_number.written(np.array([[0.1, 0.2, 0.7]]), ()) == ["2"]
    assert TASK.columns is type(TASK).columns, "the task itself is as it was"


def test_what_labels_are_can_be_said(tmp_path):
    rows = questions(fewest=4, most=4)
    rows["choices"] = [[f"{(place + 1) % 4}" for place in range(4)] for _ in range(len(rows))]
    assert loaded(tmp_path, rows)[0].facts["labels_are"] == "number"
    data, task = loaded(tmp_path, rows, {"labels_are": "text"})
    assert data.facts["labels_are"] == "text"
    assert not any("taken to be" in note for note in data.notes)
    assert task.encode(data.test, Words(), ()).truths.tolist() == [
        (rows["label"][number - 1] - 1) % 4 for number in data.test.index
    ]


def changed(column, cell, row=6):
    def change(rows):
        rows[column] = rows[column].astype(object)
        rows.at[row, column] = cell
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed("label", 4), r'row 7: the label must be the number of the right choice, counted from 0, but "4" is'),
        (changed("label", "yes"), r'row 7: the label .* but "yes" is none of its \d choices .*labels_are'),
        (changed("label", None), r"row 7: the column 'label' must not be empty"),
        (changed("question", " "), r"row 7: the column 'question' must not be empty"),
        (changed("choices", None), r"row 7: the column 'choices' must not be empty"),
        (
            changed("choices", "yes or no"),
            r"row 7: .* list of two texts or more, but this one is a text that is not a JSO",
        ),
        (changed("choices", ["yes"]), r"row 7: .* list of two texts or more, but this one has 1 .*choice_columns"),
        (changed("choices", []), r"row 7: .* list of two texts or more, but this one has 0 "),
        (changed("choices", ["yes", ""]), r"row 7: .* but this one has an empty choice .*; fill or remove it"),
        (changed("choices", ["yes", None]), r"row 7: .* but this one has an empty choice"),
        (changed("choices", ["yes", ["no"]]), r"row 7: .* but this one has a choice that is a list"),
        (changed("choices", {"a": 1}), r"row 7: .* mapping without the lists `text` and `label`"),
        (changed("choices", {"text": ["a", "b"], "label": ["A"]}), r"row 7: .* not lists of equal length"),
        (changed("choices", [["A", "x"], ["A", "y"]]), r"row 7: .* two choices with the same name"),
        (changed("choices", [["A", "x"], "y"]), r"row 7: .* names for only some choices"),
        (changed("choices", 3), r"row 7: .* but this one is one value"),
        (lambda rows: rows.assign(label=1), r"must be in different places, but in every row it is number 1"),
        (lambda rows: rows.drop(columns="choices"), r"has no column 'choices'"),
    ],
)
def test_a_bad_row_is_one_sentence(tmp_path, change, told):
    with pytest.raises(DataError) as raised:
        loaded(tmp_path, change(questions()))
    sentence = str(raised.value)
    assert re.search(told.replace("'", '"'), sentence), sentence
    assert "\n" not in sentence


def test_a_text_that_two_choices_have_cannot_be_the_label(tmp_path):
    rows = questions(fewest=4, most=4)
    rows["label"] = [texts[place] for texts, place in zip(rows["choices"], rows["label"], strict=True)]
    texts = [*rows["choices"][6]]
    rows.at[6, "choices"] = [rows["label"][6]] * 2 + texts[:2]
    with pytest.raises(DataError, match=r"row 7: the label must be the text .* is that of [23] of its 4 choices"):
        loaded(tmp_path, rows)


def test_held_out_rows_of_their_own_are_read_as_the_training_rows(tmp_path):
    rows = questions()
    held = questions(12).assign(question="w5")
    held.assign(label=held["label"] + 1).to_json(tmp_path / "held.jsonl", orient="records", lines=True)
    data, task = loaded(tmp_path, rows.assign(label=rows["label"] + 1), test="held.jsonl")
    assert task.encode(data.test, Words(), ()).truths.tolist() == held["label"].tolist()
    held.assign(label="E").to_json(tmp_path / "held.jsonl", orient="records", lines=True)
    with pytest.raises(DataError, match=r"held.jsonl, row 1: the label must be the number .* counted from 1"):
        loaded(tmp_path, rows.assign(label=rows["label"] + 1), test="held.jsonl")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"choice_columns": ["one"]}, "choice_columns"),
        ({"choice_columns": ["a", "a"]}, "each once"),
        ({"choice_columns": ["a", "label"]}, "none called question, context, label, group"),
        ({"labels_are": "words"}, "labels_are"),
        ({"choices": 4}, "not a setting"),
    ],
)
def test_a_bad_setting_is_one_sentence(options, told):
    with pytest.raises(SpecError, match=told):
        TASK.configured(options)


@pytest.mark.parametrize(
    "facts", [{}, {"labels_are": "number"}, {"labels_are": "x", "choices": 3}, {"labels_are": "text", "choices": 1}]
)
def test_a_winner_that_lost_what_its_labels_are_is_refused(facts):
    with pytest.raises(DataError, match="must know what labels are"):
        TASK.knowing(facts)


def test_a_rare_label_does_not_stop_rows_from_being_split(tmp_path):
    rows = questions(60, 4, 4)
    rows["label"] = [number % 3 for number in range(60)]
    rows.at[7, "label"] = 3
    data, _ = loaded(tmp_path, rows)
    shares = data.test["label"].where(data.test["label"] != "3", "0").value_counts()
    assert (shares.min(), shares.max()) == (4, 4)
    assert TASK.strata(pd.DataFrame({"label": [f"a text {number}" for number in range(60)]})) is None


class Words:
    """Reads two texts as their words, with what a `RowTokenizer` has."""

    tokenizer = type("Tokenizer", (), {"pad_token_id": 0})

    def __call__(self, first, second):
        from autopeft.models.token_rows import TokenRows

        rows = [
            [*(int(word[1:]) for word in a.split()), 99, *(int(word.strip("w") or 0) for word in b.split())]
            for a, b in zip(first, second, strict=True)
        ]
        lengths = np.array([*map(len, rows)])
        return TokenRows({"input_ids": np.concatenate(rows).astype(np.int32)}, np.cumsum([0, *lengths]), lengths)


def test_sequences_stand_side_by_side_and_lacking_ones_are_masked():
    rows = pd.DataFrame({"question": ["w7 w7", "w8"], "choices": [("w1", "w2 w3"), ("w4", "w5", "w6 w6 w6")]})
    encoded = TASK.knowing({"labels_are": "number", "choices": 3}).encode(rows, Words(), ())
    batch = encoded.batch([0, 1])
    inputs = TASK.model_inputs(batch)
    assert inputs["input_ids"].tolist() == [
        [[7, 7, 99, 1, 0], [7, 7, 99, 2, 3], [7, 7, 99, 1, 0]],
        [[8, 99, 4, 0, 0], [8, 99, 5, 0, 0], [8, 99, 6, 6, 6]],
    ]
    assert inputs["attention_mask"].sum(-1).tolist() == [[4, 5, 4], [3, 3, 5]]
    assert all(tensor.is_contiguous() for tensor in inputs.values())
    assert {*inputs} == {"input_ids", "attention_mask"}
    logits = torch.tensor([[0.0, 1.0, 50.0], [0.0, 0.0, 1.0]], requires_grad=True)
    outputs = type("Outputs", (), {"logits": logits})()
    answers = TASK.answer(outputs, batch)
    assert answers[0].tolist() == pytest.approx([0.26894, 0.73106, -1.0], abs=1e-4)
    loss = TASK.loss(outputs, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 2] == 0
    assert TASK.as_json(answers[0].detach().numpy(), ()) == {
        "choice": 1,
        "scores": pytest.approx([0.26894, 0.73106], abs=1e-4),
    }


STUDY = f"""
name = "choices"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "multiple-choice"
[data]
train = "rows.jsonl"
context = "context"
[search]
methods = ["lora", "adapter"]
trials = 3
references = false
epochs = 6
batch_size = 8
learning_rate = 0.02
[validation]
folds = 2
"""


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("choices")
    (folder / "model").symlink_to(tiny_model)
    rows = questions()
    write(rows.assign(label=[LETTERS[place] for place in rows["label"]]), folder)
    (folder / "study.toml").write_text(STUDY)
    done = autopeft_here("run", "study.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def winner(study):
    return api.load(study[0] / "outputs" / "choices" / "winner")


def test_a_tiny_model_learns_to_choose(study):
    folder, result = study
    assert result["metric"] == "accuracy"
    assert result["test"]["baseline_name"] == "most frequent place"
    assert result["test"]["winner"] > result["test"]["baseline"] + 0.2
    for record in result["records"]:
        if record["measured_memory"]:
            assert record["measured_memory"] == pytest.approx(record["predicted_memory"], rel=0.06)
    with (folder / "outputs" / "choices" / "test_predictions.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["row", "label", "winner"]
    assert {row[1] for row in rows} <= {*LETTERS}
    assert np.mean([row[1] == row[2] for row in rows]) == pytest.approx(result["test"]["winner"])


def test_its_report_shows_places_and_what_was_answered_wrong(study):
    folder, _ = study
    done = autopeft_here("report", "study.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Right answers by the place of the right choice" in done.stdout
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=folder).stdout)
    assert report["test"]["numbers"] == []
    for one in report["test"]["comparisons"]:
        assert one["real"] == (one["difference"]["low"] > 0 or one["difference"]["high"] < 0)
    page = (folder / "outputs" / "choices" / "report.html").read_text()
    assert "Right answers by the place of the right choice" in page
    rows = questions(3, 3, 3)
    task = TASK.knowing({"labels_are": "letter", "choices": 3})
    texts = rows.assign(choices=rows["choices"].map(tuple))
    sure = np.full((3, 3), 0.1, np.float32)
    sure[:, 0] = [0.8, 0.8, 0.9]
    by_place, wrong = task.sections(texts, np.array([0, 1, 2]), sure, ())
    assert [row[:3] for row in by_place.table.rows] == [
        ("A", "1", "1.0000"),
        ("B", "1", "0.0000"),
        ("C", "1", "0.0000"),
    ]
    assert wrong.text.startswith("Answered wrong: 2 of 3 held-out rows")
    assert wrong.table.rows[0] == (rows["question"][2], rows["choices"][2][2], rows["choices"][2][0], "90%")


def test_the_winner_answers_rows_of_any_number_of_choices(study, winner):
    folder, _ = study
    some = questions(8, 5, 6)
    right = [LETTERS[place] if place < 4 else "EF"[place - 4] for place in some["label"]]
    found = winner.predict(some)
    assert np.mean([a == b for a, b in zip(found, right, strict=True)]) >= 0.75
    some.drop(columns="label").to_json(folder / "some.jsonl", orient="records", lines=True)
    as_csv = some.assign(choices=some["choices"].map(json.dumps))
    as_csv.to_csv(folder / "some.csv", index=False)
    for name in ("some.jsonl", "some.csv"):
        done = autopeft_here("predict", "outputs/choices/winner", "--input", name, cwd=folder)
        assert done.returncode == 0, done.stderr
        table = pd.read_csv(io.StringIO(done.stdout))
        kept = some.columns if name == "some.csv" else some.columns.drop("label")
        assert [*table.columns] == [*kept, "choice", "probability"]
        assert table["choice"].tolist() == found
        assert table["choices"].map(json.loads).tolist() == some["choices"].tolist()
    done = autopeft_here("predict", "outputs/choices/winner", "--input", "some.jsonl", "--json", cwd=folder)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(answer["scores"]) for answer in answers] == some["choices"].map(len).tolist()
    for answer in answers:
        assert sum(answer["scores"]) == pytest.approx(1, abs=1e-5)
        assert answer["scores"]["ABCDEF".index(answer["choice"])] == max(answer["scores"])


def test_rows_to_predict_are_checked_as_training_rows_are(study, winner):
    folder, _ = study
    bad = questions(4)
    bad.at[2, "choices"] = ["one"]
    with pytest.raises(DataError, match=r"list of two texts or more, but this one has 1"):
        winner.predict(bad)
    bad.to_json(folder / "bad.jsonl", orient="records", lines=True)
    done = autopeft_here("predict", "outputs/choices/winner", "--input", "bad.jsonl", cwd=folder)
    assert done.returncode == 2
    assert "row 3" in done.stderr
    assert "Traceback" not in done.stderr
    done = autopeft_here("predict", "outputs/choices/winner", cwd=folder)
    assert "needs the columns question, context, choices; give a file with --input" in done.stderr.replace("\n", " ")
    rows = open_rows(folder / "some.jsonl", winner.input_names, winner.columns, print).inputs()
    assert isinstance(rows["choices"].iloc[0], tuple)


def test_the_readme_of_the_winner_says_how_it_is_asked(study):
    folder = study[0] / "outputs" / "choices" / "winner"
    text = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert '"choices": [["a text", "another one"], ["another one", "a text"]]' in code
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(code, "README.md", "exec"), {})


def lora(study, winner, tmp_path):
    """A winner of LoRA, which every format takes."""
    if winner.card.method == "lora":
        return winner
    from autopeft.search.refit import refit
    from autopeft.winner import winner as artifact

    problem = Problem.from_spec(StudySpec.from_file(study[0] / "study.toml"), discover())
    part = problem.space["lora"]
    card = artifact.Card(
        **{**vars(winner.card), "method": "lora", "params": dict(part.default().params), "digests": {}}
    )
    artifact.save(refit(problem, part.default()), part.method, problem.reader, card, tmp_path / "lora")
    return api.load(tmp_path / "lora")


def saved(winner, tmp_path):
    winner.save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("form", ["merged", "mlflow", "onnx", "peft"])
def test_exports_answer_as_the_winner_does(form, study, winner, tmp_path):
    if form == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    chosen = lora(study, winner, tmp_path)
    rows = questions(4, 3, 3)
    expected = chosen.answers(rows)
    folder = api.export(chosen, tmp_path / "made", form)
    if form == "mlflow":
        import mlflow.pyfunc

        inputs = rows[["question", "context", "choices"]]
        model = mlflow.pyfunc.load_model(str(folder))
        assert model.predict(inputs)["choice"].tolist() == chosen.predict(rows)
        named = rows["choices"].map(lambda texts: [list(pair) for pair in zip(LETTERS, texts, strict=False)])
        mlflow_model.save(saved(chosen, tmp_path), tmp_path / "named", inputs.assign(choices=named.map(as_choices)))
        model = mlflow.pyfunc.load_model(str(tmp_path / "named"))
        assert model.predict(inputs.assign(choices=named))["choice"].tolist() == chosen.predict(rows)
        return
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [f"{context} {question}" for context, question in zip(rows["context"], rows["question"], strict=True)]
    tokens = tokenizer(np.repeat(asked, 3).tolist(), rows["choices"].sum(), padding=True, return_tensors="pt")
    inputs = {name: tensor.unflatten(0, (4, 3)) for name, tensor in tokens.items()}
    if form == "onnx":
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        (logits,) = session.run(None, {i.name: inputs[i.name].numpy() for i in session.get_inputs()})
        logits = torch.from_numpy(logits)
    else:
        plain = study[0] / "model" if form == "peft" else folder
        model = AutoModelForMultipleChoice.from_pretrained(plain, ignore_mismatched_sizes=True)
        if form == "peft":
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder)
        with torch.no_grad():
            logits = model.eval()(**inputs).logits
    np.testing.assert_allclose(logits.softmax(-1).numpy(), expected, atol=1e-4)
    text = (folder / "README.md").read_text()
    assert ("AutoModelForMultipleChoice" in text) == (form != "onnx")
    assert "values[None]" in text
    if form != "peft":
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            made = {}
            exec(compile(code, "README.md", "exec"), made)
        assert made["logits"].shape == (1, 2)
