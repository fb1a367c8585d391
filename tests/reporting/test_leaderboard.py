import io
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from autopeft.budget.limits import Budget
from autopeft.budget.memory.peak import MemoryEstimate
from autopeft.budget.usage import Usage, Weights
from autopeft.common.console import make_console
from autopeft.methods.candidate import Candidate, CandidateSpace
from autopeft.reporting.leaderboard import SHOWN_TRIALS, by_method, leaderboard
from autopeft.reporting.leaderboard import test_table as held_out_table
from autopeft.reporting.progress import LiveProgress, PlainProgress, make_progress, sparkline
from autopeft.reporting.short_name import short_name
from autopeft.study.phase import REFITTING, SEARCHING, Phase
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
    where = {n: next(i for i, line in enumerate(lines) if line[6:11].strip() == str(n)) for n in range(4)}
    assert where[1] < where[0] < where[2] < where[3]
    assert [lines[where[n]][:4].strip() for n in (1, 0, 2, 3)] == ["1", "2", "–", "–"]  # 2's is of too early an epoch
    assert "pruned 1/2" in lines[where[2]]
    assert "0.0400" in lines[where[1]]
    assert "* trial 3: out of memory" in lines
    assert "1/2: its score is that of epoch 1 of 2, so it has no rank." in lines
    assert lines[-1] == (
        "5 proposals were refused and not trained, such as trial 4, lora r=4: trains 9 parameters, over 5"
    )


def test_a_complete_trial_whose_folds_collapsed_says_so():
    found = [record(n, reason="1 of 2 folds collapsed", curve=(0.5, 0.7)) for n in (9, 10)]
    lines = text(leaderboard([*FOUND, *found], "accuracy")).splitlines()
    assert "* trials 9, 10: 1 of 2 folds collapsed" in lines
    assert "complete *" in next(line for line in lines if "lora r=9 " in line)
    assert "complete *" not in next(line for line in lines if "adapter r=1 " in line)


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_a_trial_has_one_line_on_any_screen(width):
    params = {"method": "lora", **{f"lora.a_long_name_{n}": n for n in range(7)}}
    defaults = dict.fromkeys(params, 0)
    found = [replace(record(n), params=params, needs={}) for n in range(50)]
    lines = text(leaderboard(found, "accuracy", defaults), width).splitlines()
    rows = [line for line in lines if "0.7500" in line]
    assert len(rows) == SHOWN_TRIALS
    assert "and 10 more trials" in lines
    assert max(map(len, lines)) <= width
    assert ("a_long_name_6=6" in rows[0]) is (width == 200)
    assert all(("…" in row) is (width < 200) for row in rows)
    assert "a_long_name_0=" not in rows[0], "that is as the default has it"


def test_a_candidate_is_named_by_what_differs_from_its_default():
    defaults = {"lora.r": 8, "lora.learning_rate": 1e-3, "lora.epochs": 4, "lora.scale": 1.0}
    params = {"method": "lora", "lora.r": 8, "lora.learning_rate": 3e-4, "lora.epochs": 4}
    assert short_name(params, "whole", defaults) == "lora lr=0.0003"
    assert short_name({**params, "lora.learning_rate": 1e-3}, "whole", defaults) == "lora default"
    assert short_name({**params, "method": "adapter"}, "whole", defaults) == "whole"
    assert short_name({}, "whole", {}) == "whole"


def test_words_of_a_plugin_are_no_markup(capsys):
    failed = record(0, state="FAIL", folds=(), curve=(), reason="[/INST] [batch, seq] :boom:")
    make_console().print(leaderboard([failed], "accuracy"))
    out = capsys.readouterr().out
    assert "* trial 0: [/INST] [batch, seq] :boom:" in out


def test_methods_are_counted_by_how_their_trials_ended():
    lines = text(by_method(FOUND)).splitlines()
    cells = [line.split() for line in lines if line][1:]
    assert cells == [
        ["method", "best", "complete", "pruned", "failed", "refused"],
        ["adapter", "0.7400", "1", "1", "0", "0"],
        ["lora", "0.7100", "1", "0", "0", "5"],
        ["prefix_tuning", "–", "0", "0", "1", "0"],
    ]


def test_the_held_out_scores_are_the_winners_the_defaults_and_those_of_reference():
    scores = Scores(0.81, 0.4, {"adapter": 0.81, "lora": None}, {"lora": "its default trains too much"})
    shown = text(held_out_table("adapter r=1", scores, "accuracy"), width=60)
    assert "0.8100  winner: adapter r=1" in shown
    assert "     –  * untuned default of lora" in shown
    assert "* untuned default of lora: its default trains too much" in shown
    assert "0.4000  majority class" in shown


def candidate(method) -> Candidate:
    return CandidateSpace.build([METHODS[method]], None, {}, ())[method].default()


USAGE = Usage(500, lambda: Weights(500, 2000, 0), lambda: (Execution(8), MemoryEstimate(2**20, 0, 0, 0)))


def follow(progress) -> None:
    """A trial that is refused, one that trains two epochs, and the start of a third."""
    usage = USAGE
    budget = Budget(max_trainable_params=1000, max_gpu_memory=4 * 2**20)
    with progress:
        progress.begun(3, {}, None)
        progress.entered(Phase(SEARCHING))
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
        "a [note]", "trial 1: adapter placement=pfeiffer", "500 params = 50% of budget",
        "1.0 MiB in micro-batches of 8 = 25% of budget",
        "0.2500 0.3500", "about 6 s left", "0.7100",
    ):  # fmt: skip
        assert words in shown
    if terminal:
        assert "best so far: 0.7100, trial 0" in shown
        assert "searching: 1 of 3 trials" in shown
        assert "1 proposal refused" in shown
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
    assert progress.clock.left() == " · about 4 min left"


def test_the_timeout_bounds_the_time_left():
    progress = PlainProgress(Console(file=io.StringIO()))
    progress.begun(12, {}, time.monotonic() + 54.4)
    progress.started(0, candidate("lora"), USAGE, Budget(), 0, 12)
    assert progress.clock.left() == " · at most 54 s left"
    progress.clock.finish(SimpleNamespace(number=0, seconds=2.0, state="COMPLETE"))
    progress.clock.start(1, 1, 12)
    assert progress.clock.left() == " · about 22 s left"
    progress.clock.finish(SimpleNamespace(number=1, seconds=200.0, state="COMPLETE"))
    assert progress.clock.left() == " · at most 54 s left"


def screen(progress, width, height) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    progress.console = console
    console.print(progress._render())
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 50), (40, 8)])
@pytest.mark.parametrize("workers", [1, 4, 30])
def test_the_live_view_fits_the_screen_and_shows_first_what_matters(width, height, workers):
    progress = LiveProgress(Console(file=io.StringIO(), force_terminal=True))
    progress.begun(200, {}, None)
    progress.entered(Phase(SEARCHING))
    for number in range(100):
        progress.started(number, candidate("lora"), USAGE, Budget(), number, 200)
        progress.finished(record(number, curve=(0.5, 0.5 + number / 1000)))
    for number in range(100, 100 + workers):
        progress.started(number, candidate("lora"), USAGE, Budget(), number, 200)
        progress.rung(number, Rung(1, 0.5, (0.5, 0.6), 1.0))
    lines = screen(progress, width, height)
    assert len(lines) <= height - 1
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("searching: 100 of 200 trials · about ")
    assert lines[1].startswith("best so far: 0.5990, trial 99 lora r=99")
    assert lines[2].startswith("trial 100: ")
    if workers == 1:
        assert len(lines) == height - 1, "as many rows as fit"
        assert any(line.lstrip().startswith("99  0.5990  complete  lora r=99") for line in lines)
    if workers == 30 and height < 30:
        assert lines[-1] == f"and {30 - height + 4} more trials"


def test_the_live_view_says_what_comes_after_the_search_and_how_long_it_takes():
    progress = LiveProgress(Console(file=io.StringIO(), force_terminal=True))
    assert screen(progress, 80, 24) == ["starting"]
    progress.entered(Phase(REFITTING, "the winner", time.time() + 20.2))
    assert screen(progress, 80, 24) == ["refitting the winner · about 20 s left"]
    progress.entered(Phase(REFITTING, "the winner", time.time() - 3))
    assert screen(progress, 80, 24) == ["refitting the winner"]


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
