"""A live study is decided by the simulator's own pruner and race as it was; and what differs is seen."""

import json
from dataclasses import replace

import pytest
from agreement import Lived, race, states
from drawing import content, prepared
from rich.console import Console
from sources import Folders

from autopeft.methods.registry import discover
from autopeft.reporting.progress import make_progress
from autopeft.search.run import run
from autopeft.study.archive import open_archive
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE, PRUNED
from tests.conftest import HEAVY


@pytest.fixture(scope="module", params=HEAVY)
def archive(tmp_path_factory, data, tasks, tiny_model):
    """A study of the tiny bank's first task, whose race has rows enough."""
    out = tmp_path_factory.mktemp("live")
    said = content(tasks["labels"], prepared(tasks["labels"], "small", Folders([data]), out), str(tiny_model),
                   "float32", 0, out)  # fmt: skip
    said |= {"output": str(out / "study")}
    said["search"] = {
        "trials": 8, "methods": ["lora", "dora"], "race": 0.6, "references": False,
        "learning_rate": [0.01, 0.02], "batch_size": 8,
    }  # fmt: skip
    run(StudySpec.from_mapping(said), discover(), make_progress(Console(quiet=True)))
    return open_archive(out / "study")


def test_every_trial_and_the_race_end_as_they_did(archive):
    lived = Lived.of(archive, 100)
    table = states(lived)
    assert len(table) == 8
    assert table.agrees.all(), table.to_string()
    ran = race(archive, lived)
    assert ran, "the study has a race"
    live, replayed, winner, won = ran
    assert live
    assert live == replayed
    assert winner == won


def test_a_trial_that_was_stopped_without_reason_is_seen(archive):
    lived = Lived.of(archive, 100)
    first = lived.trials[0]
    lived.trials[0] = replace(first, state=PRUNED, curve=first.curve[:1], rung_epochs=first.rung_epochs[:1])
    table = states(lived)
    assert not table.agrees[0]
    assert json.loads(table.to_json())["replayed"]["0"] == COMPLETE
