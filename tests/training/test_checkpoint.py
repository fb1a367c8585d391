import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest

from autopeft.data.split import split
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cross_validation import cross_validate
from autopeft.training.rungs import rung_ends
from autopeft.training.setup import Setup
from tests.training.test_learner import CPU, HYPER, TASK, lora, rows

DATA = rows()
FOLDS = split(len(DATA), DATA.truths, None, 3, seed=0)
OPTIONS = {"task": TASK, "metric": "accuracy", "device": CPU, "seed": 5}


class PowerCutError(Exception):
    pass


class Dying(Checkpoint):
    """Writes so many fold states, and then the process is gone."""

    left: ClassVar = [4]

    def keep(self, *state):
        super().keep(*state)
        self.left[0] -= 1
        if not self.left[0]:
            raise PowerCutError


@pytest.mark.parametrize("finished", [1, 4, 8])
def test_a_trial_goes_on_from_the_last_finished_fold_and_ends_as_if_it_never_stopped(tmp_path, finished, monkeypatch):
    whole = [
        (rung.scores, rung.loss) for rung in cross_validate(lora(), Setup(rows=DATA, folds=FOLDS, **OPTIONS), HYPER)
    ]
    dying = Dying(tmp_path / "trial")
    dying.left[0] = finished
    with pytest.raises(PowerCutError):
        list(cross_validate(lora(), Setup(rows=DATA, folds=FOLDS, **OPTIONS), HYPER, checkpoint=dying))

    from autopeft.training import cross_validation

    trained = []
    train = cross_validation.train_epoch
    monkeypatch.setattr(cross_validation, "train_epoch", lambda *a: trained.append(1) or train(*a))
    checkpoint = Checkpoint(tmp_path / "trial")
    again = [
        (r.scores, r.loss)
        for r in cross_validate(lora(), Setup(rows=DATA, folds=FOLDS, **OPTIONS), HYPER, checkpoint=checkpoint)
    ]
    assert again == whole
    assert len(trained) == 3 * len(rung_ends(HYPER.epochs, rows=32)) - finished


@pytest.mark.parametrize("left", [1, 2])
def test_what_the_folds_answered_last_is_there_whenever_the_trial_was_interrupted(tmp_path, left):
    setup, whole, again = Setup(rows=DATA, folds=FOLDS, **OPTIONS), {}, {}
    list(cross_validate(lora(), setup, HYPER, answers=whole))
    dying = Dying(tmp_path / "trial")
    dying.left[0] = 3 * len(rung_ends(HYPER.epochs, rows=32)) - left
    with pytest.raises(PowerCutError):
        list(cross_validate(lora(), setup, HYPER, checkpoint=dying, answers={}))
    list(cross_validate(lora(), setup, HYPER, checkpoint=Checkpoint(tmp_path / "trial"), answers=again))
    assert sorted(again) == [0, 1, 2]
    for fold, part in enumerate(FOLDS):
        assert len(whole[fold]) == len(part.validation)
        np.testing.assert_allclose(again[fold], whole[fold], rtol=1e-5)


def test_another_trial_does_not_take_it_up_and_a_start_clears_all_but_those_that_wait(tmp_path):
    first = Checkpoint.of(tmp_path, {"method": "lora", "lora.r": 8})
    for _ in cross_validate(lora(), Setup(rows=DATA, folds=FOLDS, **OPTIONS), HYPER, checkpoint=first):
        break
    assert sorted(path.name for path in first.folder.iterdir()) == [f"{i}.safetensors" for i in range(3)]
    assert Checkpoint.of(tmp_path, {"lora.r": 8, "method": "lora"}) == first
    second = Checkpoint.of(tmp_path, {"method": "lora", "lora.r": 9})
    second.folder.mkdir()
    Checkpoint.clear(tmp_path, [{"lora.r": 8, "method": "lora"}])
    assert first.folder.is_dir()
    assert not second.folder.exists()
    first.remove()
    Checkpoint.clear(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"no safetensors"])
def test_a_fold_whose_file_is_damaged_starts_over(tmp_path, content):
    checkpoint = Checkpoint(tmp_path / "trial")
    setup = Setup(rows=DATA, folds=FOLDS, **OPTIONS)
    whole = [(rung.scores, rung.loss) for rung in cross_validate(lora(), setup, HYPER, checkpoint=checkpoint)]
    assert checkpoint.even(len(FOLDS))
    (tmp_path / "trial" / "1.safetensors").write_bytes(content)
    assert not checkpoint.even(len(FOLDS))
    assert [(rung.scores, rung.loss) for rung in cross_validate(lora(), setup, HYPER, checkpoint=checkpoint)] == whole


WRITING = """
import sys, torch
from safetensors.torch import save_file
while True:
    save_file({"state": torch.zeros(2**24)}, sys.argv[1])
"""


def test_what_a_process_that_was_killed_as_it_wrote_left_is_removed_and_nothing_else(tmp_path):
    folder = tmp_path / "trial"
    folder.mkdir()
    writer = subprocess.Popen([sys.executable, "-c", WRITING, folder / "0.safetensors"])
    deadline = time.monotonic() + 60
    while not any(path.name.startswith(".tmp") for path in folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.001)
    writer.kill()
    writer.wait()
    Checkpoint(folder).remove()
    assert not folder.exists()
    folder.mkdir()
    (folder / ".tmp-notes.txt").write_text("mine")
    Checkpoint(folder).remove()
    assert [path.name for path in folder.iterdir()] == [".tmp-notes.txt"]
