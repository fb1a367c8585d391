"""Numbers for texts, from the rows of a file to a report, a prediction and an export."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn

import autopeft as api
from autopeft.common.exceptions import DataError, SpecError
from autopeft.data.load import load_rows
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from autopeft.tasks.regression import METRICS, score
from tests.conftest import DTYPE, HEAVY, WORDS, autopeft_here

TASK = find_task("regression")


def numbers(count: int = 80, scale: float = 1000.0) -> pd.DataFrame:
    """Texts whose number is how often they say w0, on a scale that no model starts near."""
    generator = np.random.default_rng(0)
    often = generator.integers(0, 6, count)
    texts = [" ".join([*["w0"] * n, *generator.choice(WORDS[10:], 7 - n)]) for n in often]
    return pd.DataFrame({"text": texts, "label": scale * (often + 40.0)})


def specify(folder, rows, **data):
    rows.to_csv(folder / "rows.csv", index=False)
    content = {
        "name": "numbers",
        "model": {"name_or_path": "model", "dtype": DTYPE},
        "task": {"kind": "regression"},
        "data": {"train": "rows.csv", **data},
        "validation": {"folds": 2},
    }
    return StudySpec.from_mapping(content, folder=folder)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_that_of_the_library_and_more_is_better(name):
    generator = np.random.default_rng(1)
    truths = generator.normal(size=50)
    near, far = (truths + spread * generator.normal(size=50) for spread in (0.1, 1.0))
    expected = {
        "r2": sklearn.r2_score(truths, near),
        "pearson": stats.pearsonr(truths, near).statistic,
        "spearman": stats.spearmanr(truths, near).statistic,
        "neg_mean_squared_error": -sklearn.mean_squared_error(truths, near),
        "neg_root_mean_squared_error": -sklearn.root_mean_squared_error(truths, near),
        "neg_mean_absolute_error": -sklearn.mean_absolute_error(truths, near),
    }
    assert score(name, near, truths) == pytest.approx(expected[name])
    assert score(name, near, truths) > score(name, far, truths)
    perfect = 0.0 if name.startswith("neg_") else 1.0
    assert TASK.score(name, truths, truths) == pytest.approx(perfect)
    written = TASK.written(near, ()), TASK.written_truths(truths, ())
    assert TASK.metrics[name].of_written(*written) == pytest.approx(expected[name])


def test_a_constant_answer_has_no_correlation_rather_than_none():
    assert score("spearman", np.ones(5), np.arange(5.0)) == 0.0
    assert score("pearson", np.ones(5), np.arange(5.0)) == 0.0


def test_every_part_of_the_rows_has_large_and_small_numbers(tmp_path):
    rows = load_rows(specify(tmp_path, numbers(400)), TASK)
    train, test = (part["label"].astype(float) for part in (rows.train, rows.test))
    assert test.mean() == pytest.approx(train.mean(), rel=0.01)
    assert rows.labels == ()
    assert rows.facts["mean"] == pytest.approx(train.mean())
    assert rows.facts["scale"] == pytest.approx(train.std(ddof=0))


@pytest.mark.parametrize("cell", ["three", "nan", "inf", ""])
def test_what_is_no_number_is_named_with_its_row(tmp_path, cell):
    rows = numbers()
    rows["label"] = rows["label"].astype(object)
    rows.loc[5, "label"] = cell
    with pytest.raises(DataError, match=r"row (5|7)"):
        load_rows(specify(tmp_path, rows), TASK)


def test_numbers_that_are_all_the_same_teach_nothing(tmp_path):
    with pytest.raises(DataError, match="must have different numbers"):
        load_rows(specify(tmp_path, numbers().assign(label=3)), TASK)


def test_a_metric_of_another_task_is_refused():
    with pytest.raises(SpecError, match='"accuracy", which regression does not know'):
        TASK.metric("accuracy")


def test_any_scale_of_numbers_is_learnt_as_one_around_zero():
    task = TASK.knowing({"mean": 40_000.0, "scale": 2_000.0})
    outputs = type("Outputs", (), {"logits": torch.tensor([[1.0], [-1.0]])})()
    assert task.answer(outputs, {}).tolist() == [42_000.0, 38_000.0]
    labels = torch.from_numpy(task.scaled(np.array([42_000.0, 38_000.0])))
    assert float(task.loss(outputs, {"labels": labels})) == 0.0


@pytest.mark.parametrize(
    "facts",
    [{}, {"mean": 1.0}, {"mean": 1.0, "scale": 0.0}, {"mean": float("nan"), "scale": 1.0}, {"mean": "1", "scale": 1}],
)
def test_a_winner_that_lost_its_scale_is_refused(facts):
    with pytest.raises(DataError, match="must know a finite `mean` of its numbers and a finite `scale`"):
        TASK.knowing(facts)


def test_a_second_text_is_read_where_the_study_names_its_column(tmp_path):
    pairs = numbers().assign(other="w3 w4")
    spec = specify(tmp_path, pairs, text_pair="other")
    task = TASK.taking(spec.data.named)
    assert task.inputs == ("text", "text_pair")
    assert set(load_rows(spec, task).train["text_pair"]) == {"w3 w4"}
    assert TASK.taking(specify(tmp_path, numbers()).data.named).inputs == ("text",)


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "model").symlink_to(tiny_model)
    numbers().to_csv(folder / "rows.csv", index=False)
    (folder / "study.toml").write_text(
        f"""
name = "numbers"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "regression"
[data]
train = "rows.csv"
[search]
methods = ["lora", "adapter"]
trials = 3
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


def test_a_study_of_numbers_beats_their_mean(study):
    folder, result = study
    assert result["metric"] == "r2"
    assert result["test"]["baseline_name"] == "mean of the training rows"
    assert result["test"]["baseline"] <= 0.0 < result["test"]["winner"]
    with (folder / "outputs" / "numbers" / "test_predictions.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["row", "label", "winner"]
    assert "mean_of_the_training_rows" in header
    truths, answers = (np.array([float(row[place]) for row in rows]) for place in (1, 2))
    assert sklearn.r2_score(truths, answers) == pytest.approx(result["test"]["winner"])
    assert answers.mean() == pytest.approx(truths.mean(), rel=0.1)


def test_its_report_compares_numbers(study):
    folder, result = study
    done = autopeft_here("report", "study.toml", "--json", cwd=folder)
    report = json.loads(done.stdout)
    scores = {entry["name"]: entry for entry in report["test"]["scores"]}
    low, high = scores["the winner"]["interval"]
    assert low < result["test"]["winner"] < high
    assert scores["the mean of the training rows"]["score"] == result["test"]["baseline"]
    assert all(0 < one["difference"]["p"] <= 1 for one in report["test"]["comparisons"])
    assert report["test"]["classes"] == []
    assert (folder / "outputs" / "numbers" / "report.html").stat().st_size


def test_the_winner_answers_in_the_users_numbers(study):
    folder, _ = study
    winner = api.load(folder / "outputs" / "numbers" / "winner")
    texts = numbers()["text"].tolist()[:4]
    answers = winner.predict(texts)
    assert all(30_000 < answer < 60_000 for answer in answers)
    (folder / "some.csv").write_text("text\n" + "\n".join(texts))
    done = autopeft_here("predict", "outputs/numbers/winner", "--input", "some.csv", cwd=folder)
    header, *lines = done.stdout.splitlines()
    assert header == "text,value"
    assert [float(line.rpartition(",")[2]) for line in lines] == pytest.approx(answers, rel=1e-5)
    done = autopeft_here("predict", "outputs/numbers/winner", "--input", "some.csv", "--json", cwd=folder)
    assert [json.loads(line)["value"] for line in done.stdout.splitlines()] == pytest.approx(answers)
    with pytest.raises(api.AutopeftError, match="regression has no classes"):
        winner.predict_proba(texts)


def test_its_exports_say_how_their_outputs_are_read(study):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, _ = study
    winner = api.load(folder / "outputs" / "numbers" / "winner")
    texts = numbers()["text"].tolist()[:4]
    done = autopeft_here("export", "outputs/numbers", "--format", "merged", "--to", "merged", cwd=folder)
    assert done.returncode == 0, done.stderr
    mean, scale = winner.card.task_facts["mean"], winner.card.task_facts["scale"]
    assert f"value = logits * {scale!r} + {mean!r}" in (folder / "merged" / "README.md").read_text()
    model = AutoModelForSequenceClassification.from_pretrained(folder / "merged").eval()
    tokens = AutoTokenizer.from_pretrained(folder / "merged")(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens).logits.squeeze(-1)
    assert (logits * scale + mean).tolist() == pytest.approx(winner.predict(texts), rel=1e-4)


def test_large_numbers_of_small_spread_keep_their_digits():
    first = 1_700_000_000.0
    task = TASK.knowing({"mean": first + 20, "scale": 10.0})
    answers = task.answer(SimpleNamespace(logits=torch.tensor([[-2.0], [0.1], [2.0]])), {}).numpy()
    assert answers == pytest.approx([first, first + 21, first + 40], abs=1e-3)
    truths = np.array([first, first + 40])
    assert TASK.score("r2", task.baseline(truths, truths, ()).answers, truths) == pytest.approx(0)


def test_numbers_without_a_finite_spread_are_refused(tmp_path):
    rows = numbers(40).assign(label=[1e308, -1e308] * 20)
    with pytest.raises(DataError, match=r"must have a finite mean and spread, but they go from -1e\+308 to 1e\+308"):
        load_rows(specify(tmp_path, rows), TASK)
