from dataclasses import replace

import numpy as np
import pytest
import torch

from autopeft.data.split import split
from autopeft.training.average import Average
from autopeft.training.batch_plan import Execution
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cross_validation import cross_validate
from autopeft.training.learner import Learner, evaluate
from autopeft.training.packing import pack
from autopeft.training.setup import Setup
from tests.training.test_checkpoint import Dying, PowerCutError
from tests.training.test_learner import CPU, HYPER, TASK, lora, rows

DATA = rows()
AVERAGED = replace(HYPER, averaged=True)
FOLDS = split(len(DATA), DATA.truths, None, 3, seed=0)
SETUP = Setup(task=TASK, rows=DATA, folds=FOLDS, metric="neg_log_loss", device=CPU, seed=5)


def test_it_is_the_mean_of_ten_steps_and_then_of_a_window_that_grows():
    values = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    average = Average([torch.full((3,), 1e6, dtype=torch.float64)])
    for step, value in enumerate(values[:10], 1):
        average.update([value], step)
    torch.testing.assert_close(average.tensors[0], values[:10].mean(dim=0))
    expected = values[:10].mean(dim=0)
    for step, value in enumerate(values[10:], 11):
        average.update([value], step)
        expected += (value - expected) / max(10, 0.15 * step)
    torch.testing.assert_close(average.tensors[0], expected)


def trained(hyper, folds=1, steps=9):
    """After so many steps without dropout, of each fold on its own rows."""
    model = lora() if folds == 1 else pack(lora(), folds)
    learner = Learner(model.eval(), hyper, len(DATA), Execution(8, folds=folds))
    learner.take_turn()
    for step in range(steps):
        batch = [np.arange(8) + 4 * (step + fold) for fold in range(folds)]
        learner.step(learner.load(DATA, batch, "cpu"), TASK, CPU)
    return learner


def test_a_packed_fold_has_the_average_it_has_alone():
    packed = trained(AVERAGED, folds=2).average.tensors
    alone = trained(AVERAGED).average.tensors
    for stack, tensor in zip(packed, alone, strict=True):
        torch.testing.assert_close(stack[0], tensor, atol=1e-6, rtol=1e-5)
    assert any(not torch.allclose(stack[0], stack[1], atol=1e-4) for stack in packed)


def test_training_is_the_same_to_the_bit_whether_an_average_is_kept_or_not():
    plain, averaged = (trained(hyper).states()[0] for hyper in (HYPER, AVERAGED))
    assert {name.split(".")[0] for name in averaged.keys() - plain.keys()} == {"average"}
    assert all(torch.equal(averaged[name], value) for name, value in plain.items())


def test_the_model_answers_with_averaged_values_and_then_with_its_own_again():
    learner = trained(AVERAGED)
    everything = [np.arange(len(DATA))]

    def answers():
        return evaluate(learner.model, DATA, everything, TASK, CPU)[0]

    own = answers()
    with learner.averaged():
        averaged = answers()
    assert np.array_equal(answers(), own)
    assert np.abs(averaged - own).max() > 1e-4
    other = trained(HYPER, steps=0)
    for parameter, tensor in zip(other.parameters, learner.average.tensors, strict=True):
        parameter.data.copy_(tensor)
    assert np.array_equal(evaluate(other.model, DATA, everything, TASK, CPU)[0], averaged)
    with trained(HYPER, steps=1).averaged():
        pass


def test_folds_that_take_turns_are_scored_by_their_averages_and_go_on_from_a_checkpoint(tmp_path):
    whole = [rung.scores for rung in cross_validate(lora(), SETUP, AVERAGED)]
    plain = [rung.scores for rung in cross_validate(lora(), SETUP, HYPER)]
    assert all(one != other for one, other in zip(whole, plain, strict=True))
    dying = Dying(tmp_path / "trial")
    dying.left[0] = 4
    with pytest.raises(PowerCutError):
        list(cross_validate(lora(), SETUP, AVERAGED, checkpoint=dying))
    again = [r.scores for r in cross_validate(lora(), SETUP, AVERAGED, checkpoint=Checkpoint(tmp_path / "trial"))]
    assert again == whole


def test_the_watches_of_memory_know_of_it():
    learner = trained(AVERAGED, steps=1)
    assert len(learner.kept_tensors()) - len(trained(HYPER, steps=1).kept_tensors()) == len(learner.parameters)
