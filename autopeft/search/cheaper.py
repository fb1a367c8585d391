"""What a candidate that lost would have saved: its parameters, memory and time beside the winner's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopeft.study.record import TrialRecord

LEAST = 0.05
"""Smaller savings are not mentioned; in time they are chance."""


def cheaper(record: TrialRecord, winner: TrialRecord) -> str:
    """Such as "would have saved 62% of the parameters and 20% of the memory", as far as both are known."""
    measured = record.measured_memory and winner.measured_memory
    costs = {
        "the parameters": (record.trainable_params, winner.trainable_params),
        "the memory": (record.measured_memory, winner.measured_memory)
        if measured
        else (record.predicted_memory, winner.predicted_memory),
        "the time": (record.seconds, winner.seconds),
    }
    shares = {name: 1 - own / other for name, (own, other) in costs.items() if own is not None and other}
    found = [f"{share:.0%} of {name}" for name, share in shares.items() if share >= LEAST]
    *others, last = found or ["nothing"]
    return f"would have saved {' and '.join(filter(None, (', '.join(others), last)))}"
