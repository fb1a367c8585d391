"""What a study says it is at, and how long that takes."""

from types import SimpleNamespace

import pytest

from autopeft.common.units import counted, format_estimate
from autopeft.methods.candidate import CandidateSpace
from autopeft.search.announcer import refit_seconds
from autopeft.study.output import taken
from autopeft.study.phase import REFITTING, SCORING, current
from tests.conftest import announcing
from tests.models.test_base import METHODS
from tests.reporting.test_report import record


def test_it_is_said_with_its_time_and_kept_for_others_while_the_study_runs(tmp_path):
    said, output = [], tmp_path / "out"
    with taken(output):
        announcer = announcing(output, said)
        announcer.enter(REFITTING, "the winner", "Refitting the winner", 75.2)
        assert str(current(output)) == "refitting the winner"
        assert current(output).seconds_left == pytest.approx(75.2, abs=5)
        announcer.enter(SCORING, "head alone", "Scoring head alone", 120.0, latest=True)
        assert current(output).latest
        announcer.enter(SCORING, "the winner")
        assert (str(current(output)), current(output).seconds_left) == ("scoring the winner", None)
    assert said == ["Refitting the winner (about 1 min 15 s)", "Scoring head alone (at most 2 min)"]
    assert current(output) is None


def test_a_refit_takes_what_a_fold_of_all_rows_would():
    problem = SimpleNamespace(folds=[None] * 3)
    candidate = CandidateSpace.build([METHODS["lora"]], None, {"epochs": 4}, ())["lora"].default()
    others = [record(0, seconds=10.0, epochs=2), record(1, seconds=90.0, epochs=3), record(2, seconds=8.0, epochs=4)]
    assert refit_seconds(problem, candidate, others) == pytest.approx(4 * 5.0 / 2), "the median of an epoch, scaled"
    own = record(3, seconds=7.0, params=candidate.flat)
    assert refit_seconds(problem, candidate, [*others, own]) == pytest.approx(7.0 / 2)
    pruned = record(4, state="PRUNED", params=candidate.flat)
    assert refit_seconds(problem, candidate, [pruned]) is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (54.2, "54 s"), (59.4, "59 s"), (75.2, "1 min 15 s"), (5400, "1 h 30 min")]
)
def test_an_estimate_has_whole_seconds(seconds, said):
    assert format_estimate(seconds) == said


def test_one_of_a_thing_is_singular():
    assert (counted(0, "row"), counted(1, "training row"), counted(1200, "row")) == (
        "0 rows", "1 training row", "1,200 rows",
    )  # fmt: skip
