"""What a search tries before it draws, and which of it the pruner has no say about."""

import json

import optuna
import pytest
from optuna.trial import TrialState

from autopeft.execution.problem import Problem
from autopeft.methods.candidate import CandidateSpace, together
from autopeft.methods.registry import discover
from autopeft.search import portfolio as recorded
from autopeft.search import start
from autopeft.search.protection import protected
from autopeft.search.pruner import make_pruner
from autopeft.search.run import _open
from autopeft.study.file import StudySpec
from autopeft.study.sections import FIXED_SEARCH_KEYS
from tests.conftest import autopeft_here
from tests.search.test_run import edit
from tests.search.test_warm_start import TRAINING, finished

ROWS = 150
"""Of which a fold trains on 100."""


def space(*names, **overrides):
    methods = discover().methods
    chosen = [methods[name] for name in names or ("adapter", "lora", "prefix_tuning")]
    return CandidateSpace.build(chosen, None, overrides, FIXED_SEARCH_KEYS)


def study(folder=None, **search):
    content = {
        "name": "x",
        "model": {"name_or_path": "m"},
        "task": {"kind": "text-classification"},
        "data": {"train": "t"},
        "search": search,
    }
    return StudySpec.from_mapping(content, folder=folder)


def told(found):
    return [(one.candidate.method.name, one.source) for one in found]


def test_what_did_best_comes_first_then_the_next_default_then_others_that_there_is_room_for(known):
    found, notes = start.first(study(trials=16), space(), ROWS)
    assert notes == []
    assert told(found) == [
        ("lora", start.RECORDED),
        ("adapter", start.RECORDED),
        ("lora", start.RECORDED),
        ("prefix_tuning", start.DEFAULT),
        ("adapter", start.DEFAULT),
    ]
    assert found[0].candidate.flat == space()["lora"].default().flat == found[0].candidate.flat
    assert len(start.first(study(trials=8), space(), ROWS)[0]) == 4, "no room for the worst default"
    few = start.first(study(trials=4), space(), ROWS)[0]
    assert told(few) == [("lora", start.RECORDED), ("prefix_tuning", start.DEFAULT)]


def test_ten_defaults_are_no_study_of_sixteen(known):
    everything = space(*discover().methods)
    found, _ = start.first(study(trials=16), everything, ROWS)
    assert len(found) == 8
    unknown = [one.candidate.method.name for one in found if one.source == start.DEFAULT][1:]
    assert not {"adapter", "lora", "prefix_tuning"} & {*unknown}, "what was never recorded may be better"


def test_an_entry_is_moved_to_the_nearest_point_and_its_length_goes_by_steps(known):
    narrow = space(adapter={"reduction_factor": [8, 16]}, epochs=[1, 50], batch_size=[16, 32])
    adapter = start.first(study(trials=16), narrow, ROWS)[0][1].candidate
    assert adapter.params["reduction_factor"] == 8
    assert adapter.hyper.learning_rate == 2e-3
    assert adapter.hyper.batch_size == 16
    assert adapter.hyper.epochs == 24, "168 steps of 7 an epoch"
    assert narrow["adapter"].own.holds(adapter.params)
    assert start.first(study(trials=16), space(epochs=4), ROWS)[0][1].candidate.hyper.epochs == 4


def test_earlier_studies_come_before_all_and_nothing_comes_twice(known, tmp_path):
    default = space()["lora"].default()
    values = {name.partition(".")[2]: value for name, value in default.flat.items() if name != "method"}
    for name, params in (("a", values), ("b", {**values, **TRAINING, "r": 32})):
        (tmp_path / name).mkdir()
        finished(tmp_path / name, **params)
    found, notes = start.first(study(tmp_path, trials=16, warm_start=["a", "b"]), space(), ROWS)
    assert told(found)[:3] == [("lora", start.EARLIER), ("lora", start.EARLIER), ("adapter", start.RECORDED)]
    assert len({str(one.candidate.flat) for one in found}) == len(found)
    assert len(notes) == 2


def test_without_a_portfolio_every_default_is_tried(known):
    assert [source for _, source in told(start.first(study(trials=2), space("bitfit", "ia3"), ROWS)[0])] == [
        start.DEFAULT,
        start.DEFAULT,
    ], "none of these was recorded"
    unwanted = study(trials=4, portfolio=False)
    assert told(start.first(unwanted, space(), ROWS)[0]) == [
        ("adapter", start.DEFAULT),
        ("lora", start.DEFAULT),
        ("prefix_tuning", start.DEFAULT),
    ]
    assert start.fixed_defaults(unwanted, space(), ROWS) == []
    known.unlink()
    recorded._read.cache_clear()
    assert len(start.first(study(trials=16), space(), ROWS)[0]) == 3


def test_base_models_take_turns_and_each_begins_with_its_best_default(known):
    where = together({"a": space(), "b": space("adapter", "bitfit", "prefix_tuning")})
    found, _ = start.first(study(trials=16), where, ROWS)
    assert [(one.candidate.name, one.source) for one in found] == [
        ("lora on a", start.RECORDED),
        ("prefix_tuning on b", start.RECORDED),
        ("adapter on a", start.RECORDED),
        ("adapter on b", start.RECORDED),
        ("lora on a", start.RECORDED),
        ("prefix_tuning on a", start.DEFAULT),
        ("adapter on b", start.DEFAULT),
        ("adapter on a", start.DEFAULT),
    ]
    assert [one.candidate.name for one in start.first(study(trials=2), where, ROWS)[0]][:2] == [
        "lora on a",
        "prefix_tuning on b",
    ]
    fixed = [one.name for one in start.fixed_defaults(study(), where, ROWS)]
    assert fixed == ["lora on a", "prefix_tuning on b"]
    unknown = together({"a": space(), "b": space("bitfit", "ia3")})
    found = [one.candidate.name for one in start.first(study(trials=16), unknown, ROWS)[0]]
    assert found[:2] == ["lora on a", "bitfit on b"]
    assert found[-1] == "ia3 on b"
    assert len(start.first(study(trials=4, portfolio=False), where, ROWS)[0]) == 6


def run(found, where, scores, fixed, pruner="successive_halving"):
    """Trials of these candidates, each with its scores at two rungs; which of them are stopped, and why not."""
    trials = optuna.create_study(direction="maximize", pruner=make_pruner(pruner, 2))
    for candidate in found:
        trials.enqueue_trial(candidate.flat)
    stopped = []
    for candidate, own in zip(found, scores, strict=True):
        trial = trials.ask()
        assert where.suggest(trial).flat == candidate.flat
        for rung, score in enumerate(own, 1):
            trial.report(score, rung)
            if trial.should_prune() and not protected(trial, candidate, where, fixed):
                trials.tell(trial, state=TrialState.PRUNED)
                stopped.append(True)
                break
        else:
            trials.tell(trial, own[-1])
            stopped.append(False)
    return stopped


def test_two_defaults_are_protected_the_best_fixed_one_and_the_one_that_is_ahead(known):
    where = space("adapter", "bitfit", "lora", "prefix_tuning")
    adapter, bitfit, lora, prefix = (part.default() for part in where.values())
    fixed = start.fixed_defaults(study(), where, ROWS)
    assert [one.flat for one in fixed] == [lora.flat]
    drawn = where["lora"].sample(2, seed=1)
    order = [*drawn, prefix, adapter, bitfit, lora]
    scores = [(0.9, 0.9), (0.8, 0.8), (0.5, 0.5), (0.6, 0.6), (0.55, 0.55), (0.1, 0.1)]
    assert run(order, where, scores, fixed) == [False, True, False, False, True, False]
    assert run(order, where, scores, []) == [False, True, False, False, False, False], "as nothing tells the best"


def test_a_default_that_fell_behind_at_a_later_rung_is_stopped_there(known):
    where = space("adapter", "lora", "prefix_tuning")
    adapter, lora, prefix = (part.default() for part in where.values())
    stopped = run([lora, adapter, prefix], where, [(0.9, 0.9), (0.95, 0.8), (0.1, 0.1)], [lora])
    assert stopped == [False, True, True]


def test_a_study_queues_it_and_says_so(tiny_study, known, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    edit(tiny_study, ("portfolio = false", "portfolio = true"), ("trials = 4", "trials = 6"))
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    said = []
    opened, _ = _open(problem, said.append)
    queued = [trial.system_attrs["fixed_params"] for trial in opened.get_trials()]
    first, _ = start.first(problem.spec, problem.space, len(problem.rows.train))
    assert queued == [one.candidate.flat for one in first]
    assert [params["method"] for params in queued] == ["lora", "adapter", "prefix_tuning"]
    assert "first tries 2 candidates" in said[0]
    assert len(_open(problem, said.append)[0].get_trials()) == 3, "a later start queues nothing more"


@pytest.mark.exhaustive
def test_a_study_begins_so_and_trains_the_other_defaults_at_the_end(tiny_study, known):
    """In the real search, through to the trials that Optuna was given."""
    edit(
        tiny_study,
        ("portfolio = false", "portfolio = true"),
        ("trials = 4", "trials = 6"),
        ("epochs = 4", "epochs = 2"),
    )
    done = autopeft_here("run", tiny_study.name, "--json", cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    assert "did best on recorded tasks" in done.stderr
    result = json.loads(done.stdout)
    assert [record["method"] for record in result["records"][:3]] == ["lora", "adapter", "prefix_tuning"]
    assert {*result["test"]["defaults"]} == {"adapter", "lora", "prefix_tuning"}
    assert all(score is not None for score in result["test"]["defaults"].values()), "the others once, at the end"
    assert result["records"][0]["state"] == "COMPLETE"
