"""Metrics of probabilities, a threshold for two classes, calibration, and metrics of the user's own."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn

import autopeft as api
from autopeft.common.exceptions import SpecError
from autopeft.reporting.bootstrap import interval_of
from autopeft.tasks import calibration, user_metric
from autopeft.tasks.registry import find_task
from autopeft.tasks.score_metrics import quadratic_kappa
from tests.conftest import TINY_STUDY, WORDS, autopeft_here

TASK = find_task("text-classification")
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def answered():
    generator = np.random.default_rng(0)
    truths = generator.integers(0, 3, 200)
    logits = generator.normal(size=(200, 3)) + 1.5 * np.eye(3)[truths]
    answers = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return truths, answers.astype(np.float32)


def expected(name, truths, answers):
    one_hot = np.eye(3)[truths]
    return {
        "roc_auc": lambda: sklearn.roc_auc_score(truths, answers, multi_class="ovr"),
        "average_precision": lambda: sklearn.average_precision_score(one_hot, answers),
        "neg_log_loss": lambda: -sklearn.log_loss(truths, answers),
        "neg_brier_score": lambda: -((answers - one_hot) ** 2).sum(1).mean(),
        "top_2_accuracy": lambda: sklearn.top_k_accuracy_score(truths, answers, k=2),
        "quadratic_kappa": lambda: sklearn.cohen_kappa_score(truths, answers.argmax(1), weights="quadratic"),
    }[name]()


METRICS = ["roc_auc", "average_precision", "neg_log_loss", "neg_brier_score", "top_2_accuracy", "quadratic_kappa"]


@pytest.mark.parametrize("name", METRICS)
def test_they_are_scikit_learns_and_told_from_what_is_written(name, answered):
    truths, answers = answered
    task = TASK.knowing({}, NAMES).maximising(name)
    found = task.score(name, truths, answers)
    assert found == pytest.approx(expected(name, truths, answers), rel=1e-5)
    written = task.written(answers, NAMES), task.written_truths(truths, NAMES)
    assert task.metrics[name].of_written(*written) == pytest.approx(found, rel=1e-5)
    low, high = interval_of(task.metrics[name], written[1], written[0])
    assert low < found < high


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_of_two_classes_the_last_one_counts(name, answered):
    truths, answers = answered
    two = np.stack([1 - answers[:, 0], answers[:, 0]], axis=1)
    function = {"roc_auc": sklearn.roc_auc_score, "average_precision": sklearn.average_precision_score}[name]
    assert TASK.score(name, (truths == 0).astype(int), two) == pytest.approx(function(truths == 0, two[:, 1]))


@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
@pytest.mark.parametrize("positive", ["no", "yes"])
def test_f1_precision_and_recall_are_of_the_positive_label(name, positive, answered):
    truths, answers = answered
    two = np.stack([1 - answers[:, 0], answers[:, 0]], axis=1)
    task = TASK.configured({"positive_label": positive})
    rows = pd.DataFrame({"text": "x", "label": np.where(truths == 0, positive, {"no": "yes", "yes": "no"}[positive])})
    labels = task.labels(rows, rows)
    assert labels[-1] == positive
    task = task.knowing({"threshold": 0.4}, labels).maximising(name)
    found = task.score(name, task.truths(rows, labels), two)
    assert found == pytest.approx(getattr(sklearn, f"{name}_score")(truths == 0, two[:, 1] >= 0.4))
    written = task.written(two, labels), task.written_truths(task.truths(rows, labels), labels)
    assert task.metrics[name].of_written(*written) == pytest.approx(found)


def test_f1_of_a_label_that_no_row_has_is_zero():
    task = TASK.knowing({}, ("no", "yes")).maximising("f1")
    answers = np.array([[0.9, 0.1]], np.float32)
    assert task.metrics["f1"].of_written(task.written(answers, ("no", "yes")), ["no"]) == 0.0


@pytest.mark.parametrize(
    ("settings", "metric", "labels", "told"),
    [
        ({"positive_label": "maybe"}, "", ["no", "yes"], 'is "maybe", and the rows have "no", "yes"'),
        ({"positive_label": "a"}, "", ["a", "b", "c"], "must be one of two labels"),
        ({}, "f1", ["a", "b", "c"], 'use "f1_macro"'),
    ],
)
def test_a_positive_label_is_one_of_two(settings, metric, labels, told):
    task = TASK.configured(settings).maximising(metric)
    with pytest.raises(SpecError, match=told):
        task.check(pd.DataFrame({"text": "x", "label": labels * 2}), "rows")


def test_brier_of_two_classes_is_scikit_learns():
    answers, truths = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32), np.array([0, 0])
    assert TASK.score("neg_brier_score", truths, answers) == pytest.approx(
        -sklearn.brier_score_loss([0, 0], [0.1, 0.6])
    )


def test_rows_that_lack_a_class_are_scored_on_the_others():
    answers = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], np.float32)
    assert TASK.score("roc_auc", np.array([0, 1]), answers) == 1.0
    assert TASK.score("roc_auc", np.array([0, 0]), answers) == 0.5


def test_a_baseline_knows_the_labels_shares_and_equal_labels_are_hits_by_their_places():
    train, truths = np.repeat([0, 1, 2, 3], [20, 40, 30, 10]), np.repeat([0, 1, 2, 3], 10)
    labels = ("a", "b", "c", "d")
    task = TASK.knowing({}, labels)
    answers = task.baseline(train, truths, labels).answers
    assert answers.dtype == np.float32
    assert answers[0] == pytest.approx([0.2, 0.4, 0.3, 0.1])
    assert task.score("accuracy", truths, answers) == 0.25
    assert task.score("top_2_accuracy", truths, answers) == 0.5
    assert task.score("neg_log_loss", truths, answers) == pytest.approx(np.log([0.2, 0.4, 0.3, 0.1]).mean())
    assert (task.score("roc_auc", truths, answers), task.score("average_precision", truths, answers)) == (0.5, 0.25)
    one_hot = np.tile(np.float32([0, 1, 0, 0]), (40, 1))
    for answered in (answers, one_hot, np.full((40, 4), 0.25, np.float32)):
        for metric in ("top_2_accuracy", "top_3_accuracy"):
            assert task.score(metric, truths, answered) == int(metric[4]) / 4


@pytest.mark.parametrize("threshold", ["auto", 0.2, 0.8])
@pytest.mark.parametrize("rarer", [0, 1])
def test_a_baseline_gives_the_most_frequent_of_two_labels_whatever_the_threshold(threshold, rarer):
    train = np.repeat([rarer, 1 - rarer], [3, 7])
    task = TASK.configured({"threshold": threshold}).knowing({}, ("no", "yes"))
    for metric in ("accuracy", "f1", "balanced_accuracy", "quadratic_kappa"):
        maximising = task.maximising(metric)
        answers = maximising.baseline(train, train, task.names).answers
        assert maximising.values(answers, task.names) == [task.names[1 - rarer]] * 10
        assert task.score("accuracy", train, answers) == 0.7
    honest = task.maximising("neg_log_loss").baseline(train, train, task.names).answers
    assert honest[:, rarer] == pytest.approx(np.full(10, 0.3))


def test_the_logarithms_are_those_of_the_written_probabilities(answered):
    truths, answers = answered
    task = TASK.knowing({}, NAMES).maximising("neg_log_loss")
    written = task.written(answers, NAMES), task.written_truths(truths, NAMES)
    found = task.score("neg_log_loss", truths, answers)
    assert task.metrics["neg_log_loss"].of_written(*written) == pytest.approx(found, rel=1e-14)


def test_kappa_knows_the_order_of_numbers():
    labels = [str(number) for number in (1, 2, 10, 9, 2, 1, 10)]
    made = [str(number) for number in (1, 2, 9, 9, 3, 1, 10)]
    numbers = sklearn.cohen_kappa_score(
        [*map(int, labels)], [*map(int, made)], weights="quadratic", labels=[*range(1, 11)]
    )
    assert quadratic_kappa(labels, made) == pytest.approx(numbers)
    assert quadratic_kappa(["a"], ["a"]) == 0.0


def test_calibration_of_sure_and_of_honest_answers():
    generator = np.random.default_rng(0)
    chance = generator.uniform(0.5, 1, 4000)
    right = generator.uniform(size=4000) < chance
    answers = np.stack([chance, 1 - chance], axis=1)
    assert calibration.expected_calibration_error(answers, (~right).astype(int)) < 0.03
    sure = np.stack([np.full(4000, 0.99), np.full(4000, 0.01)], axis=1)
    error = calibration.expected_calibration_error(sure, (~right).astype(int))
    assert error == pytest.approx(0.99 - right.mean(), abs=1e-6)
    section = calibration.section(answers, (~right).astype(int))
    assert section.plot.diagonal
    assert sum(int(row[2].replace(",", "")) for row in section.table.rows) == 4000


def test_the_threshold_of_two_classes_is_chosen_where_the_metric_asks_for_one():
    generator = np.random.default_rng(0)
    truths = (generator.uniform(size=400) < 0.2).astype(int)
    last = np.clip(0.2 * generator.uniform(size=400) + 0.15 * truths, 0, 1)  # rare rows never reach a half
    answers = np.stack([1 - last, last], axis=1).astype(np.float32)
    task = TASK.knowing({}, ("no", "yes")).maximising("f1_macro")
    assert task.calibrates
    facts = task.calibrated(answers, truths)
    assert 0.1 < facts["threshold"] < 0.3
    tuned = task.knowing(facts, task.names)
    assert tuned.score("f1_macro", truths, answers) > task.score("f1_macro", truths, answers) + 0.2
    assert tuned.values(answers, task.names).count("yes") > 0
    assert tuned.table(answers, task.names)["probability"].between(0, 1).all()
    assert "at least" in tuned.reading(task.names)
    assert not TASK.knowing({}, ("no", "yes")).maximising("accuracy").calibrates
    assert not TASK.knowing({}, NAMES).maximising("f1_macro").calibrates
    fixed = TASK.configured({"threshold": 0.2}).knowing({}, ("no", "yes")).maximising("f1_macro")
    assert not fixed.calibrates
    assert fixed.values(answers, task.names).count("yes") == (last >= 0.2).sum()


def two_classes(folder, tiny_model, metric):
    generator = np.random.default_rng(0)
    labels = np.repeat(["no", "yes"], [60, 20])
    texts = [" ".join([*generator.choice(WORDS[10:], 5), WORDS["ny".index(label[0])]]) for label in labels]
    pd.DataFrame({"text": texts, "label": labels}).to_csv(folder / "rows.csv", index=False)
    (folder / "model").symlink_to(tiny_model)
    (folder / "study.toml").write_text(TINY_STUDY + f'metric = "{metric}"\n')
    return folder / "study.toml"


@pytest.mark.exhaustive
def test_a_study_keeps_the_threshold_it_chose(tmp_path, tiny_model):
    two_classes(tmp_path, tiny_model, "f1_macro")
    done = autopeft_here("run", "study.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    winner = api.load(tmp_path / "outputs" / "tiny" / "winner")
    assert 0 < winner.card.task_facts["threshold"] < 1
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=tmp_path).stdout)
    assert "probabilities" in report["sections"][0]["title"]
    page = (tmp_path / "outputs" / "tiny" / "report.html").read_text()
    assert "share of right answers" in page


@pytest.mark.exhaustive
def test_a_metric_of_probabilities_is_searched_and_reported(tmp_path, tiny_model):
    two_classes(tmp_path, tiny_model, "roc_auc")
    done = autopeft_here("run", "study.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["test"]["baseline"] == 0.5
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=tmp_path).stdout)
    assert report["test"]["note"] == ""
    assert report["test"]["scores"][0]["interval"]


OWN = (
    "def cost(truths, answers):\n    return sum(t == a for t, a in zip(truths, answers)) - 0.5 * answers.count('yes')\n"
)


@pytest.mark.exhaustive
def test_a_metric_of_the_users_own_is_a_function_beside_the_study(tmp_path, tiny_model):
    two_classes(tmp_path, tiny_model, "costs:cost")
    (tmp_path / "costs.py").write_text(OWN)
    done = autopeft_here("run", "study.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metric"] == "costs:cost"
    assert result["test"]["baseline"] == 12.0
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=tmp_path).stdout)
    assert "which a report does not run" in report["test"]["note"]
    (tmp_path / "costs.py").write_text(OWN + "# changed\n")
    again = autopeft_here("run", "study.toml", cwd=tmp_path)
    assert again.returncode == 2
    assert "began with other settings" in again.stderr


@pytest.mark.parametrize(
    ("metric", "content", "said"),
    [
        ("costs:cost", None, "there is no file"),
        ("os:system", None, "there is no file"),
        ("costs:other", OWN, "must have a function `other`, but does not"),
        ("costs:cost", "1 / 0", "fails when it runs: ZeroDivisionError"),
        ("costs:cost", "def cost(truths, answers): return 1 / 0", "costs:cost failed on 16 rows: ZeroDivisionError"),
        ("costs:cost", "def cost(truths): return 1", "failed on 16 rows: TypeError"),
        ("costs:cost", "def cost(truths, answers): return float('nan')", "must return a finite number, but returned"),
        ("../costs:cost", OWN, "of a file beside the study, but got"),
    ],
)
def test_an_error_in_it_is_one_sentence(metric, content, said, tmp_path, tiny_model):
    two_classes(tmp_path, tiny_model, metric)
    if content is not None:
        (tmp_path / "costs.py").write_text(content)
    done = autopeft_here("run", "study.toml", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


FAILS_ON_THE_WINNER = """
seen = []

def cost(truths, answers):
    if len(truths) == 16 and seen:  # the baseline was tried on them before the first trial
        raise ValueError("no such rows")
    seen.append(len(truths))
    return sum(map(str.__eq__, truths, answers))
"""


@pytest.mark.exhaustive
def test_one_that_fails_on_the_held_out_rows_is_no_fault_of_a_method(tmp_path, tiny_model):
    two_classes(tmp_path, tiny_model, "costs:cost")
    (tmp_path / "costs.py").write_text(FAILS_ON_THE_WINNER)
    done = autopeft_here("run", "study.toml", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "costs:cost failed on 16 rows: ValueError: no such rows" in " ".join(done.stderr.split())


def test_what_it_gets_is_of_the_kinds_own_form():
    regression = find_task("regression")
    assert regression.as_value("1.5") == 1.5
    assert find_task("token-classification").as_value("O B-A") == ["O", "B-A"]
    assert find_task("multi-label-classification").as_value('["a"]') == ["a"]
    with pytest.raises(SpecError, match="must be a metric of the kind of task"):
        user_metric.load("a:b:c", "folder")


def test_thresholds_of_several_labels_are_chosen_by_a_metric_of_the_users_own():
    def own(truths, answers):
        return -sum(len({*truth} ^ {*answer}) for truth, answer in zip(truths, answers, strict=True))

    task = find_task("multi-label-classification")
    task = task.measuring("m:own", user_metric.metric("m:own", own, task)).maximising("m:own").knowing({}, ("a", "b"))
    truths = np.array([[True, False], [True, True], [False, False]])
    answers = np.array([[0.3, 0.1], [0.3, 0.3], [0.1, 0.1]], np.float32)
    facts = task.calibrated(answers, truths)
    assert 0.1 < facts["threshold"] <= 0.3
    assert task.score_of_fold("m:own", truths, answers) == 0.0
    assert task.knowing(facts, task.names).score("m:own", truths, answers) == 0.0
