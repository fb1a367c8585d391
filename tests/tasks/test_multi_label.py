"""Any number of labels for a text, from the rows of a file to a report, a prediction and an export."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sklearn

import autopeft as api
from autopeft.common.exceptions import DataError, SpecError
from autopeft.data.load import load_rows
from autopeft.data.split import split
from autopeft.reporting.bootstrap import Bootstrap
from autopeft.study.file import StudySpec
from autopeft.tasks import thresholds
from autopeft.tasks.label_cells import read_labels
from autopeft.tasks.label_metrics import METRICS
from autopeft.tasks.registry import find_task
from tests.conftest import DTYPE, WORDS, autopeft_here

KIND = "multi-label-classification"
TASK = find_task(KIND).configured({})
LABELS = ("joy", "rage", "woe")


def emotions(count: int = 90) -> pd.DataFrame:
    """Texts whose labels are told by a word each; an eighth has none."""
    generator = np.random.default_rng(0)
    has = generator.random((count, 3)) < 0.5
    texts = [
        " ".join([*generator.choice(WORDS[10:], 4), *(word for word, one in zip(WORDS, row, strict=False) if one)])
        for row in has
    ]
    return pd.DataFrame({"text": texts, "label": [[LABELS[place] for place in np.flatnonzero(row)] for row in has]})


def joined(rows: pd.DataFrame, delimiter: str = ",") -> pd.DataFrame:
    return rows.assign(label=rows["label"].map(delimiter.join))


def specify(folder, rows, options=None, name="rows.csv", **data):
    if name.endswith("jsonl"):
        rows.to_json(folder / name, orient="records", lines=True)
    elif name.endswith("parquet"):
        rows.to_parquet(folder / name)
    else:
        rows.to_csv(folder / name, index=False)
    content = {
        "name": "emotions",
        "model": {"name_or_path": "model", "dtype": DTYPE},
        "task": {"kind": KIND, **(options or {})},
        "data": {"train": name, **data},
        "validation": {"folds": 2},
    }
    return StudySpec.from_mapping(content, folder=folder)


def read(folder, rows, options=None, **more):
    return load_rows(specify(folder, rows, options, **more), TASK.configured(options or {}))


def flagged(rows: pd.DataFrame, yes=1, no=0) -> pd.DataFrame:
    return rows[["text"]].assign(**{name: [yes if name in few else no for few in rows["label"]] for name in LABELS})


def test_every_form_of_labels_gives_the_same_rows(tmp_path):
    rows = emotions()
    columns = {"label_columns": list(LABELS)}
    found = [
        read(tmp_path, joined(rows)),
        read(tmp_path, joined(rows, " | "), {"delimiter": "|"}),
        read(tmp_path, rows.assign(label=rows["label"].map(json.dumps))),
        read(tmp_path, rows, name="rows.jsonl"),
        read(tmp_path, rows, name="rows.parquet"),
        read(tmp_path, flagged(rows), columns),
        read(tmp_path, flagged(rows, "TRUE", "False"), columns),
        read(tmp_path, flagged(rows, 1.0, 0.0), columns, name="rows.parquet"),
    ]
    assert found[0].labels == LABELS
    assert set(found[0].train["label"]) == {tuple(sorted(few)) for few in rows["label"]}
    assert any("training rows have no label" in note for note in found[0].notes)
    assert len({other.fingerprint for other in found}) == 1


def test_class_labels_of_a_data_set_come_as_their_names(tmp_path):
    import datasets

    rows = emotions()
    names = datasets.ClassLabel(names=list(LABELS))
    content = {"text": rows["text"].tolist(), "label": [[LABELS.index(one) for one in few] for few in rows["label"]]}
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Sequence(names)})
    datasets.Dataset.from_dict(content, features=features).save_to_disk(str(tmp_path / "saved"))
    found = read(tmp_path, rows, name="rows.jsonl")
    spec = specify(tmp_path, rows, name="rows.jsonl")
    saved = spec.model_copy(update={"data": spec.data.model_copy(update={"train": "saved"})})
    assert load_rows(saved, TASK).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("", ()), ("  ", ()), ([], ()), ("[]", ()), ("b, a,,b ,", ("a", "b")), (["b", "a", "b"], ("a", "b")),
        ('["x, y", "z"]', ("x, y", "z")), ([1, 2.0, True], ("1", "2", "True")), (3, ("3",)),
        (np.array(["b", "a"], object), ("a", "b")), (("a",), ("a",)),
    ],
)  # fmt: skip
def test_a_cell_becomes_sorted_labels_each_once(cell, labels):
    assert read_labels(cell, ",") == labels
    assert read_labels(json.dumps(labels), ",") == labels  # as rows in memory are kept


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ({"joy": 1}, "a mapping"), ([["joy"]], "a list"), (["joy", None], "holds an empty label"),
        ([" "], "holds an empty label"), ("['joy']", r"begins with \["), (None, "must not be empty"),
        ([float("nan")], "holds an empty label"), ("[NaN]", "holds an empty label"), ([1e999], "the number inf"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_labels_is_told_with_its_row(tmp_path, cell, told):
    rows = emotions()
    rows.at[5, "label"] = cell
    with pytest.raises(DataError, match=rf"row 6.*{told}"):
        api.tune(model="m", data=rows, task=KIND, output=tmp_path / "out", progress=False)
    if not isinstance(cell, str) and "inf" not in told:
        with pytest.raises(DataError, match=rf"row 6.*{told}"):
            read(tmp_path, rows, name="rows.jsonl")


@pytest.mark.parametrize("cell", ["2", "yes", "nan", "-1", "0.5"])
def test_a_column_of_a_label_is_0_or_1(tmp_path, cell):
    rows = flagged(emotions()).astype({"joy": object})
    rows.loc[5, "joy"] = cell
    with pytest.raises(
        DataError, match=f'row 7: every cell of the column "joy" must be 0 or 1, but this one is "{cell}"'
    ):
        read(tmp_path, rows, {"label_columns": list(LABELS)})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"label_columns": ["a", "a"]}, "must name columns, each once"),
        ({"label_columns": ["a"]}, "at least"),
        ({"label_columns": ["text", "joy"]}, "names \"text\", but another column of the study has that name"),
        ({"delimiter": ""}, "not empty"),
        ({"threshold": "best"}, 'must be "per_label", "shared" or a number between 0 and 1, but got .best.'),
        ({"threshold": 1.5}, "a number between 0 and 1"),
        ({"treshold": 0.5}, "did you mean"),
    ],
)  # fmt: skip
def test_settings_are_checked(options, told):
    with pytest.raises(SpecError, match=told):
        TASK.configured(options)


def test_rows_that_teach_too_little_are_refused(tmp_path):
    with pytest.raises(DataError, match='at least two labels, but they have "joy"'):
        read(tmp_path, emotions().assign(label="joy"))
    rows = joined(emotions())
    test = rows.head(12).copy()
    test.loc[3, "label"] = "joy,rge"
    test.to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match=r'row 5: the label "rge" does not occur.*did you mean "rage"'):
        read(tmp_path, rows, test="test.csv")


def test_a_label_without_any_row_is_told(tmp_path):
    rows = flagged(emotions()).assign(never=0)
    found = read(tmp_path, rows, {"label_columns": [*LABELS, "never"]})
    assert found.labels == LABELS
    assert any("1 labels have no training row" in note and '"never"' in note for note in found.notes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(8))
def test_rare_labels_break_no_split(tmp_path, seed):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(20, 200))
    rows = emotions(count)
    for place in generator.integers(0, count, 12):  # singletons, some of them the only label of their row
        rows.at[place, "label"] = [f"rare {place}", *rows.at[place, "label"][: int(generator.integers(0, 2))]]
    found = read(tmp_path, joined(rows))
    strata = TASK.strata(found.train)
    assert len(found.train) + len(found.test) + sum("left out" in note for note in found.notes) >= count - 5
    for folds in (2, 20) if strata is not None and strata.value_counts().min() >= 20 else (2, 5):
        parts = split(len(found.train), None if strata is None else strata.tolist(), None, folds, seed)
        assert sorted(row for part in parts for row in part.validation) == list(range(len(found.train)))


def test_each_part_has_its_share_of_every_label(tmp_path):
    found = read(tmp_path, joined(emotions(600)))
    train, test = (TASK.truths(part, LABELS).mean(0) for part in (found.train, found.test))
    assert test == pytest.approx(train, abs=0.08)


def test_cells_that_could_not_be_read_are_told_later():
    rows = pd.DataFrame({"label": ["", ("joy",), ("joy", "woe")]})
    assert TASK.strata(rows) is None
    flags = TASK.configured({"label_columns": ["joy", "woe"]})
    assert flags.gathered(pd.DataFrame({"joy": ["", "1"], "woe": ["1", "0"]}), "x")["label"].tolist() == [
        ("woe",),
        ("joy",),
    ]


def drawn(seed: int = 0, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truths = generator.random((rows, 4)) < (0.5, 0.3, 0.1, 0.05)
    truths[:4] = np.eye(4, dtype=bool)
    answers = (generator.random((rows, 4)) * 0.7 + 0.3 * truths).astype(np.float32)
    return answers.round(1), truths  # with equal scores among them


EXPECTED = {
    "f1_micro": lambda t, g, _: sklearn.f1_score(t, g, average="micro", zero_division=0),
    "f1_macro": lambda t, g, _: sklearn.f1_score(t, g, average="macro", zero_division=0),
    "f1_samples": lambda t, g, _: sklearn.f1_score(t, g, average="samples", zero_division=0),
    "average_precision": lambda t, _, a: sklearn.average_precision_score(t, a, average="macro"),
    "subset_accuracy": lambda t, g, _: sklearn.accuracy_score(t, g),
    "hamming": lambda t, g, _: 1 - sklearn.hamming_loss(t, g),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_that_of_the_library_also_of_what_is_written_and_of_draws(name):
    answers, truths = drawn()
    labels = ("a", "b", 'c, "d"', "é")
    task = TASK.maximising(name)
    expected = EXPECTED[name](truths, answers >= 0.5, answers)
    assert task.score(name, truths, answers) == pytest.approx(expected)
    written, true = task.written(answers, labels), task.written_truths(truths, labels)
    metric = task.metrics[name]
    assert metric.of_written(written, true) == pytest.approx(expected, abs=1e-12)
    generator = np.random.default_rng(3)
    chosen = [np.r_[0:4, generator.integers(0, len(truths), len(truths) - 4)] for _ in range(5)]
    counts = np.array([np.bincount(rows, minlength=len(truths)) for rows in chosen], float)
    one_by_one = [EXPECTED[name](truths[rows], answers[rows] >= 0.5, answers[rows]) for rows in chosen]
    assert metric.of_draws(written, true, counts) == pytest.approx(one_by_one)
    assert Bootstrap(metric, true, {"": written}).score("") == pytest.approx(expected)
    assert metric.of_written(true, true) >= metric.of_written(written, true)


def test_a_label_that_is_nowhere_is_left_out_of_a_mean_over_labels():
    answers, truths = drawn()
    bare = np.zeros((len(truths), 1), bool)
    wider = np.hstack([answers, bare]), np.hstack([truths, bare])
    for name in ("f1_macro", "average_precision"):
        assert TASK.score(name, wider[1], wider[0]) == pytest.approx(TASK.score(name, truths, answers))


def test_the_best_thresholds_are_found_and_those_of_rare_labels_are_shared():
    generator = np.random.default_rng(0)
    truths = generator.random((400, 3)) < (0.5, 0.3, 0.01)
    cuts = np.array([0.2, 0.8, 0.5])
    answers = np.where(truths, cuts + 0.1, cuts - 0.1).astype(np.float32)
    task = TASK.configured({"threshold": "per_label"})
    assert truths[:, 2].sum() < thresholds.FEWEST
    facts = task.calibrated(answers, truths)
    assert sorted(facts) == ["threshold", "threshold.0", "threshold.1"]
    told = task.knowing(facts)
    assert (told.given(answers)[:, :2] == truths[:, :2]).all()
    assert told.thresholds(3)[2] == facts["threshold"]
    assert told.score("f1_micro", truths, answers) > task.score("f1_micro", truths, answers)
    assert [*TASK.calibrated(answers, truths)] == ["threshold"]
    assert [*TASK.maximising("f1_macro").calibrated(answers, truths)] == sorted(facts)
    fixed = TASK.configured({"threshold": 0.25})
    assert fixed.calibrated(answers, truths) == {}
    assert (fixed.given(answers) == (answers >= 0.25)).all()
    assert fixed.score_of_fold("f1_micro", truths, answers) == fixed.score("f1_micro", truths, answers)


def test_a_fold_is_scored_with_the_one_threshold_that_suits_it():
    answers, truths = drawn()
    faint = answers / 100  # as of a model that has just begun
    assert TASK.score("f1_micro", truths, faint) == 0.0
    best = max(TASK.knowing({"threshold": cut}).score("f1_micro", truths, faint) for cut in thresholds.GRID)
    assert TASK.score_of_fold("f1_micro", truths, faint) == pytest.approx(best)
    scores = (TASK.score_of_fold("average_precision", truths, faint), TASK.score("average_precision", truths, faint))
    assert scores[0] == scores[1]


@pytest.mark.parametrize("value", ["0.5", float("nan"), -0.1, 7])
def test_a_winner_whose_threshold_is_no_probability_is_refused(value):
    with pytest.raises(DataError, match="thresholds from 0 to 1"):
        TASK.knowing({"threshold.1": value})


def test_the_baseline_gives_frequent_labels_or_the_most_frequent():
    train = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0]], bool)
    assert TASK.baseline(train, train[:2], LABELS).answers.tolist() == [[1, 1, 0]] * 2
    assert TASK.baseline(np.eye(3, dtype=bool)[[0, 1, 1, 2, 0, 1, 2]], train[:1], LABELS).answers.tolist() == [
        [0, 1, 0]
    ]


def test_the_loss_is_the_mean_over_rows_and_labels():
    outputs = type("Outputs", (), {"logits": torch.zeros(2, 3)})()
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    assert float(TASK.loss(outputs, {"labels": labels})) == pytest.approx(np.log(2))
    assert TASK.answer(outputs, {}).tolist() == [[0.5] * 3] * 2


STUDY = f"""
name = "emotions"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "{KIND}"
delimiter = "|"
threshold = "per_label"
[data]
train = "rows.csv"
[search]
methods = ["lora", "bitfit"]
trials = 3
references = false
epochs = 8
batch_size = 8
learning_rate = 0.02
[validation]
folds = 2
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("emotions")
    (folder / "model").symlink_to(tiny_model)
    joined(emotions(), "|").to_csv(folder / "rows.csv", index=False)
    (folder / "study.toml").write_text(STUDY)
    done = autopeft_here("run", "study.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_study_beats_what_looks_at_no_input_with_thresholds_of_its_folds(study):
    folder, result = study
    assert result["metric"] == "f1_micro"
    assert result["test"]["baseline_name"] == "most frequent labels"
    assert result["test"]["baseline"] < result["test"]["winner"]
    facts = result["best"]["facts"]
    assert sorted(facts) == ["threshold", "threshold.0", "threshold.1", "threshold.2"]
    winner = api.load(folder / "outputs" / "emotions" / "winner")
    assert dict(winner.card.task_facts) == facts
    assert all("facts" in record for record in result["records"] if record["state"] == "COMPLETE")
    with (folder / "outputs" / "emotions" / "test_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    truths, made = ([set(json.loads(row[name])) for row in rows] for name in ("label", "winner"))
    hits = sum(len(true & given) for true, given in zip(truths, made, strict=True))
    assert 2 * hits / sum(map(len, truths + made)) == pytest.approx(result["test"]["winner"])
    texts = emotions()["text"]
    chosen = [int(row["row"]) - 2 for row in rows]
    assert [set(labels) for labels in winner.predict(texts.iloc[chosen].tolist())] == made


def test_its_report_has_a_table_by_label(study):
    folder, result = study
    done = autopeft_here("report", "study.toml", cwd=folder)
    assert "By label" in done.stdout
    assert "threshold" in done.stdout
    page = (folder / "outputs" / "emotions" / "report.html").read_text()
    assert "By label" in page
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=folder).stdout)
    assert report["test"]["note"] == ""
    scores = {entry["name"]: entry for entry in report["test"]["scores"]}
    low, high = scores["the winner"]["interval"]
    assert low <= result["test"]["winner"] <= high
    assert scores["the most frequent labels"]["score"] == result["test"]["baseline"]


def test_a_second_start_of_the_study_shows_the_same(study):
    folder, result = study
    done = autopeft_here("run", "study.toml", "--json", cwd=folder)
    assert json.loads(done.stdout) == result


def test_the_winner_answers_with_lists_in_every_form(study, monkeypatch):
    folder, _ = study
    winner = api.load(folder / "outputs" / "emotions" / "winner")
    texts = ["w10 w11", "w0 w10", "w0 w1 w2 w3"]
    found = winner.predict(texts)
    assert all(isinstance(labels, list) and set(labels) <= set(LABELS) for labels in found)
    shares = winner.predict_proba(texts)
    cuts = [winner.card.task_facts[f"threshold.{place}"] for place in range(3)]
    assert found == [[LABELS[place] for place in np.flatnonzero(row >= cuts)] for row in shares]
    (folder / "some.csv").write_text("text\n" + "\n".join(texts) + "\n")
    predict = ("predict", "outputs/emotions/winner", "--input", "some.csv")
    table = list(csv.DictReader(autopeft_here(*predict, cwd=folder).stdout.splitlines()))
    assert [row["labels"] for row in table] == ["|".join(labels) for labels in found]
    assert [len(row["probabilities"].split("|")) for row in table if row["labels"]] == [
        len(few) for few in found if few
    ]
    answers = [json.loads(line) for line in autopeft_here(*predict, "--json", cwd=folder).stdout.splitlines()]
    assert [answer["labels"] for answer in answers] == found
    assert [list(answer["scores"].values()) for answer in answers] == [pytest.approx(row) for row in shares.tolist()]
    monkeypatch.setattr("sys.stdin", (folder / "stdin.txt").open("w+"))
    __import__("sys").stdin.write("\n".join(texts))
    __import__("sys").stdin.seek(0)
    assert autopeft_here("predict", "outputs/emotions/winner", cwd=folder).stdout.splitlines()[1:] == [
        f"{row['text']},{row['labels']},{row['probabilities']}" for row in table
    ]


def test_its_exports_say_from_where_on_a_label_is_given(study):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    folder, _ = study
    winner = api.load(folder / "outputs" / "emotions" / "winner")
    texts = emotions()["text"].tolist()[:4]
    for form in ("merged", "peft", "mlflow"):
        done = autopeft_here("export", "outputs/emotions", "--format", form, "--to", form, cwd=folder)
        assert done.returncode == 0, done.stderr
    for place in (folder / "merged", folder / "peft"):
        text = (place / "README.md").read_text()
        assert "a label is given if the sigmoid of its logit is at least these values" in text
    assert "model.config.id2label names the columns; a label" in (folder / "merged" / "README.md").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(folder / "merged").eval()
    tokens = AutoTokenizer.from_pretrained(folder / "merged")(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        shares = model(**tokens).logits.sigmoid().numpy()
    assert shares == pytest.approx(winner.predict_proba(texts), abs=1e-4)
    (scores,) = pipeline("text-classification", str(folder / "merged"), top_k=None)(texts[:1])
    assert {one["label"]: one["score"] for one in scores} == pytest.approx(
        dict(zip(LABELS, shares[0].tolist(), strict=True)), abs=1e-4
    )
    import mlflow.pyfunc

    told = mlflow.pyfunc.load_model(str(folder / "mlflow")).predict(pd.DataFrame({"text": texts}))
    assert told["labels"].tolist() == ["|".join(labels) for labels in winner.predict(texts)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("metric", ["f1_macro", "average_precision", "hamming"])
def test_workers_and_columns_of_labels_and_other_metrics_give_a_winner_too(tmp_path, tiny_model, metric):
    (tmp_path / "model").symlink_to(tiny_model)
    flagged(emotions()).to_csv(tmp_path / "rows.csv", index=False)
    study = STUDY.replace('delimiter = "|"', f"label_columns = {json.dumps(LABELS)}").replace(
        'threshold = "per_label"', ""
    )
    study = study.replace("trials = 3", "trials = 2\nworkers = 2") + f'metric = "{metric}"\n'
    (tmp_path / "study.toml").write_text(study)
    done = autopeft_here("run", "study.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    winner = api.load(tmp_path / "outputs" / "emotions" / "winner")
    assert dict(winner.card.task_facts) == result["best"]["facts"]
    assert ("threshold.0" in winner.card.task_facts) == (metric == "f1_macro")
    assert winner.card.task_options["label_columns"] == list(LABELS)
    assert winner.inputs == ("text",)
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=tmp_path).stdout)
    assert report["test"]["note"] == ""


@pytest.mark.exhaustive
def test_pairs_of_texts_in_memory_are_labelled(tmp_path, tiny_model):
    rows = emotions().assign(other="w3 w4")
    found = api.tune(
        model={"name_or_path": str(tiny_model), "dtype": DTYPE},
        data={"train": rows, "text_pair": "other"},
        task={"kind": KIND, "threshold": 0.4},
        search={"methods": ["lora"], "trials": 1, "epochs": 2},
        validation={"folds": 2},
        output=tmp_path / "out",
        progress=False,
    )
    assert found.winner.inputs == ("text", "text_pair")
    assert dict(found.winner.card.task_facts) == {}
    asked = pd.DataFrame({"text": ["w0 w1"], "text_pair": ["w3"]})
    (shares,) = found.winner.predict_proba(asked)
    assert found.winner.predict(asked) == [[LABELS[place] for place in np.flatnonzero(shares >= 0.4)]]


def test_labels_that_hold_the_delimiter_are_written_as_json():
    task = TASK.knowing({}, names := ("Smith, John", "x"))
    (first, second) = task.table(np.array([[0.9, 0.8], [0.1, 0.7]]), names)["labels"]
    assert (json.loads(first), json.loads(second)) == (["Smith, John", "x"], ["x"])
    assert read_labels(first, ",") == ("Smith, John", "x")
