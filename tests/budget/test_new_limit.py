"""A limit that the project does not have is one entry in `LIMITS` and a setting: it is checked, worded and shown."""

import io
import json
import pickle
from dataclasses import replace

import pytest
from rich.console import Console

from autopeft.budget import plan as planning
from autopeft.budget.limits import LIMITS, Budget, Limit
from autopeft.budget.memory.peak import MemoryEstimate
from autopeft.budget.usage import Usage, Weights
from autopeft.execution.outcome import Outcome
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.reporting import gather, plan_view, wording
from autopeft.reporting.leaderboard import leaderboard
from autopeft.reporting.progress import make_progress
from autopeft.search.trial import record_of
from autopeft.study.budget_section import BudgetSection
from autopeft.study.file import StudySpec
from autopeft.study.record import TrialRecord, plain
from autopeft.study.states import COMPLETE
from autopeft.tracking.view import ranking_view
from autopeft.training.batch_plan import Execution
from autopeft.winner.readme import _limit as in_the_readme
from tests.conftest import THREE
from tests.reporting.test_report import GIVEN, record, store

KEPT = Limit(
    "max_kept_params", "kept_params", "{:,}".format, "keeps {} parameters",
    need=lambda usage: usage.weights.saved_params, share=True,
)  # fmt: skip


class WiderSection(BudgetSection):
    max_kept_params: int | float | None = None


@pytest.fixture(autouse=True)
def fifth(monkeypatch):
    monkeypatch.setitem(LIMITS, KEPT.name, KEPT)


def usage(params=100):
    return Usage(params, lambda: Weights(1500, 6000, 0), lambda: (Execution(16), MemoryEstimate(2**20, 0, 0, 0)))


def text(shown):
    console = Console(file=io.StringIO(), width=250)
    console.print(shown)
    return console.file.getvalue()


def test_every_limit_has_a_setting_and_every_setting_a_limit(monkeypatch):
    monkeypatch.delitem(LIMITS, KEPT.name)
    assert LIMITS.keys() == BudgetSection.model_fields.keys()
    assert not any(limit.extra for limit in LIMITS.values())
    with pytest.raises(TypeError, match="no limit is called max_kept_params"):
        Budget(max_kept_params=1)


def test_it_is_checked_and_worded():
    budget = Budget(max_kept_params=1000, max_trainable_params=200)
    assert budget.violations(usage()) == {"max_trainable_params": -0.5, "max_kept_params": 0.5}
    assert not budget.admits(usage())
    assert budget.reason(usage()) == "keeps 1,500 parameters, over max_kept_params = 1,000"
    assert budget.limits["max_kept_params"] == "max_kept_params = 1,000"
    over = usage(params=400)
    assert budget.violations(over).keys() == {"max_trainable_params"}
    assert not over.weights_known
    assert budget.violations(over, cheap=True)["max_kept_params"] == 0.5
    assert Budget(max_kept_params=1500).admits(usage())


def test_it_is_kept_in_the_record_and_shown():
    asked, budget = usage(), Budget(max_kept_params=2000)
    assert budget.admits(asked)
    elsewhere = pickle.loads(pickle.dumps(asked))
    assert elsewhere.needs == {"kept_params": 1500}
    _ = asked.memory
    kept = record_of(0, "lora", {"method": "lora"}, 1, asked, Outcome(COMPLETE, seconds=1.0))
    assert TrialRecord.read(json.loads(json.dumps(plain(kept)))) == kept
    assert kept.metrics["kept_params"] == 1500
    scored = replace(kept, score=0.5)
    board = text(leaderboard([scored, replace(scored, number=1, needs={})], "accuracy"))
    assert "kept_params" in board
    assert "1,500" in board
    assert "metrics.`kept_params`" in json.loads(json.loads(ranking_view())["state"])["selectedColumns"]
    assert in_the_readme("max_kept_params", 2000) == "2,000"
    assert in_the_readme("max_kept_params", 0.01) == "1.0000% of the base model"


def test_a_trial_is_announced_with_its_share_of_it(tiny_study):
    spec = StudySpec.from_file(tiny_study)
    wider = spec.model_copy(update={"budget": WiderSection(max_kept_params=0.5)})
    problem = Problem.from_spec(wider, discover())
    limit = problem.budget.values["max_kept_params"]
    assert limit == int(0.5 * problem.base.spec.num_parameters)
    candidate = problem.space["lora"].default()
    needed = problem.cost_estimator(candidate)
    assert problem.budget.admits(needed)
    console = Console(file=io.StringIO(), width=250)
    with make_progress(console) as progress:
        progress.started(0, candidate, needed, problem.budget, 0, 1)
    share = needed.weights.saved_params / limit
    assert f"kept_params {needed.weights.saved_params:,} = {share:.0%} of budget" in console.file.getvalue()


def test_a_plan_shows_it(tiny_study):
    tiny_study.write_text(tiny_study.read_text().replace(THREE, 'methods = ["lora"]'))
    wider = StudySpec.from_file(tiny_study).model_copy(update={"budget": WiderSection(max_kept_params=10)})
    problem = Problem.from_spec(wider, discover())
    (entry,) = plans = planning.plan(problem, samples=2)
    assert entry.shares == {"max_kept_params": 0.0}
    assert entry.default.broken == ("max_kept_params",)
    assert plain(entry)["default"]["needs"] == {"kept_params": entry.default.saved_params}
    shown = text(plan_view.show(plans, problem.budget))
    assert "Budget: max_kept_params = 10" in shown
    assert f"it needs max_kept_params = {entry.closest.saved_params:,}." in shown
    assert problem.budget.to_dict()["max_kept_params"] == 10


def test_a_report_shows_it(tmp_path):
    found = [record(0, needs={"kept_params": 500}), record(1, state="INFEASIBLE", folds=())]
    given = {**GIVEN, "budget": {"max_kept_params": 1000}}
    constraints = {0: {"max_kept_params": -0.5}, 1: {"max_kept_params": 0.2}}
    report = gather(store(tmp_path / "made", found, constraints=constraints, given=given))
    (use,) = report.budget.limits
    assert (use.limit, use.value, use.refused, use.closest) == ("max_kept_params", "1,000", 1, 0.5)
    trials = wording.trials(report)
    assert (trials.columns[-1], trials.rows[0][-1]) == ("kept_params", "500")


def test_without_it_nothing_is_written_of_it():
    asked = usage()
    assert Budget(max_trainable_params=200, max_saved_size=10**6, max_gpu_memory=2**30).admits(asked)
    content = plain(record_of(0, "lora", {"method": "lora"}, 1, asked, Outcome(COMPLETE, seconds=1.0)))
    assert "needs" not in content
    assert (content["trainable_params"], content["saved_bytes"], content["predicted_memory"]) == (100, 6000, 2**20)
