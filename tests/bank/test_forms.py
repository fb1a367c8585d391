"""A refit beside the folds' models together, in points over a single fold's model."""

from types import SimpleNamespace

import numpy as np
import pytest
from forms import shown, table


def cell(name: str, group: str, refit: float, together: float) -> SimpleNamespace:
    """Two methods; of the second no refit was recorded."""
    return SimpleNamespace(
        name=name,
        group=group,
        size=100,
        method=np.array(["lora", "bitfit"]),
        truth=np.array([0.5, 0.5]),
        refit=np.array([[refit - 0.01, refit + 0.01], [np.nan, np.nan]]),
        ensemble=np.array([[together, together], [0.9, 0.9]]),
    )


def test_only_what_has_both_forms_counts_and_groups_weigh_alike():
    found = table([cell("one", "a", 0.6, 0.62), cell("two", "a", 0.6, 0.58), cell("three", "b", 0.7, 0.66)])
    assert [*found.method] == ["lora"] * 3
    assert [*found.refit] == pytest.approx([10, 10, 20])
    assert [*found.together] == pytest.approx([12, 8, 16])
    row = shown(found).set_index("method").loc["all"]
    assert row["together - refit"] == "-2.0 ± 2.0", "the mean of 0 and -4"
    assert row.worst == pytest.approx(-4)
    assert row.tasks == 3
