"""What a candidate that lost would have saved."""

import pytest

from autopeft.search.cheaper import cheaper
from tests.reporting.test_report import record

WINNER = record(0, size=1000, measured_memory=100, predicted_memory=90, seconds=10.0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"size": 380}, "62% of the parameters"),
        ({"size": 380, "measured_memory": 80}, "62% of the parameters and 20% of the memory"),
        (
            {"size": 380, "measured_memory": 80, "seconds": 5.0},
            "62% of the parameters, 20% of the memory and 50% of the time",
        ),
        ({"measured_memory": None, "predicted_memory": 45}, "50% of the memory"),  # predicted with predicted
        ({"size": 2000, "measured_memory": 100, "seconds": 9.6}, "nothing"),
    ],
)
def test_it_names_what_costs_less_than_the_winner(more, told):
    usual = {"size": 1000, "measured_memory": 100, "predicted_memory": 90, "seconds": 10.0}
    assert cheaper(record(1, **{**usual, **more}), WINNER) == f"would have saved {told}"
