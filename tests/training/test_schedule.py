import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from autopeft.training.batch_plan import Execution
from autopeft.training.learner import Learner, train_epoch
from autopeft.training.packing import pack
from autopeft.training.rungs import epochs_between
from autopeft.training.schedule import Schedule, cooldown_of
from tests.training.test_learner import CPU, HYPER, TASK, lora, rows

DATA = rows()
BATCHES = 6
"""Of an epoch: 48 rows, 8 a batch."""

TRUNK = replace(HYPER, epochs=5, warmup_ratio=0.0, least_warmup=4, schedule="constant")


def rates(schedule):
    return [schedule.factor(done) for done in range(schedule.steps)]


def learner_of(hyper, folds=1):
    model = lora() if folds == 1 else pack(lora(), folds)
    return Learner(model, hyper, len(DATA), Execution(8, folds=folds))


def train_to(learner, end):
    """Go on to the end of step number `end`, as folds do in parts of epochs; the loss of each part."""
    fold_rows, found = [np.arange(48)] * learner.folds, []
    for epoch, part in epochs_between(learner.done / BATCHES, end / BATCHES):
        seeds = [10 * epoch + fold for fold in range(learner.folds)]
        found.append(train_epoch(learner, DATA, fold_rows, TASK, CPU, seeds, epoch, part).tolist())
    return found


def same(one, other):
    """Whether two learners stand at the same place, to the bit, however they came there."""
    for first, second in zip(one.states(), other.states(), strict=True):
        names = {name for name in first if not name.startswith("cooldown")}
        assert names == {name for name in second if not name.startswith("cooldown")}
        assert all(torch.equal(first[name], second[name]) for name in names)


def test_the_linear_schedule_is_what_it_was_before_there_were_others():
    for steps, ratio in ((30, 0.1), (100, 0.06), (7, 0.0), (5, 1.0)):
        warmup = round(ratio * steps)
        before = [min((n + 1) / (warmup + 1), (steps - n) / max(1, steps - warmup)) for n in range(steps)]
        assert rates(Schedule.of(replace(HYPER, warmup_ratio=ratio), steps)) == before


def test_wsd_rises_stays_and_falls_over_its_last_fifth():
    found = rates(Schedule.of(replace(HYPER, schedule="wsd"), 100))
    assert found[:11] == pytest.approx([*(n / 11 for n in range(1, 11)), 1.0])
    assert found[10:81] == [1.0] * 71
    assert found[81:] == pytest.approx([1 - math.sqrt(n / 20) for n in range(1, 20)])
    assert found[-1] > 0
    constant = Schedule.of(replace(HYPER, schedule="constant"), 100)
    assert rates(constant) == [*found[:81], *[1.0] * 19]
    assert constant.factor(10_000) == 1.0


def test_the_warm_up_has_so_many_steps_at_least_but_never_over_half_of_all():
    def warmup(steps, **hyper):
        return Schedule.of(replace(HYPER, **hyper), steps).warmup

    assert warmup(100) == 10
    assert warmup(100, least_warmup=20) == 20
    assert warmup(400, least_warmup=20) == 40
    assert warmup(28, least_warmup=20) == 14
    assert warmup(28, warmup_ratio=0.9) == 25, "as it was where nothing is asked for"


def test_a_name_that_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match="one of linear, constant, wsd, but is 'cosine'"):
        Schedule.of(replace(HYPER, schedule="cosine"), 10)


@pytest.mark.parametrize("kind", ["linear", "wsd"])
def test_a_rate_that_falls_cannot_be_cooled_down(kind):
    with pytest.raises(ValueError, match=f"after 99 of 100 steps the rate of `{kind}` is falling"):
        Schedule.of(replace(HYPER, schedule=kind), 100).cooled(99, 10)


@pytest.mark.parametrize("folds", [1, 2])
def test_a_cooled_branch_of_a_trunk_is_a_run_made_for_that_length_step_by_step(folds):
    length = 3 * BATCHES
    start = length - cooldown_of(length)
    made = learner_of(replace(TRUNK, epochs=3, schedule="wsd"), folds)
    trunk = learner_of(TRUNK, folds)
    assert train_to(made, start) == train_to(trunk, start)
    kept = trunk.states()
    trunk.cool_down(cooldown_of(length))
    assert trunk.steps == made.steps == length
    for step in range(start + 1, length + 1):
        assert trunk.learning_rate == made.learning_rate
        assert train_to(made, step) == train_to(trunk, step)
        same(made, trunk)

    trunk.restore(kept)
    assert trunk.steps == 5 * BATCHES
    straight = learner_of(TRUNK, folds)
    train_to(straight, start)
    assert train_to(straight, length) == train_to(trunk, length)
    same(trunk, straight)


def test_a_branch_can_be_begun_again_from_the_same_states_and_goes_on_within_its_cooldown():
    trunk = learner_of(TRUNK)
    train_to(trunk, 10)
    kept = trunk.states()
    ends = []
    for _ in range(2):
        trunk.restore(kept)
        trunk.cool_down(4)
        ends.append(train_to(trunk, 12))
        halfway = trunk.states()
        ends.append(train_to(trunk, 14))
    assert ends[:2] == ends[2:]
    again = learner_of(TRUNK)
    again.restore(halfway)
    assert (again.steps, again.done) == (14, 12)
    assert train_to(again, 14) == ends[-1]
    same(trunk, again)


def test_a_learner_goes_back_to_before_its_first_step():
    learner = learner_of(TRUNK)
    learner.take_turn()
    kept = learner.states()
    first = train_to(learner, 5)
    learner.restore(kept)
    assert train_to(learner, 5) == first
