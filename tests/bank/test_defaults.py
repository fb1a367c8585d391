"""Which default is best: gaps to the best one of each task, over tasks that have them all."""

from types import SimpleNamespace

import numpy as np
import pytest
from defaults import table


def cell(name: str, group: str, scores: dict[str, float], epochs: float = 24, origin: str = "default"):
    methods = np.array([*scores])
    return SimpleNamespace(
        name=name,
        group=group,
        method=methods,
        default=np.full(len(methods), origin == "default"),
        length=np.full(len(methods), epochs),
        truth=np.array([*scores.values()]),
    )


def test_gaps_are_means_over_groups_of_tasks_that_have_every_default():
    cells = [
        cell("one", "a", {"lora": 0.80, "bitfit": 0.75}),
        cell("two", "a", {"lora": 0.60, "bitfit": 0.59}),
        cell("three", "b", {"lora": 0.70, "bitfit": 0.705}),
        cell("lacks one", "c", {"lora": 0.9}),
        cell("of another length", "d", {"lora": 0.9, "bitfit": 0.1}, epochs=4),
        cell("not defaults", "e", {"lora": 0.9, "bitfit": 0.1}, origin="wide"),
    ]
    found = table(cells, 24, set()).set_index("method")
    assert list(found.index) == ["lora", "bitfit"]
    assert found.loc["bitfit", "below the best"] == pytest.approx((-3 + 0) / 2), "each group counts once"
    assert found.loc["bitfit", "error"] == pytest.approx(1.5)
    assert found.loc["lora", "below the best"] == pytest.approx((0 - 0.5) / 2)
    assert found.loc["lora", ["best", "within a point", "tasks", "groups"]].tolist() == [2, 3, 3, 2]
    assert found.loc["bitfit", "worst"] == pytest.approx(-5)


def test_one_method_more_may_leave_no_task():
    assert table([cell("one", "a", {"lora": 0.8})], 24, {"lora", "vera"}).empty
