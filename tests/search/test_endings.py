"""A study without a winner says what its trials ended for."""

from types import SimpleNamespace

import optuna
import pytest

from autopeft.execution.outcome import Outcome
from autopeft.search.endings import without_winner
from autopeft.search.loop import Search
from autopeft.search.tally import Tally
from autopeft.search.trial import record_of
from autopeft.study.record import TrialRecord
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, STOPPED


def trials(*outcomes: tuple[str, str]) -> list[TrialRecord]:
    return [
        record_of(number, "lora", {"method": "lora"}, 2, None, Outcome(state, reason))
        for number, (state, reason) in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            trials(
                (FAIL, "loss 0.5 is bad."), (STOPPED, "the study's timeout was reached"), (FAIL, "loss 0.7 is bad.")
            ),
            "none of 3 trials completed, so there is no winner (2 failed: loss 0.5 is bad; 1 stopped: the study's "
            "timeout was reached); fix what failed and run the same command again.",
        ),
        (
            trials((INFEASIBLE, "needs 3 MB"), (INFEASIBLE, "needs 4 MB")),
            "none of 2 trials completed, so there is no winner (2 refused: needs 3 MB); raise a limit in [budget] or "
            "change the space in [search], and give the changed study another `name`, and another `output` if it sets "
            "one.",
        ),
        (
            trials((STOPPED, "the study's timeout was reached")),
            "the only trial did not complete, so there is no winner (1 stopped: the study's timeout was reached); give "
            "[search] more trials or a longer timeout.",
        ),
        (
            [],
            "no trial ended before the study's time was up, so there is no winner; give [search] more trials or a "
            "longer timeout.",
        ),
    ],
)
def test_the_trials_own_reasons_are_told_with_how_often_each_occurred(found, told):
    assert without_winner(found, {}) == told


def test_the_rarest_reasons_are_counted_alone():
    found = trials(*((FAIL, f"{letter} broke") for letter in "aabbcde"), (COMPLETE, ""))
    told = without_winner(found, {"lora": "its refit failed."})
    assert (
        "(2 failed: a broke; 2 failed: b broke; 1 failed: c broke; and 2 more reasons; lora: its refit failed);" in told
    )


def test_a_search_that_stops_says_what_a_changed_study_needs():
    study, said = optuna.create_study(), []
    search = Search.__new__(Search)
    search.study, search.wanted, search._tally = study, 4, Tally(study)
    search.progress = SimpleNamespace(say=said.append)
    search._stop("the budget refused the last 200 proposals")
    assert said == [
        "Stopped after 0 of 4 trials: the budget refused the last 200 proposals. Fix what failed and run the same "
        "command again; or raise a limit in [budget] or change the space in [search], and give the changed study "
        "another `name`, and another `output` if it sets one."
    ]
