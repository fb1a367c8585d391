"""Classes of unequal size: weights, focal loss and label smoothing, set or searched."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from autopeft.common.exceptions import SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from autopeft.testing.task_rules import check_task
from tests.conftest import autopeft_here

NAMES = ("a", "b", "c")
LABELS = ["a"] * 6 + ["b"] * 3 + ["c"]


def task(**options):
    found = find_task("text-classification").configured(options)
    return found.knowing(found.facts_of(pd.DataFrame({"label": LABELS})), NAMES)


def loss_of(task, logits, labels):
    outputs = type("Outputs", (), {"logits": logits})()
    return task.loss(outputs, {"labels": labels})


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(10, 3, generator=generator), torch.tensor(["abc".index(label) for label in LABELS])


def test_without_settings_it_is_the_cross_entropy(rows):
    assert loss_of(task(), *rows) == cross_entropy(*rows)


def test_smoothing_is_torchs(rows):
    expected = cross_entropy(*rows, label_smoothing=0.2)
    assert loss_of(task(label_smoothing=0.2), *rows) == pytest.approx(float(expected))


def test_balanced_weights_are_scikit_learns_and_leave_the_scale_of_the_loss(rows):
    weights = compute_class_weight("balanced", classes=np.array(NAMES), y=LABELS)
    each = cross_entropy(*rows, reduction="none")
    expected = (each * torch.tensor(weights)[rows[1]]).mean()
    assert loss_of(task(class_weights="balanced"), *rows) == pytest.approx(float(expected))
    assert weights[rows[1]].mean() == pytest.approx(1.0)


def test_given_weights_are_of_labels_and_one_elsewhere(rows):
    each = cross_entropy(*rows, reduction="none")
    expected = (each * torch.tensor([1.0, 1.0, 5.0])[rows[1]]).mean()
    assert loss_of(task(class_weights={"c": 5.0}), *rows) == pytest.approx(float(expected))


def test_focal_loss_counts_sure_rows_less(rows):
    logits, labels = rows
    sure = logits.softmax(-1)[torch.arange(10), labels]
    expected = (-((1 - sure) ** 2) * sure.log()).mean()
    assert loss_of(task(focal_gamma=2.0), *rows) == pytest.approx(float(expected))


@pytest.mark.parametrize("options", [{"class_weights": "balanced"}, {"focal_gamma": 2.0, "label_smoothing": 0.1}])
def test_the_rules_of_the_contract_hold_with_them(options):
    found = check_task(find_task("text-classification").configured(options))
    assert [str(one) for one in found if one.seen] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"class_weights": {"d": 2.0}}, '`class_weights` in \\[task\\] names "d", which no training row has'),
        ({"class_weights": {"a": 0.0}}, 'must be above zero, but "a" has 0'),
        ({"threshold": 0.3}, "`threshold` in \\[task\\] is for two labels, but the rows have 3"),
    ],
)
def test_wrong_weights_are_told(options, said):
    with pytest.raises(SpecError, match=said):
        task(**options).check(pd.DataFrame({"label": LABELS * 2}), "rows.csv")


@pytest.mark.parametrize(
    "options", [{"class_weights": "heavy"}, {"focal_gamma": -1.0}, {"label_smoothing": 1.0}, {"focal": 2.0}]
)
def test_wrong_settings_are_told(options):
    with pytest.raises(SpecError):
        task(**options)


def searching(study, line):
    text = study.read_text().replace("learning_rate = 0.02", f"learning_rate = 0.02\n{line}")
    study.write_text(text)
    return StudySpec.from_file(study)


def test_a_setting_is_searched_where_the_study_names_it_and_nowhere_else(tiny_study):
    plain = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    assert "label_smoothing" not in json.dumps([*plain.space.defaults])
    spec = searching(tiny_study, 'label_smoothing = [0.0, 0.2]\nclass_weights = ["none", "balanced"]')
    problem = Problem.from_spec(spec, discover())
    part = problem.space["lora"]
    drawn = part.sample(20, seed=0)
    assert {candidate.task["class_weights"] for candidate in drawn} == {"none", "balanced"}
    assert all(0 <= candidate.task["label_smoothing"] <= 0.2 for candidate in drawn)
    assert part.default().task == {"label_smoothing": 0.0, "class_weights": "none"}
    assert problem.space.parse(drawn[0].flat) == drawn[0]
    chosen = problem.setup(drawn[0]).task.options
    assert chosen.label_smoothing == drawn[0].task["label_smoothing"]
    assert json.loads(problem.task.facts["class_counts"])
    tiny_study.write_text(tiny_study.read_text().replace("[0.0, 0.2]", "[0.0, 3.0]"))
    with pytest.raises(SpecError, match="label_smoothing"):
        Problem.from_spec(StudySpec.from_file(tiny_study), discover())


@pytest.mark.exhaustive
def test_a_study_that_searches_the_loss_ends_with_a_winner_and_tells_what_it_drew(tiny_study):
    searching(tiny_study, "label_smoothing = [0.0, 0.2]\nfocal_gamma = 1.0")
    done = autopeft_here("run", "study.toml", "--json", cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    method = result["best"]["method"]
    assert all(f"{record['method']}.label_smoothing" in record["params"] for record in result["records"])
    assert result["best"]["params"][f"{method}.focal_gamma"] == 1.0
    readme = (tiny_study.parent / "outputs" / "tiny" / "winner" / "README.md").read_text()
    assert "| label_smoothing |" in readme
    again = autopeft_here("run", "study.toml", "--json", cwd=tiny_study.parent)
    assert json.loads(again.stdout)["best"] == result["best"]
