"""The pool and the stages: fixed, each cell once, and of all tasks whenever the recording ends."""

from collections import Counter

import pytest
from pool import pool, space_of
from sources import TASKS
from stages import STAGES, WSD, cells

from autopeft.methods.registry import discover
from autopeft.testing.tiny import tiny_base


@pytest.fixture(scope="module")
def blocks():
    return pool(space_of(tiny_base("bert"), discover()))


def test_the_pool_is_the_same_every_time_and_none_is_in_a_block_twice(blocks):
    again = pool(space_of(tiny_base("bert"), discover()))
    assert {name: [c.name for c in block] for name, block in blocks.items()} == {
        name: [c.name for c in block] for name, block in again.items()
    }
    first = [config for block in ("defaults", "lower", "wide") for config in blocks[block]]
    assert len({config.name for config in first}) == len(first) == 24
    assert len({c.name for block in ("near_more", "wide_more") for c in blocks[block]} - {c.name for c in first}) == 24
    assert all(len(config.name) == 16 and "epochs" not in config.params for config in first)


def test_lower_rates_are_shares_of_the_default_and_change_nothing_else(blocks):
    defaults = {config.method: config for config in blocks["defaults"]}
    for config in blocks["lower"]:
        own = defaults[config.method]
        assert {**config.params, "learning_rate": own.params["learning_rate"]} == own.params
        assert config.params["learning_rate"] / own.params["learning_rate"] == pytest.approx(
            1 / 3 if config in blocks["lower"][:3] else 1 / 10
        )


def test_what_a_configuration_says_is_what_is_trained(blocks):
    space = space_of(tiny_base("bert"), discover())
    for config in (config for block in blocks.values() for config in block):
        candidate = config.candidate(space, 7)
        flat = {name.partition(".")[2]: value for name, value in candidate.flat.items() if name != "method"}
        assert flat == {**config.params, "epochs": 7}


def test_stages_name_every_cell_once_and_only_sizes_that_a_task_has(blocks):
    for stage in STAGES:
        found = cells(stage, blocks, [*TASKS])
        assert len({cell.name for cell in found}) == len(found) > 0
        assert all(cell.size in TASKS[cell.task].sizes and cell.cost > 0 for cell in found)


def test_the_first_stage_records_the_strong_methods_of_all_tasks_before_anything_else(blocks):
    found = cells(1, blocks, [*TASKS])
    small = [name for name, task in TASKS.items() if "small" in task.sizes]
    assert len(found) == 4 * 24 * len(small)  # of four lengths
    assert Counter(cell.task for cell in found[: 24 * len(small)]) == dict.fromkeys(small, 24)
    assert {cell.config.method for cell in found[: 24 * len(small)]} == {"adapter", "lora", "prefix_tuning"}


def test_a_run_that_is_cut_takes_the_place_of_the_shorter_ones(blocks):
    linear, cut = (cells(1, blocks, [*TASKS], schedule) for schedule in ("linear", WSD))
    assert len(linear) == 4 * len(cut)
    assert {cell.schedule for cell in cells(4, blocks, [*TASKS])} == {WSD}


def test_a_stage_is_recorded_in_one_precision_and_the_last_one_compares_with_the_other(blocks):
    for precision, other in (("float32", "bfloat16"), ("bfloat16", "float32")):
        assert {cell.precision for cell in cells(1, blocks, [*TASKS], precision=precision)} == {precision}
        last = Counter(cell.precision for cell in cells(7, blocks, [*TASKS], precision=precision))
        assert last[other] == 10 * sum("small" in task.sizes for task in TASKS.values())


def test_there_are_eight_groups_and_more_of_all_kinds():
    assert len({task.group for task in TASKS.values()}) >= 8
    assert len({task.kind for task in TASKS.values()}) >= 5
    groups = [task.group for task in TASKS.values()]
    firsts = len([*dict.fromkeys(groups)])
    assert sorted({*groups}) == sorted({*groups[: firsts + 1]})  # Banking77 is two tasks, by size
