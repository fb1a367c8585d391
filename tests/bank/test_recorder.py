"""Cells are recorded as a study trains them, once, whoever records; and merged into the tables of the bank."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from cells import Bank
from curves import mapped, stops
from filelock import FileLock
from merge import merge
from pyarrow import parquet
from recorder import POINTS_PART, RUNS_PART
from schema import CONFIGS, ENSEMBLE, POINTS, RUNS, TASKS, read, rows
from stages import WSD, Cell

from autopeft.models.attach import attach
from autopeft.training.batch_plan import Execution
from autopeft.training.cross_validation import cross_validate
from autopeft.training.packing import pack


def cell(task: str, config, epochs: int = 2, **more) -> Cell:
    return Cell(task, "small", config, epochs, **more)


def part(recorder, of: Cell) -> tuple[list[dict], list[dict]]:
    """The runs and the points of a cell."""
    files = ((RUNS_PART, RUNS), (POINTS_PART, POINTS))
    return tuple(read(recorder.parts / f"{of.name}{end}", schema).to_pylist() for end, schema in files)


def folds_in(points: list[dict]) -> list[dict]:
    """The points of folds."""
    return [point for point in points if not point["run"].endswith(f".{ENSEMBLE}")]


def studied(recorder, of: Cell, *, packed: bool) -> list[tuple[float, tuple[float, ...]]]:
    """The epoch and the scores of each rung of the same candidate in a study."""
    problem = recorder.problem(of)
    candidate = of.config.candidate(problem.space, of.epochs)
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
    size, folds = candidate.hyper.batch_size, len(problem.folds)
    if packed:
        pack(model, folds, sites=bool(mapped(problem, candidate)))
    rungs = cross_validate(
        model,
        problem.setup(candidate),
        candidate.hyper,
        execution=Execution(size, folds=folds if packed else 1),
        make_callback=lambda: candidate.method.callback(model, candidate.params, problem.base.spec),
    )
    return [(rung.epoch, rung.scores) for rung in rungs]


@pytest.mark.parametrize(("method", "epochs", "packed"), [("lora", 2, True), ("adalora", 2, False)])
def test_scores_are_those_of_a_study_with_the_same_rows_and_seed(recorder, configs, method, epochs, packed):
    of = cell("labels", configs[method], epochs)
    assert recorder.record(of) is not None
    runs, points = part(recorder, of)
    assert [run["fold"] for run in runs] == [0, 1, 2, ENSEMBLE]
    for epoch, scores in studied(recorder, of, packed=packed):
        found = [point["val_score"] for point in folds_in(points) if point["epochs"] == epoch]
        assert found == pytest.approx(scores, abs=1e-6)


def test_a_part_says_what_was_trained_and_how_it_went(recorder, configs):
    of = cell("labels", configs["ia3"], 4)
    recorder.record(of)
    runs, points = part(recorder, of)
    assert {run["planned_steps"] for run in runs} == {4 * 7}  # 100 rows in batches of 16
    assert {(run["state"], run["schedule"], run["precision"], run["size"]) for run in runs} <= {
        (state, "linear", "float32", 100) for state in ("done", "collapsed")
    }
    own = [point for point in points if point["run"] == runs[0]["run"]]
    assert [point["steps"] for point in own] == [7, 14, 28]
    assert [point["rows"] for point in own] == [100, 200, 400]
    assert [point["test_score_a"] is not None for point in own] == [False, False, True]
    assert all(one["seconds"] < other["seconds"] for one, other in pairwise(own))
    assert all(0 < point["grad_norm"] <= 1.001 and point["weights"] == "raw" for point in folds_in(points))


@pytest.mark.parametrize("task", ["numbers", "tags", "sets"])
def test_every_kind_is_recorded_with_losses_and_both_halves(recorder, configs, task):
    of = cell(task, configs["bitfit"])
    recorder.record(of)
    runs, points = part(recorder, of)
    last = [point for point in folds_in(points) if point["epochs"] == of.epochs]
    assert len(last) == 3
    assert len(runs) == 3 + (task == "numbers"), "tags have no mean, and sets a threshold from the folds"
    for point in last:
        assert np.isfinite([point[name] for name in ("val_score", "val_loss", "train_loss", "test_loss")]).all()
        assert np.isfinite([point["test_score_a"], point["test_score_b"]]).all()
    assert (last[0]["val_brier"] is not None) == (task == "sets")
    assert (last[0]["val_largest_share"] is None) == (task == "numbers")


def test_a_cell_is_recorded_once_and_by_one_process(recorder, configs):
    of = cell("labels", configs["vera"], 1)
    with FileLock(recorder.parts.parent / "claims" / f"{of.name}.lock"):
        assert recorder.record(of) is None
    assert of.name not in recorder.recorded()
    assert recorder.record(of) is not None
    assert of.name in recorder.recorded()
    assert recorder.record(of) is None


def test_folds_that_diverge_are_told_one_by_one(recorder, configs):
    of = cell("labels", replace(configs["lora"], params={**configs["lora"].params, "learning_rate": 1e30}), 1)
    recorder.record(of)
    runs, _ = part(recorder, of)
    assert {run["state"] for run in runs} == {"diverged"}
    assert all("no longer a finite number" in run["reason"] for run in runs)
    for path in recorder.parts.glob(f"*{of.name}*"):
        path.unlink()  # its configuration is none of the bank's


def test_a_refit_sees_all_rows_and_has_test_scores_alone(recorder, configs):
    of = cell("labels", configs["bitfit"], refit=True)
    recorder.record(of)
    (run,), points = part(recorder, of)
    assert run["fold"] == -1
    assert points[-1]["rows"] == 2 * len(recorder.problem(of).train)
    assert points[-1]["val_score"] is None
    assert points[-1]["test_score_a"] is not None


def test_a_constant_trunk_has_averaged_and_cooled_points_and_goes_on_as_if_nothing_was(recorder, configs):
    of = cell("labels", configs["lora"], 8, schedule=WSD)
    recorder.record(of)
    runs, points = part(recorder, of)
    own = {(point["steps"], point["weights"]): point for point in points if point["run"] == runs[0]["run"]}
    assert {weights for _, weights in own} == {"raw", "ema", "cooled"}
    assert {steps for steps, weights in own if weights == "cooled"} == {7, 21, 28, 56}
    problem = recorder.problem(of)
    plain = of.config.candidate(problem.space, 8, schedule="constant")
    model = pack(attach(problem.base, plain.method, plain.params, seed=problem.spec.seed), 3)
    rungs = cross_validate(model, problem.setup(plain), plain.hyper, execution=Execution(16, folds=3))
    last = [*rungs][-1].scores
    assert [point["val_score"] for point in points if (point["steps"], point["weights"]) == (56, "raw")] == (
        pytest.approx(last, abs=0.1)  # dropout is drawn anew where an epoch was cut
    )


def test_the_tables_are_put_together_and_stay_as_they_are(recorder, configs):
    of = cell("labels", configs["prompt_tuning"])
    recorder.record(of)
    out = recorder.parts.parent
    first = merge(out)
    assert merge(out) == first
    tables = {name: parquet.read_table(out / f"{name}.parquet") for name in ("tasks", "runs", "points", "configs")}
    for name, schema in (("tasks", TASKS), ("runs", RUNS), ("points", POINTS), ("configs", CONFIGS)):
        assert tables[name].schema.names == schema.names
    runs, points = (tables[name].to_pandas() for name in ("runs", "points"))
    assert runs["run"].is_unique
    assert not points.duplicated(["run", "steps", "weights"]).any()
    assert {*points["run"]} <= {*runs["run"]}
    assert {*runs["task"]} <= {*tables["tasks"]["task"].to_pylist()}
    assert of.config.name in Bank.read(out).cell("labels", 100).config  # as replays read it
    file = parquet.ParquetFile(out / "runs.parquet")
    assert file.num_row_groups == len({(task, size) for task, size in zip(runs["task"], runs["size"], strict=True)})

    with np.load(out / "predictions" / "labels.small.npz") as kept:
        place = kept["cells"].tolist().index(of.name)
        right = kept["out_of_fold"][place].argmax(axis=-1) == kept["truths_train"]
        tested = kept["test"][kept["runs"].tolist().index(f"{of.name}.0")].argmax(axis=-1) == kept["truths_test"]
        answers = kept["test"][[kept["runs"].tolist().index(f"{of.name}.{fold}") for fold in range(3)]]
        truths = kept["truths_test"]
    own = points[points["run"].str.startswith(of.name) & (points["epochs"] == of.epochs)]
    together = own[own["run"] == f"{of.name}.{ENSEMBLE}"][["test_score_a", "test_score_b"]]
    assert together.to_numpy().mean() == pytest.approx(
        (answers.mean(axis=0).argmax(axis=-1) == truths).mean(), abs=0.01
    )
    assert right.mean() == pytest.approx(own["val_score"].mean(), abs=0.01)  # folds of 50 rows each
    assert tested.mean() == pytest.approx(own[["test_score_a", "test_score_b"]].iloc[0].mean(), abs=0.01)


def test_stops_are_a_studys_rungs_and_half_way_and_a_trunk_is_cut_on_the_way():
    assert [(stop.steps, stop.tested) for stop in stops(24, 7, 100, trunk=True)] == [
        (7, False), (14, False), (28, True), (56, True), (84, True), (112, False), (168, True)
    ]  # fmt: skip
    linear = stops(24, 7, 100, trunk=False)
    assert [stop.steps for stop in linear] == [7, 14, 28, 56, 84, 112, 168]
    assert [stop.tested for stop in linear] == [False] * 6 + [True]
    assert [stop.steps for stop in stops(4, 94, 1500, trunk=False)] == [94, 188, 376]


def test_a_column_that_the_schema_lacks_is_refused():
    with pytest.raises(ValueError, match="must have columns of the schema, but have colour"):
        rows(TASKS, [{"task": "one", "colour": "red"}])
