"""What a point says beside the score: losses by fold, and shares."""

import numpy as np
import pytest
import torch
from measures import LossProbe, brier, joined, largest_share

from autopeft.tasks.registry import find_task


def sure(labels: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[labels]


def test_the_largest_share_is_that_of_the_most_frequent_answer():
    truths = np.array([0] * 60 + [1] * 40)
    assert largest_share(find_task("text-classification"), sure([0] * 75 + [2] * 25), truths) == 0.75
    assert largest_share(find_task("regression"), np.linspace(0, 5, 50), truths) is None
    sets = find_task("multi-label-classification")
    assert largest_share(sets, np.full((40, 2), 0.1, np.float32), np.eye(2, dtype=bool)[[0, 1] * 20]) == 1


def test_the_share_of_tags_is_over_words():
    some = np.zeros((2, 3, 4), np.float32)
    some[0, 1, 0], some[1, 2] = 1, -1  # the second row has two words
    truths = np.array([np.array([0, 1, 0]), np.array([0, 0])], dtype=object)
    assert largest_share(find_task("token-classification"), some, truths) == pytest.approx(4 / 5)


def test_the_brier_score_is_the_squared_distance_to_the_truth():
    assert brier(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 1])) == pytest.approx((0.5 + 2) / 2)
    assert brier(np.array([[0.5, 1.0]]), np.array([[True, True]])) == pytest.approx(0.25)
    assert brier(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None


def test_the_probe_adds_up_each_folds_loss_over_its_batches():
    class Outputs:
        def __init__(self, logits):
            self.logits = logits

    task = find_task("text-classification")
    probe = LossProbe(task, 2)
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    for part in (slice(0, 5), slice(5, 7)):
        for sign in (1, -1):
            probe.answer(Outputs(sign * logits[part]), {"labels": labels[part]})
    expected = [float(task.loss(Outputs(sign * logits), {"labels": labels})) for sign in (1, -1)]
    assert probe.losses == pytest.approx(expected, rel=1e-5)
    assert probe.kind == task.kind


def test_answers_of_different_widths_are_kept_in_one_array():
    together = joined([np.zeros((2, 3, 4)), np.ones((1, 5, 4))])
    assert together.shape == (3, 5, 4)
    assert together.dtype == np.float16
    assert (together[:2, 3:] == -1).all()
