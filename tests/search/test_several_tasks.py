"""A study of several tasks on one base model: what is shared, drawn and scored, and how it answers."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console
from safetensors.torch import load_file

import autopeft as api
from autopeft.common.exceptions import SpecError, StudyError, UserInputError
from autopeft.data.encoded import Encoded, Field
from autopeft.data.rows_of_tasks import RowsOfTasks, task_of
from autopeft.execution import cohort_choice
from autopeft.execution.folds import FreshFolds
from autopeft.execution.preparation import made_ready
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.methods.sharing import BELOW, OWN, SHARED, SHARING
from autopeft.models.attach import attach, trainable
from autopeft.models.model_of_tasks import ModelOfTasks
from autopeft.models.weights_file import read_weights, write_weights
from autopeft.reporting.leaderboard import leaderboard
from autopeft.reporting.tasks_view import held_out, verdict
from autopeft.search import several_winner, single_tasks
from autopeft.search.single_tasks import singles
from autopeft.study.file import StudySpec
from autopeft.study.record import Result
from autopeft.study.sections import SearchSection
from autopeft.study.task_scores import TaskScore, facts_in, scores_in
from autopeft.tasks.several import SeveralTasks, as_objects, stacked
from autopeft.tasks.study_check import mistakes_in
from autopeft.tracking.address import sqlite_uri
from autopeft.training.batch_plan import Execution
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.initial_values import initial_values
from autopeft.training.learner import Learner, evaluate
from autopeft.training.mixture import scheduled, shares
from tests.conftest import announcing, autopeft_here, few, tiny_rows
from tests.search.tasks_study import STUDY, TASKS, write
from tests.search.test_run import edit, run_study, store

NAMES = ["tone", "size", "parts"]

EVERY = ["adapter", "bitfit", "dora", "ia3", "lora", "mixed", "prefix_tuning", "vera"]


@pytest.fixture(scope="module")
def problem(tmp_path_factory, tiny_model) -> Problem:
    """The problem of the tiny study of three tasks, with every method that supports all of them."""
    study = write(tmp_path_factory.mktemp("several"), tiny_model)
    edit(study, ('methods = ["lora"]', 'exclude = ["adalora"]'))
    found, _ = made_ready(StudySpec.from_file(study), discover())
    assert isinstance(found.task, SeveralTasks)
    found.task.references.update(dict.fromkeys(NAMES, 0.0))
    return found


def of(problem: Problem, method: str, sharing: str, **params) -> ModelOfTasks:
    """A method's default on all tasks, shared in that way."""
    found = candidate(problem, method, sharing, **params)
    model = attach(problem.base, found.method, found.params, seed=problem.spec.seed)
    assert isinstance(model, ModelOfTasks)
    return model


def candidate(problem: Problem, method: str, sharing: str, **params):
    default = problem.space[method].default()
    return replace(default, params={**default.params, SHARING: sharing, **params})


def addon(model: ModelOfTasks, task: str, problem: Problem) -> dict[str, torch.nn.Parameter]:
    """The trained parameters of a task's model without those of its head."""
    heads = problem.parts[task].base.spec.head
    own = trainable(model.of(task))
    return {name: one for name, one in own.items() if not any(f".{head}." in f".{name}" for head in heads)}


# What is shared.


def test_tasks_share_the_base_models_tensors_and_keep_their_heads(problem):
    models = [part.base.module for part in problem.parts.values()]
    named = [dict(model.named_parameters()) for model in models]
    for name, tensor in named[0].items():
        same = [other[name] is tensor for other in named[1:] if name in other]
        assert all(same) or name.startswith("classifier"), name
        assert not any(same) or not name.startswith("classifier"), name
    held = sum(parameter.numel() for parameter in problem.base.module.parameters())
    heads = sum(part.base.head_params for part in problem.parts.values())
    alone = [sum(p.numel() for p in model.parameters()) - part.base.head_params
             for model, part in zip(models, problem.parts.values(), strict=True)]  # fmt: skip
    assert held == max(alone) + heads  # a model of tokens has no pooler


@pytest.mark.parametrize("method", few(EVERY, "lora", "bitfit"))
def test_an_add_on_is_shared_wholly_in_part_or_not(problem, method):
    heads = sum(part.base.head_params for part in problem.parts.values())
    counts = {}
    for sharing in problem.space[method].own[SHARING].choices:
        model = of(problem, method, sharing)
        addons = [addon(model, task, problem) for task in NAMES]
        assert addons[0]
        assert all(set(addons[0]) >= set(other) for other in addons), "a pooler may be missing, nothing else"
        counts[sharing] = len({id(one) for own in addons for one in own.values()})
        numbers = sum(parameter.numel() for parameter in trainable(model).values())
        once = max(sum(one.numel() for one in own.values()) for own in addons)
        if sharing == SHARED:
            assert counts[sharing] == len(addons[0])
            assert numbers == once + heads
        elif sharing == OWN:
            assert counts[sharing] == sum(map(len, addons))
    if BELOW in counts:
        assert counts[SHARED] < counts[BELOW] < counts[OWN]


def test_in_the_lower_half_alone_means_in_the_lower_half_of_the_layers(problem):
    model = of(problem, "lora", BELOW)
    depth = len(problem.base.spec.layers)
    first, second = (addon(model, task, problem) for task in NAMES[:2])
    for name, parameter in first.items():
        layer = next(place for place, path in enumerate(problem.base.spec.layers) if f".{path}." in f".{name}")
        assert (second[name] is parameter) == (layer < depth // 2), name


@pytest.mark.parametrize("method", few(EVERY, "lora"))
def test_each_tasks_model_is_saved_as_a_model_of_its_own(problem, method, tmp_path):
    model = of(problem, method, SHARED)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    inner = problem.space[method].method.inner
    params = {key: value for key, value in candidate(problem, method, SHARED).params.items() if key != SHARING}
    for name, part in problem.parts.items():
        (tmp_path / name).mkdir()
        write_weights(model.of(name), inner, tmp_path / name)
        loaded = read_weights(part.base, lambda: inner, params, tmp_path / name, seed=problem.spec.seed)
        rows = part.train.everything[:5]
        expected, found = (
            evaluate(one.eval(), part.train, [rows], part.task, part.device)[0] for one in (model.of(name), loaded)
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)


# What is trained.


def steps(model, problem: Problem, data, task, order: list[np.ndarray]) -> None:
    """Train on these rows, a step each, at a constant rate."""
    hyper = replace(problem.space["lora"].default().hyper, schedule="constant", warmup_ratio=0.0, weight_decay=0.0)
    learner = Learner(model, hyper, 8 * len(order), Execution(hyper.batch_size))
    learner.take_turn()
    model.eval()
    for rows in order:
        learner.step(learner.load(data, [rows], "cpu"), task, problem.device)


def test_with_an_add_on_each_a_task_learns_as_if_it_were_alone(problem):
    name, part = "size", problem.parts["size"]
    rows = [part.train.everything[:8], part.train.everything[8:16]]
    alone = attach(part.base, problem.space["lora"].method.inner,
                   {k: v for k, v in candidate(problem, "lora", OWN).params.items() if k != SHARING})  # fmt: skip
    steps(alone, problem, part.train, part.task, rows)

    def here(task: str, own: np.ndarray) -> np.ndarray:
        return problem.train.joined({task: own})

    both = of(problem, "lora", OWN)
    steps(both, problem, problem.train, problem.task,
          [here(name, rows[0]), here("tone", rows[0]), here("parts", rows[0]), here(name, rows[1])])  # fmt: skip
    for key, parameter in trainable(alone).items():
        torch.testing.assert_close(trainable(both.of(name))[key], parameter, atol=1e-6, rtol=1e-5)


def test_a_shared_add_on_learns_from_every_task_and_a_head_from_its_own(problem):
    model = of(problem, "lora", SHARED)
    before = {name: one.detach().clone() for name, one in trainable(model).items()}
    steps(model, problem, problem.train, problem.task, [problem.train.joined({"parts": np.arange(8)})])
    after = trainable(model)
    changed = {name for name, old in before.items() if not torch.equal(old, after[name])}
    heads = {task: {name for name in before if name.startswith(model.prefix(task)) and "classifier" in name}
             for task in NAMES}  # fmt: skip
    assert heads["parts"] <= changed
    assert not changed & (heads["tone"] | heads["size"])
    assert changed - heads["parts"]
    assert all(name.startswith(model.prefix("tone")) for name in changed - heads["parts"]), "it is the one of the first"


@pytest.mark.exhaustive
@pytest.mark.parametrize("sharing", [SHARED, OWN])
def test_first_values_from_rows_are_those_of_each_tasks_own_rows(problem, sharing):
    found = candidate(problem, "lora", sharing, init_lora_weights="eva")
    model = attach(problem.base, found.method, found.params, seed=problem.spec.seed)
    rows, setup = problem.folds[0].train, problem.setup(found)
    values = initial_values(model, found, problem.base.spec, setup, rows, 0, 8)
    tasks = {task for task in NAMES for name in values if name.startswith(model.prefix(task))}
    assert tasks == ({"tone"} if sharing == SHARED else {*NAMES})
    assert values.keys() <= trainable(model).keys()
    assert all(".lora_A." in name for name in values)


# What is drawn.


def test_a_temperature_of_one_draws_all_rows_alike_and_a_high_one_all_tasks():
    sizes = {"large": 900, "small": 100}
    assert shares(sizes, 100, 1.0, 0) in ({"large": 90, "small": 10}, {"large": 89, "small": 11})
    assert shares(sizes, 100, 2.0, 0) == {"large": 75, "small": 25}
    assert shares(sizes, 100, 1e9, 0) == {"large": 50, "small": 50}
    assert shares({"large": 10**6, "small": 1}, 10, 1.0, 0)["small"] == 1, "each task is trained in every epoch"
    assert sum(shares({"a": 7, "b": 5, "c": 3}, 11, 3.0, 0).values()) == 11


def test_with_fewer_batches_than_tasks_each_task_has_its_turn():
    epochs = [shares({"a": 70, "b": 50, "c": 3}, 2, 2.0, seed) for seed in range(60)]
    assert all(sum(one.values()) == 2 and max(one.values()) == 1 for one in epochs)
    times = {name: sum(one[name] for one in epochs) for name in "abc"}
    assert 0 < times["c"] < times["b"] <= times["a"] < 60


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_a_batch_has_rows_of_one_task_and_an_epoch_as_many_as_there_are(problem, temperature):
    task, rows = problem.task.trying({"temperature": temperature}), problem.folds[0].train
    count = -(-len(rows) // 8)
    batches = scheduled(task, problem.train, rows, count, 1, 2)
    assert len(batches) == count
    tasks = []
    for chosen in batches:
        name, tensors = task_of(problem.train.batch(rows[chosen]))  # which takes rows of one task only
        tasks.append(name)
        assert "labels" in tensors
        assert len(chosen) <= 8
    drawn = {name: len(part) for name, part in problem.train.parts.items()}
    assert {name: tasks.count(name) for name in NAMES} == shares(drawn, count, temperature, 2)
    assert abs(sum(map(len, batches)) - len(rows)) <= count
    other = scheduled(task, problem.train, problem.folds[1].train, count, 3, 2)
    assert [task_of(problem.train.batch(problem.folds[1].train[few]))[0] for few in other] == tasks


def test_rows_and_samples_are_numbered_over_all_tasks():
    def encoded(rows: int, row_of: list[int] | None = None) -> Encoded:
        count = rows if row_of is None else len(row_of)
        ids = Field(np.arange(2 * count), np.arange(0, 2 * count + 1, 2), mask="attention_mask")
        return Encoded({"input_ids": ids}, np.arange(rows) * 10, axis="input_ids",
                       row_of=None if row_of is None else np.array(row_of))  # fmt: skip

    both = RowsOfTasks.of({"plain": encoded(3), "long": encoded(2, [0, 0, 1])})
    assert len(both) == 6
    assert both.truths.tolist() == [0, 1, 2, 3, 4]
    assert both.samples_of(np.array([1, 3])).tolist() == [1, 3, 4]
    assert both.rows_of(np.array([0, 3, 4, 5])).tolist() == [0, 3, 4]
    assert [(name, own.tolist()) for name, _, own in both.split(np.array([2, 5]))] == [("plain", [2]), ("long", [2])]
    assert both.batch([3, 4]).keys() == {"long/input_ids", "long/attention_mask"}
    with pytest.raises(ValueError, match="unpack"):
        both.batch([0, 3])


def test_answers_of_different_forms_come_back_as_they_were():
    answers = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(stacked(as_objects(answers)), answers)
    np.testing.assert_array_equal(stacked(as_objects(np.array([1.5, 2.5]))), [1.5, 2.5])
    joined = stacked(np.concatenate([as_objects(np.ones((1, 2))), as_objects(np.ones((1, 3)))]))
    np.testing.assert_array_equal(joined, [[1, 1, -1], [1, 1, 1]])


# What is scored.


def test_a_trial_keeps_each_tasks_scores_and_its_score_is_the_mean_gain(problem):
    found = candidate(problem, "lora", SHARED)
    problem.task.references.update(tone=0.25, size=-0.5, parts=0.125)
    outcome = run_trial(problem, found, lambda rung: None)
    problem.task.references.update(dict.fromkeys(NAMES, 0.0))
    assert outcome.state == "COMPLETE", outcome.reason
    scores = scores_in(outcome.facts)
    assert set(scores) == set(NAMES)
    assert outcome.score == pytest.approx(np.mean([np.mean(one) for one in scores.values()]) - (0.25 - 0.5 + 0.125) / 3)
    for fold in range(2):
        gain = np.mean([scores[name][fold] for name in NAMES]) - (0.25 - 0.5 + 0.125) / 3
        assert outcome.rungs[-1].scores[fold] == pytest.approx(gain)


def test_a_fold_has_collapsed_if_every_task_answers_alike(problem):
    task, rows = problem.task, problem.folds[0].validation
    rows = problem.train.truths[problem.train.rows_of(rows)]

    def answers(alike: set[str]) -> np.ndarray:
        made = np.empty(len(rows), object)
        for name, places, own in problem.train.split_rows(rows):
            truths = problem.train.parts[name].truths[own]
            if name == "tone":
                found = np.eye(3, dtype=np.float32)[truths * (name not in alike)]
            elif name == "size":
                found = np.asarray(truths, np.float32) * (name not in alike)
            else:  # no entity in any row
                found = np.zeros((len(own), 5, 2), np.float32)
            made[places] = as_objects(found)
        return made

    assert task.one_answer(answers({"tone", "size"}), rows) is True
    assert task.one_answer(answers({"tone"}), rows) is False
    assert task.one_answer(answers(set()), rows) is False


@pytest.mark.parametrize("sharing", [SHARED, pytest.param(OWN, marks=pytest.mark.exhaustive)])
def test_an_interrupted_trial_goes_on_as_if_nothing_had_happened(problem, sharing, tmp_path):
    found = candidate(problem, "lora", sharing)
    whole = run_trial(problem, found, lambda rung: None)

    def at_the_first_rung(rung):
        raise KeyboardInterrupt

    checkpoint = Checkpoint.of(tmp_path, found.flat)
    with pytest.raises(KeyboardInterrupt):
        run_trial(problem, found, at_the_first_rung, checkpoint)
    again = run_trial(problem, found, lambda rung: None, checkpoint)
    assert again.rungs == whole.rungs
    assert again.facts == whole.facts


@pytest.mark.parametrize("sharing", few([SHARED, OWN, BELOW], OWN))
def test_the_predicted_memory_is_that_of_the_largest_step_with_all_add_ons(problem, sharing):
    found = candidate(problem, "lora", sharing)
    usage = problem.cost_estimator(found)
    held = sum(one.numel() for one in trainable(of(problem, "lora", sharing)).values())
    assert usage.trainable_params == held
    measured = run_trial(problem, found, lambda rung: None).measured_memory
    # The first step, which is measured, makes the moments of one task's parameters only.
    assert measured <= usage.memory.peak <= measured + 8 * held


def test_fresh_folds_are_those_of_every_task(problem):
    fresh = FreshFolds(problem)
    for number in fresh.first(4):
        fold = fresh[number]
        assert not {*fold.train} & {*fold.validation}
        for side in (fold.train, fold.validation):
            assert [name for name, _, _ in problem.train.split(side)] == NAMES


def task_score(folds: tuple[float, ...]) -> TaskScore:
    return TaskScore("regression", "r2", 0.5, 0.5, "lora", 0.0, "mean", folds, (0.5, 0.6, 0.7))


def test_negative_transfer_is_named():
    tasks = {"worse": task_score((0.4, 0.5, 0.59)), "noisy": task_score((0.3, 0.7, 0.75))}
    told = verdict(tasks)
    assert "Negative transfer" in told
    assert "worse (-0.1033 ± 0.0033)" in told
    assert "noisy" not in told
    assert "No task is worse" in verdict({"noisy": tasks["noisy"]})


def test_facts_of_a_record_are_told_apart():
    facts = {"a/score/1": 0.5, "a/score/0": 0.25, "a-b/score/0": 1.0, "a/fact/threshold": 0.4, "other": "x"}
    assert scores_in(facts) == {"a": (0.25, 0.5), "a-b": (1.0,)}
    assert facts_in(facts, "a") == {"threshold": 0.4}


def test_a_timeout_ends_the_training_of_a_task_alone_at_a_rung_from_which_it_goes_on(tmp_path, tiny_model):
    problem, _ = made_ready(StudySpec.from_file(write(tmp_path, tiny_model)), discover())
    study, rungs = optuna.create_study(direction="maximize"), []
    announcer = announcing(problem.spec.output)
    with pytest.raises(StudyError, match=r'timeout was reached while the task "tone" was trained alone.*to go on'):
        single_tasks.train(problem, study, announcer, lambda: rungs.append(1), lambda: True)
    assert len(rungs) == 1
    assert singles(study.user_attrs) == {}
    part = problem.parts["tone"]
    assert Checkpoint.of(part.spec.output, single_tasks.default_of(part).flat).even(2)
    single_tasks.train(problem, study, announcer, lambda: None)
    assert [*singles(study.user_attrs)] == [*problem.task.references] == NAMES
    assert not part.spec.output.exists()


# From a study file to answers.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model) -> tuple[Path, dict]:
    """A study of three tasks at its end, and its result."""
    study = write(tmp_path_factory.mktemp("finished"), tiny_model)
    edit(study, ("race = 0", 'race = 2\npruner = "none"'), ("trials = 4", "trials = 2"))
    return study, run_study(study)


def test_a_study_of_several_tasks_ends_with_a_winner_for_each(finished):
    _, result = finished
    test = result["test"]
    assert set(test["tasks"]) == set(NAMES)
    gains = [task["score"] - task["single"] for task in test["tasks"].values()]
    assert test["winner"] == pytest.approx(np.mean(gains))
    assert (test["baseline"], test["baseline_name"]) == (0.0, "single-task defaults")
    best = result["best"]
    scores = scores_in(best["facts"])
    singles = {name: task["single_folds"] for name, task in test["tasks"].items()}
    expected = np.mean([np.mean(scores[name]) - np.mean(singles[name]) for name in NAMES])
    assert best["score"] == pytest.approx(expected)
    assert {"lora.sharing", "lora.temperature"} <= set(best["params"])


def test_each_tasks_winner_answers_as_it_was_scored(finished):
    study, result = finished
    output = study.parent / "outputs" / "several"
    for name, column in zip(NAMES, ("text", "text", "tokens"), strict=True):
        winner = api.load(output / "winner", task=name)
        assert winner.evidence.test_score == pytest.approx(result["test"]["tasks"][name]["score"])
        assert winner.evidence.fold_scores == scores_in(result["best"]["facts"])[name]
        assert winner.evidence.refit == result["test"]["notes"].get("winner", "")
        saved = load_file(output / "winner" / name / "adapter_model.safetensors")
        assert winner.evidence.trained_params == sum(map(torch.numel, saved.values()))
        cells = [["w1", "w2"], ["w3"]] if column == "tokens" else ["w1 w2", "w3"]
        assert len(winner.predict(pd.DataFrame({column: cells}))) == 2
    truths = pd.read_csv(output / "test_predictions_tone.csv")
    assert len(truths) == 12


def test_the_command_line_asks_for_the_task(finished):
    study, _ = finished
    done = autopeft_here("predict", "study.toml", "--task", "size", "--text", "w1 w2", cwd=study.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("text,value\nw1 w2,")
    missing = autopeft_here("predict", "study.toml", "--text", "w1", cwd=study.parent)
    assert "(tone, size, parts)" in missing.stderr
    unknown = autopeft_here("predict", "study.toml", "--task", "sizes", "--text", "w1", cwd=study.parent)
    assert 'did you mean "size"' in unknown.stderr
    made = autopeft_here("export", "study.toml", "--task", "tone", "--format", "peft", "--to", "made", cwd=study.parent)
    assert made.returncode == 0, made.stderr
    assert (study.parent / "made" / "adapter_config.json").is_file()
    inside = autopeft_here("status", "outputs/several/winner/tone", cwd=study.parent)
    assert "several is finished" in inside.stdout


def test_a_finished_study_has_nothing_to_do(finished):
    study, result = finished
    done = autopeft_here("run", "study.toml", cwd=study.parent)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert json.loads((study.parent / "outputs" / "several" / "result.json").read_text()) == result


def test_tables_and_mlflow_have_each_tasks_score(finished):
    study, result = finished
    parents, trials = store(study.parent / "outputs" / "several")
    tasks = result["test"]["tasks"]
    for name in NAMES:
        assert parents[0].data.metrics[f"test_{name}"] == pytest.approx(tasks[name]["score"])
        assert parents[0].data.metrics[f"test_{name}_alone"] == pytest.approx(tasks[name]["single"])
    complete = [run for run in trials if run.data.tags["state"] == "COMPLETE"]
    assert all(f"score_{name}" in run.data.metrics for run in complete for name in NAMES)
    report = autopeft_here("report", "study.toml", cwd=study.parent)
    for part in ("Each task in cross-validation", "each task alone", "The tasks on their held-out rows"):
        assert part in report.stdout
    shown = io.StringIO()
    Console(file=shown, width=300).print(leaderboard(Result.read(result).records, "gain"))
    (header,) = (line for line in shown.getvalue().splitlines() if line.split()[:1] == ["rank"])
    assert header.split()[2:6] == ["score", *NAMES]
    registered = MlflowClient(sqlite_uri(study.parent / "outputs" / "several" / "mlflow.db")).search_registered_models()
    assert {model.name for model in registered} == {f"several-{name}" for name in NAMES}


def test_other_tasks_are_another_study(finished):
    study, _ = finished
    text = study.read_text()
    edit(study, ('metric = "r2"', 'metric = "spearman"'))
    done = autopeft_here("run", "study.toml", cwd=study.parent)
    study.write_text(text)
    assert done.returncode == 2
    assert "began with other settings: tasks" in done.stderr


def test_a_task_that_cannot_be_trained_alone_again_is_no_methods_fault(finished, tmp_path, monkeypatch):
    study = shutil.copytree(finished[0].parent, tmp_path / "again", symlinks=True) / "study.toml"
    shutil.rmtree(study.parent / "outputs" / "several" / "winner")
    plain = several_winner.score_default

    def failing(part, *others):
        return "its default failed: no memory" if part.task.kind == "regression" else plain(part, *others)

    monkeypatch.setattr(several_winner, "score_default", failing)
    said = autopeft_here("run", "study.toml", cwd=study.parent)
    assert (said.returncode, "cannot be the winner" in said.stderr) == (1, False)
    assert 'the task "size" could not be trained alone again, with which the winner is compared' in said.stderr
    monkeypatch.undo()
    assert run_study(study)["best"]["number"] == finished[1]["best"]["number"]


def test_what_is_said_of_the_training_of_a_task_alone_stands_in_the_report():
    score = TaskScore("regression", "r2", 0.5, 0.4, "lora", 0.0, "mean", (0.5, 0.6), (0.4, 0.5))
    section = held_out({"size": score}, {"size alone": "the refit collapsed", "winner": "of the winner"})
    assert section.text.endswith("size alone: the refit collapsed.")


# What does not combine.

TASK = {"kind": "regression", "data": {"train": "x"}}
WRONG = {
    "one": ({"tasks": [{"name": "a", **TASK}]}, "at least 2 entries"),
    "task": ({"task": {"kind": "regression"}}, "`tasks` and \\[task\\] exclude each other"),
    "data": ({"data": {"train": "x"}}, "`tasks` and \\[data\\] exclude each other"),
    "candidates": ({"model": {"candidates": ["a", "b"]}}, "`candidates` in \\[model\\] does not go with"),
    "metric": ({"validation": {"metric": "f1"}}, "set `metric` in each of \\[\\[tasks\\]\\]"),
    "form": ({"winner": {"form": "ensemble"}}, "`form` in \\[winner\\] does not go with"),
    "drop_layers": ({"winner": {"drop_layers": "auto"}}, "`drop_layers` in \\[winner\\] does not go with"),
    "workers": ({"search": {"workers": 2}}, "`workers` in \\[search\\] does not go with"),
    "devices": ({"search": {"devices": [0, 1]}}, "`devices` in \\[search\\] with more than one GPU does not go with"),
    "backend": ({"search": {"backend": "ray"}}, "`backend` in \\[search\\] does not go with"),
    "packing": ({"validation": {"packing": "on"}}, "`packing` in \\[validation\\] does not go with"),
    "warm_start": ({"search": {"warm_start": "x"}}, "`warm_start` in \\[search\\] does not go with"),
    "quantization": ({"model": {"name_or_path": "m", "quantization": "8bit"}}, "`quantization` in \\[model\\] does"),
    "metric's name": ({"tasks": [{"name": n, **TASK} for n in ("tone", "score")]}, 'must not be "score"'),
    "other's name": ({"tasks": [{"name": n, **TASK} for n in ("tone", "tone_alone")]}, 'must not be "tone_alone"'),
    "twice": ({"tasks": [{"name": "a", **TASK}] * 2}, '"a" comes twice'),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_combine_is_refused_with_advice(name):
    own, message = WRONG[name]
    tasks = [{"name": "a", **TASK}, {"name": "b", **TASK}]
    with pytest.raises(SpecError, match=message):
        StudySpec.from_mapping({"name": "x", "model": {"name_or_path": "m"}, "tasks": tasks, **own})


def test_several_tasks_have_one_worker_with_the_whole_budget(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16))
    study = write(tmp_path, tiny_model)
    edit(study, ("race = 0", 'race = 0\nworkers = "auto"\n[budget]\nmax_gpu_memory = "8 GiB"'))
    problem, _ = made_ready(StudySpec.from_file(study), discover())
    assert (problem.workers, problem.budget.max_gpu_memory) == (1, 8 * 2**30)
    several = replace(problem, spec=problem.spec.model_copy(update={"search": SearchSection(cohort=4)}))
    with pytest.raises(SpecError, match=r"`cohort` in \[search\] must be 1 if the study has `\[\[tasks\]\]`"):
        cohort_choice.require(several)


def test_what_one_method_cannot_share_leaves_it_out_and_not_the_others(tmp_path, tiny_model):
    study = write(tmp_path, tiny_model, STUDY[: STUDY.rindex("[[tasks]]")])
    edit(study, ('methods = ["lora"]', 'exclude = ["adalora"]\nsharing = "shared_below"'))
    problem, _ = made_ready(StudySpec.from_file(study), discover())
    assert problem.refused["prompt_tuning"].startswith("its add-on cannot be shared in the lower layers only")
    assert "lora" in problem.space
    edit(study, ('"shared_below"', '["own", "shared_below"]'))
    problem, _ = made_ready(StudySpec.from_file(study), discover())
    assert problem.space["prompt_tuning"].own[SHARING].choices == ("own",)
    assert problem.space["lora"].own[SHARING].choices == ("own", "shared_below")


def test_a_temperature_below_one_is_refused_before_anything_is_trained(tmp_path, tiny_model):
    study = write(tmp_path, tiny_model)
    edit(study, ('methods = ["lora"]', 'methods = ["lora"]\ntemperature = 0.001'))
    with pytest.raises(SpecError, match="temperature"):
        made_ready(StudySpec.from_file(study), discover())


def test_a_method_with_a_training_callback_is_refused(tmp_path, tiny_model):
    study = write(tmp_path, tiny_model)
    edit(study, ('methods = ["lora"]', 'methods = ["lora", "adalora"]'))
    with pytest.raises(UserInputError, match="adalora: it has a training callback"):
        made_ready(StudySpec.from_file(study), discover())


@pytest.mark.parametrize(
    ("kind", "reason"), [("causal-lm", "writes texts"), ("image-text-matching", "compares the rows")]
)
def test_a_task_that_needs_a_study_of_its_own_is_refused_at_once(tmp_path, tiny_model, kind, reason):
    study = write(tmp_path, tiny_model)
    edit(study, ('kind = "regression"', f'kind = "{kind}"'), ('metric = "r2"\n', ""))
    found = mistakes_in(StudySpec.from_file(study), discover())
    assert any(one.startswith('the task "size": `[[tasks]]` are learnt') and reason in one for one in found)


def test_what_is_searched_can_be_fixed_for_all_methods(tmp_path, tiny_model):
    study = write(tmp_path, tiny_model)
    edit(study, ("race = 0", 'race = 0\nsharing = "own"\ntemperature = [1, 3]'))
    found, _ = made_ready(StudySpec.from_file(study), discover())
    part = found.space["lora"]
    assert part.own[SHARING].choices == (OWN,)
    assert (part.task["temperature"].low, part.task["temperature"].high) == (1, 3)
    edit(study, ('"own"', '"apart"'))
    with pytest.raises(SpecError, match="sharing"):
        made_ready(StudySpec.from_file(study), discover())


def test_mistakes_name_the_task(tmp_path, tiny_model):
    study = write(tmp_path, tiny_model, STUDY.replace(TASKS, TASKS.replace('label = "size"', 'label = "sizes"')))
    done = autopeft_here("run", "study.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert 'the task "size"' in done.stderr
    assert study.is_file()
    assert len(tiny_rows()) == 60
