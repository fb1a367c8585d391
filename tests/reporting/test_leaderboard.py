import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from autopeft.budget.limits import Budget
from autopeft.budget.memory.peak import MemoryEstimate
from autopeft.budget.usage import Usage, Weights
from autopeft.common.console import make_console
from autopeft.methods.candidate import Candidate, CandidateSpace
from autopeft.reporting.leaderboard import by_method, leaderboard, summary
from autopeft.reporting.progress import LiveProgress, PlainProgress, make_progress, sparkline
from autopeft.study.record import TestScores as Scores
from autopeft.study.record import TrialRecord
from autopeft.training.batch_plan import Execution
from autopeft.training.rungs import Rung
from tests.models.test_base import METHODS


def record(number, method="lora", state="COMPLETE", folds=(0.7, 0.8), curve=(0.6, 0.75), reason="", params=1000):
    return TrialRecord(
        number=number, name=f"{method} r={number}", method=method, state=state, reason=reason,
        score=curve[-1] if curve else None, fold_scores=folds, curve=curve, epochs=2, epochs_trained=len(curve),
        rung_epochs=tuple(range(1, len(curve) + 1)),
        trainable_params=params,
        saved_params=params, predicted_memory=2**20, measured_memory=2**20 if curve else None, seconds=3.0,
    )  # fmt: skip


FOUND = [
    record(0, curve=(0.5, 0.71)),
    record(1, "adapter", curve=(0.5, 0.74), folds=(0.70, 0.78)),
    record(2, "adapter", "PRUNED", curve=(0.79,), reason="pruned after epoch 1 of 2"),
    record(3, "prefix_tuning", "FAIL", folds=(), curve=(), reason="out of memory"),
    *(record(n, "lora", "INFEASIBLE", (), (), "trains 9 parameters, over 5", 9) for n in range(4, 9)),
]


def text(renderable, width=200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_the_leaderboard_ranks_complete_trials_and_sets_the_others_apart():
    lines = text(leaderboard(FOUND, "accuracy")).splitlines()
    where = {n: next(i for i, line in enumerate(lines) if f"r={n} " in line) for n in range(7)}
    assert where[1] < where[0] < where[2] < where[3] < where[4]
    assert "│    1 │" in lines[where[1]]
    assert "│    2 │" in lines[where[0]]
    assert "│    – │" in lines[where[2]]  # the highest score of all, but of an epoch too early to compare
    assert "pruned at epoch 1 of 2" in lines[where[2]]
    assert "0.0400" in lines[where[1]]
    assert "out of memory" in lines[where[3]]
    assert not any("r=7 " in line for line in lines)
    assert "5 proposals were refused" in lines[-1]


def test_a_complete_trial_whose_folds_collapsed_says_so():
    lines = text(leaderboard([*FOUND, record(9, reason="1 of 2 folds collapsed")], "accuracy")).splitlines()
    assert "complete: 1 of 2 folds collapsed" in next(line for line in lines if "r=9 " in line)
    assert "complete:" not in next(line for line in lines if "r=1 " in line)


def test_words_of_a_plugin_are_no_markup(capsys):
    failed = record(0, state="FAIL", folds=(), curve=(), reason="[/INST] [batch, seq] :boom:")
    make_console().print(leaderboard([failed], "accuracy"))
    out = capsys.readouterr().out
    assert all(word in out for word in ("[/INST]", "[batch,", ":boom:"))


def test_methods_are_counted_by_how_their_trials_ended():
    lines = text(by_method(FOUND)).splitlines()
    cells = {line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:-1]] for line in lines if "│" in line}
    assert list(cells) == ["adapter", "lora", "prefix_tuning"]
    assert cells["adapter"] == ["0.7400", "1", "1", "0", "0"]
    assert cells["lora"] == ["0.7100", "1", "0", "0", "5"]
    assert cells["prefix_tuning"] == ["–", "0", "0", "1", "0"]


def test_the_summary_holds_the_winner_the_defaults_the_majority_and_where_it_was_saved():
    scores = Scores(0.81, 0.4, {"adapter": 0.81, "lora": None}, {"lora": "its default trains too much"})
    shown = text(summary(FOUND, FOUND[1], scores, "accuracy", "out/winner"))
    assert "winner: adapter r=1" in shown
    assert "its default trains too much" in shown
    assert "majority class" in shown
    assert "out/winner" in shown


def candidate(method) -> Candidate:
    return CandidateSpace.build([METHODS[method]], None, {}, ())[method].default()


def follow(progress) -> None:
    """A trial that is refused, one that trains two epochs, and the start of a third."""
    usage = Usage(500, lambda: Weights(500, 2000, 0), lambda: (Execution(8), MemoryEstimate(2**20, 0, 0, 0)))
    budget = Budget(max_trainable_params=1000, max_gpu_memory=4 * 2**20)
    with progress:
        progress.say("a [note]")
        progress.finished(FOUND[4])
        progress.started(0, candidate("lora"), usage, budget, 0, 3)
        progress.rung(0, Rung(1, 0.5, (0.5, 0.6), 1.0))
        progress.finished(FOUND[0])
        progress.started(1, candidate("adapter"), usage, budget, 1, 3)
        progress.rung(1, Rung(1, 0.5, (0.25, 0.35), 1.0))
        if isinstance(progress, LiveProgress):
            progress.live.refresh()


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_tells_trial_folds_best_budget_and_time_left(terminal):
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    progress = make_progress(console)
    assert type(progress) is (LiveProgress if terminal else PlainProgress)
    follow(progress)
    shown = console.file.getvalue()
    for words in (
        "a [note]", "[2/3] trial 1: adapter placement=pfeiffer", "500 params = 50% of budget",
        "1.0 MiB in micro-batches of 8 = 25% of budget",
        "0.2500 0.3500", "about 0 min 06 s left", "0.7100",
    ):  # fmt: skip
        assert words in shown
    if terminal:
        assert "best so far: 0.7100, trial 0" in shown
        assert "1 proposals refused" in shown
    else:
        assert "\x1b" not in shown


def test_the_live_view_keeps_the_best_of_complete_trials_only():
    progress = LiveProgress(Console(file=io.StringIO(), force_terminal=True))
    for found in (FOUND[0], FOUND[2], FOUND[3], FOUND[1]):
        progress.finished(found)
    assert progress.best is FOUND[1]
    assert "pruned" in text(progress._render())


def test_a_first_trial_has_no_time_left_to_tell():
    progress = PlainProgress(Console(file=io.StringIO()))
    progress.clock.start(0, 0, 5)
    assert progress.clock.left() == ""
    progress.clock.finish(SimpleNamespace(number=0, seconds=120.0, state="COMPLETE"))
    progress.clock.start(1, 1, 3)
    assert progress.clock.left() == " · about 4 min 00 s left"


@pytest.mark.parametrize(
    ("scores", "drawn"),
    [
        ([], ""),
        ([0.5, 0.5, None], ""),  # nothing rose yet
        ([None, 0.5, 0.4, None, 0.6, 0.7], "▁▁▁▅█"),
        ([0.0, *[i / 100 for i in range(100)]], None),
    ],
)
def test_the_sparkline_shows_how_the_best_score_rose(scores, drawn):
    assert sparkline(scores) == drawn if drawn is not None else len(sparkline(scores)) == 40
