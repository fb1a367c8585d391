"""The race on fresh folds of a whole study: who won and how sure that is, everywhere a study tells of itself."""

import json
import shutil
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import create_trial

from autopeft.execution.folds import FreshFolds
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.reporting import main_sentences
from autopeft.search import racing
from autopeft.search.loop import Search
from autopeft.study.archive import open_archive
from autopeft.study.file import StudySpec
from autopeft.study.journal import open_journal
from autopeft.study.raced import RACE, Raced
from autopeft.study.record import RECORD, STOPPED_EARLY, TrialRecord, by_score, plain, ranked, records
from autopeft.study.storage import StudyStorage
from tests.conftest import HEAVY, announcing, autopeft_here, few, tiny_rows, write_tiny_study
from tests.search.test_choosing import model, study_file

__all__ = ["model"]

ROWS = 48
"""That are left to train on."""

ALLOWED = 3 * ROWS
"""Rows of a race as long as the search: three trials of one epoch, and of two folds each trains on half of the rows."""


def close(folder, model):
    """A study file of three trials that score nearly alike, with a race."""
    path = study_file(folder, model, 3, choose="")
    text = path.read_text().replace("epochs = 2", "epochs = 1\nrace = 1.0").replace('name = "chosen"', 'name = "raced"')
    text = text.replace("written_rows = 20", "written_rows = 0").replace("[1e-3, 0.05]", "0.02")
    path.write_text(text.replace('pruner = "none"', 'pruner = "none"\nlora.r = 8\nlora.lora_alpha = 16'))
    return path


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory, model):
    """A finished study with a race, and what was said while it ran."""
    folder = tmp_path_factory.mktemp("raced")
    close(folder, model)
    done = autopeft_here("run", "study.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def opened(folder):
    output = folder / "outputs" / "raced"
    return optuna.load_study(study_name="raced", storage=open_journal(output))


def raced_of(folder):
    return Raced.read(opened(folder).user_attrs)


class Log:
    """Stands for the tracker where no store is asked."""

    def __init__(self):
        self.folds = []

    def log_fresh_fold(self, number, fold, score):
        self.folds.append((number, fold, score))


FOLDS = (-1.00, -1.10), (-1.03, -1.09), (-0.99, -1.12)
"""Scores of three candidates that nobody can tell apart."""


@pytest.fixture
def again(tmp_path, model):
    """A study whose search is over: the problem, the Optuna study, what is said, and the books."""
    return begun(tmp_path, model)


def begun(folder, model):
    problem = Problem.from_spec(StudySpec.from_file(close(folder, model)), discover())
    output = folder / "outputs" / "raced"
    problem = replace(problem, spec=problem.spec.model_copy(update={"output": output}))
    output.mkdir(parents=True)
    kept = optuna.create_study(study_name="raced", storage=StudyStorage(output), direction="maximize")
    kept.set_user_attr("given", problem.spec.to_dict())
    kept.set_user_attr(STOPPED_EARLY, "")
    default = problem.space["lora"].default().flat
    for number, folds in enumerate(FOLDS):
        params = {**default, "lora.lora_dropout": 0.1 * number}
        record = TrialRecord(number, f"lora {number}", "lora", "COMPLETE", "", float(np.mean(folds)), folds, (), 1,
                             100, 100, 1, 1, 1.0, epochs_trained=1.0, params=params)  # fmt: skip
        kept.add_trial(create_trial(value=record.score, user_attrs={RECORD: plain(record)}))
    said = []
    return problem, kept, said, racing.Books(kept, Log(), announcing(output, said), lambda: None, lambda: False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model):
    """The race of such a study that nothing interrupts."""
    problem, kept, _, books = begun(tmp_path_factory.mktemp("whole"), model)
    racing.race(problem, books, finished=False)
    raced = Raced.read(kept.user_attrs)
    assert len(raced.runs) == 3, "a pair, and one that caught up; its rows do not pay for two more"
    return raced


def test_the_race_chooses_the_winner_and_everybody_is_told_how_sure_that_is(study):
    import mlflow

    folder, said = study
    raced, output = raced_of(folder), folder / "outputs" / "raced"
    ruling = raced.ruling
    assert len(raced.runs) >= 2
    result = json.loads((output / "result.json").read_text())
    assert result["best"]["number"] == ruling.winner == ranked(records(opened(folder)))[0].number
    assert (result["race"], result["best"]["place"]) == (ruling.sentence, 1)
    words = " ".join(said.split())
    assert words.count(ruling.sentence) == 1, "as it is known"
    assert all(sentence in words for sentence in main_sentences(open_archive(output))), "at the end, in short"
    assert "race on fresh folds, with at most 144 training rows in all" in words
    assert ruling.sentence in " ".join((output / "winner" / "README.md").read_text().split())
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=folder).stdout)
    assert ruling.sentence in report["headline"]
    assert report["cost"]["seconds"]["race"] == raced.seconds > 0
    section = next(part for part in report["sections"] if part["title"] == "The race on fresh folds")
    assert section["table"]["rows"][0][0] == str(ruling.winner)
    assert json.loads(autopeft_here("status", "study.toml", "--json", cwd=folder).stdout)["race"] == ruling.sentence
    client = mlflow.MlflowClient(f"sqlite:///{output}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'raced'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["autopeft.role"] == "search"]
    assert ruling.sentence in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics.get("race_chance") == ruling.chance
    for run in (run for run in runs if run is not parent):
        number = int(run.data.tags["trial"])
        logged = client.get_metric_history(run.info.run_id, "fresh_fold")
        assert [(one.step - 1, one.value) for one in logged] == [r[1:] for r in raced.runs if r.number == number]
        assert run.data.metrics.get("expected_score") == ruling.expected.get(number)
        assert ("won by the score expected" in run.data.tags["reason"]) == (number == ruling.winner)


def test_a_race_keeps_to_its_rows(study):
    raced = raced_of(study[0])
    assert raced.rows == len(raced.runs) * 32 <= ALLOWED, "a fold of three trains on two thirds of the rows"


def test_a_finished_study_stays_so(study, tmp_path):
    shutil.copytree(study[0], tmp_path / "copy", symlinks=True)
    done = autopeft_here("run", "study.toml", cwd=tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert "Fresh fold" not in done.stdout
    assert "Refitting" not in done.stdout
    assert raced_of(tmp_path / "copy") == raced_of(study[0])


@pytest.mark.parametrize("stopped", few([1, 2], 1))
def test_an_interrupted_race_goes_on_to_the_same_end(whole, again, stopped):
    problem, kept, _, books = again
    asked = []

    def check():
        asked.append(len(Raced.read(kept.user_attrs).runs))
        if asked[-1] == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        racing.race(problem, racing.Books(kept, books.tracker, books.announcer, check, books.late), finished=False)
    half = Raced.read(kept.user_attrs)
    assert len(half.runs) == stopped
    assert half.ruling is None
    assert open_archive(problem.spec.output).state == "interrupted"
    racing.race(problem, books, finished=False)
    raced = Raced.read(kept.user_attrs)
    assert replace(raced, seconds=0.0) == replace(whole, seconds=0.0)
    assert books.tracker.folds == [tuple(run) for run in whole.runs], "no fold ran twice"


def test_a_finalist_that_fails_leaves_and_the_others_go_on(whole, again, monkeypatch):
    problem, kept, said, books = again
    number = whole.runs[0].number
    (record,) = [one for one in records(kept) if one.number == number]

    candidate = problem.space.parse(record.params)
    usual = type(candidate.method).callback

    def fails(self, model, params, spec):
        if params == candidate.params:
            raise RuntimeError("no callback")
        return usual(self, model, params, spec)

    monkeypatch.setattr(type(candidate.method), "callback", fails)
    racing.race(problem, books, finished=False)
    raced = Raced.read(kept.user_attrs)
    assert raced.left == {number: "RuntimeError: no callback"}
    assert f"Trial {number} is out of the race and cannot win: RuntimeError: no callback" in said
    assert number not in raced.finalists
    assert raced.ruling.winner != number
    assert ranked(records(kept))[-1].number == number


@pytest.mark.exhaustive
def test_where_the_time_is_up_the_race_ends_with_what_ran(again):
    problem, kept, _, books = again
    late = racing.Books(kept, books.tracker, books.announcer, books.check, lambda: len(books.tracker.folds) == 2)
    racing.race(problem, late, finished=False)
    raced = Raced.read(kept.user_attrs)
    assert len(raced.runs) == 2
    assert raced.ruling
    kept.set_user_attr(RACE, {})
    racing.race(problem, racing.Books(kept, books.tracker, books.announcer, books.check, lambda: True), finished=False)
    assert Raced.read(kept.user_attrs) is None, "nothing ran"


@pytest.mark.exhaustive
def test_more_trials_race_anew_and_use_what_ran(whole, again):
    problem, kept, _, books = again
    kept.set_user_attr(RACE, {**whole.kept(), "among": [0, 1]})
    assert all(one.place is None for one in records(kept)), "it does not hold for the trials of now"
    more = replace(problem, spec=problem.spec.model_copy(
        update={"search": problem.spec.search.model_copy(update={"race": 2.0})}
    ))  # fmt: skip
    racing.race(more, books, finished=True)
    raced = Raced.read(kept.user_attrs)
    assert raced.among == whole.among
    assert raced.runs[:3] == whole.runs
    assert len(raced.runs) == 3 + len(books.tracker.folds) > 3
    assert raced.ruling


def test_without_rows_for_a_pair_there_is_none_and_the_best_mean_wins(again):
    problem, kept, said, books = again
    few = problem.spec.search.model_copy(update={"race": 0.3})
    problem = replace(problem, spec=problem.spec.model_copy(update={"search": few}))
    racing.race(problem, books, finished=False)
    assert Raced.read(kept.user_attrs) is None
    assert len(said) == 1
    assert "`race` in [search] allows too few rows for one fold of two trials" in said[0]
    assert ranked(records(kept)) == by_score(records(kept))


def test_no_race_is_asked_for_and_the_search_has_all_of_the_time(again):
    problem, kept, said, books = again
    racing.race(problem, books, finished=True)
    assert not said, "a study that was finished without one stays so"
    parts = {}
    for share in (0.0, 1.0):
        search = problem.spec.search.model_copy(update={"race": share, "timeout": 100.0})
        problem = replace(problem, spec=problem.spec.model_copy(update={"search": search}))
        made = Search(problem, kept, None, None, None, None)
        parts[share] = made.end - made.deadline
        if not share:
            kept.set_user_attr(RACE, {**Raced((0, 1), (0, 1)).kept()})
            racing.race(problem, books, finished=False)
            assert Raced.read(kept.user_attrs) is None, "one that was begun is not asked for any more"
    assert parts == pytest.approx({0.0: 0.0, 1.0: 50.0})


def grouped(tmp_path, tiny_model, groups, folds):
    path = write_tiny_study(tmp_path, tiny_model)
    rows = tiny_rows()
    rows.assign(author=np.arange(len(rows)) % groups).to_csv(tmp_path / "rows.csv", index=False)
    rows.assign(text=rows["text"] + " w3 w3", author="another").to_csv(tmp_path / "test.csv", index=False)
    text = path.read_text().replace('train = "rows.csv"', 'train = "rows.csv"\ntest = "test.csv"\ngroup = "author"')
    path.write_text(text.replace("folds = 2", f"folds = {folds}"))
    return Problem.from_spec(StudySpec.from_file(path), discover())


def test_where_rows_can_be_split_in_one_way_only_there_is_none_and_it_is_said(tmp_path, tiny_model, again):
    (tmp_path / "groups").mkdir()
    assert FreshFolds(grouped(tmp_path / "groups", tiny_model, 3, 3)).first(1) == []
    problem, kept, said, books = again
    fresh = FreshFolds(problem)
    every = tuple(fresh[number] for number in fresh.first(60))  # as if there were no others
    racing.race(replace(problem, folds=every), books, finished=False)
    assert len(said) == 1
    assert said[0].startswith(
        "There is no race of the leaders, because the rows can be split into folds in only one way"
    )
    assert Raced.read(kept.user_attrs) is None


def test_fresh_folds_respect_groups_and_labels_and_are_not_those_of_the_search(tmp_path, tiny_model):
    problem = grouped(tmp_path, tiny_model, 12, 3)
    fresh = FreshFolds(problem)
    assert fresh.size == 3
    numbers = fresh.first(6)
    seen = {tuple(fold.validation) for fold in problem.folds}
    groups = problem.rows.train["group"].to_numpy()
    for number in numbers:
        fold = fresh[number]
        assert tuple(fold.validation) not in seen
        seen.add(tuple(fold.validation))
        assert {*fold.train, *fold.validation} == {*range(len(groups))}
        assert not {*groups[fold.train]} & {*groups[fold.validation]}
        labels = pd.Series(problem.train.truths[fold.validation]).value_counts()
        assert len(labels) == 3
    assert FreshFolds(problem).first(6) == numbers
    assert fresh.problem(numbers[0]).cost_estimator is problem.cost_estimator


def test_no_fresh_split_has_more_folds_than_a_label_has_rows(tiny_study, recwarn):
    table = tiny_rows()
    kept = table["label"].value_counts().index[0]
    common = pd.concat([table[table["label"] == kept]] * 30, ignore_index=True)
    common["text"] = [f"{text} {number}" for number, text in enumerate(common["text"])]
    rare = table[table["label"] != kept].groupby("label").head(5)
    pd.concat([common, rare]).to_csv(tiny_study.parent / "rows.csv", index=False)
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    assert len(problem.rows.train) >= 300
    least = problem.rows.train["label"].value_counts().min()
    fresh = FreshFolds(problem)
    assert fresh.size == least < 5
    for number in fresh.first(4):
        assert {*problem.train.truths[fresh[number].validation]} == {0, 1, 2}
    assert not [one for one in recwarn if "least populated" in str(one.message)]
