"""The GPU's allocator, followed without a GPU: by its rules, and by what was measured on one."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from autopeft.budget.memory import gpu
from autopeft.budget.memory.allocator import LARGE_SEGMENT, SMALL_SEGMENT, Allocator, needed
from autopeft.budget.memory.events import ACTIVATIONS, COPIES, COPY, Event
from autopeft.budget.memory.gpu import MIB

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.parametrize(
    ("size", "block", "segment"),
    [
        (1, 512, SMALL_SEGMENT),
        (MIB, MIB, SMALL_SEGMENT),
        (MIB + 1, MIB + 512, LARGE_SEGMENT),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # what is left over is no more than a MiB, and stays with the block
    ],
)
def test_a_block_is_cut_from_a_segment_of_its_kind(size, block, segment):
    allocator = Allocator()
    assert allocator.take(size).size == block
    assert allocator.held == segment


def test_the_smallest_free_block_that_holds_it_is_taken_and_neighbours_are_joined():
    allocator = Allocator()
    first, second, third = (allocator.take(4 * MIB) for _ in range(3))
    allocator.release(second)
    assert allocator.take(3 * MIB).place == second.place  # and not the 8 MiB at the segment's end
    for block in (first, second, third):
        allocator.release(block)
    assert allocator.held == LARGE_SEGMENT
    assert allocator.take(10 * MIB).place == first.place
    assert allocator.held == LARGE_SEGMENT


def test_a_trial_needs_its_second_step_beside_what_the_first_one_left():
    weights, states, activation = Event("weights", 3 * MIB, 0), Event("optimizer", 4 * MIB, 2), 5 * MIB
    step = [Event(ACTIVATIONS, activation, 1), Event(ACTIVATIONS, -activation, 1), states]
    first = [weights, *step]
    second = [event._replace(size=0) if event is states else event for event in step]
    need = needed([first, [weights._replace(size=0), *second]])
    assert need.used == 12 * MIB
    assert need.held == LARGE_SEGMENT


def test_repeated_layers_release_what_they_took():
    step = [
        *(Event(ACTIVATIONS, 2 * MIB, 5 + layer * COPY) for layer in range(3)),
        Event(ACTIVATIONS, -2 * MIB, 5),
        Event(ACTIVATIONS, -4 * MIB, COPIES),
        Event(ACTIVATIONS, 6 * MIB, 9),
    ]
    need = needed([step, []])
    assert need.used == 6 * MIB  # one of the three is gone by the one event, the others by the other


def test_the_room_of_a_sum_is_what_it_was_on_an_h100():
    assert gpu.sum_scratch(4096, 2048) == 64 * MIB
    assert gpu.sum_scratch(2048, 1536) == 24 * MIB
    assert gpu.sum_scratch(768, 3072) == 0


@pytest.mark.exhaustive
def test_peaks_are_those_an_h100_had(monkeypatch):
    """Of every method, in either precision; `benchmarks/memory_prediction.py` does it for two other models too."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    benchmark = importlib.import_module("memory_prediction")
    record = json.loads((BENCHMARKS / "h100_memory.json").read_text())
    rows = list(benchmark.compare(benchmark.FAMILIES[0], "cuda", record))
    assert len(rows) == 24
    for row in rows:
        assert abs(row.error) <= 0.002, row.key
        assert abs(row.held[0] - row.held[1]) <= SMALL_SEGMENT, row.key
