"""Where a study's trials are kept: a journal, or a database that it shares with others and that others read."""

import json
import os
import shutil
from dataclasses import asdict

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.event import listen

from autopeft.common.exceptions import SpecError, StoreError
from autopeft.execution.outcome import Outcome
from autopeft.models.digest import COMMIT
from autopeft.search.recovery import recover
from autopeft.search.resume import DIGEST, GIVEN, as_begun
from autopeft.search.trial import record_of
from autopeft.search.warm_start import _best_so_far
from autopeft.study.archive import INTERRUPTED, open_archive
from autopeft.study.file import StudySpec
from autopeft.study.folder import DATABASE, JOURNAL
from autopeft.study.place import place_of
from autopeft.study.record import RECORD
from autopeft.study.states import COMPLETE
from autopeft.study.storage import StudyStorage, open_study
from autopeft.training.rungs import Rung
from tests.postgres import needs_postgres, server

QUEUED = {"method": "lora", "lora.r": 8}


@pytest.fixture(scope="module")
def postgres():
    with server() as one:
        yield one


DATABASES = ["sqlite", pytest.param("postgres", marks=needs_postgres)]


def address(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared with others.db"
    return request.getfixturevalue("postgres").url(f"t{abs(hash(tmp_path))}")


@pytest.fixture(params=DATABASES)
def url(request, tmp_path):
    """The address of an empty database."""
    return address(request, tmp_path)


@pytest.fixture(params=["journal", *DATABASES])
def store(request, tmp_path):
    """The same, or None for a journal."""
    return None if request.param == "journal" else address(request, tmp_path)


def begun(output, url=None, name="one"):
    output.mkdir(exist_ok=True)
    storage = StudyStorage(output, url)
    return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)


def started(study):
    """A trial that was kept as it started, and has reached a rung."""
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0.001, 1, log=True)})
    trial.set_constraint("max_trainable_params", -1.0)
    study._storage.keep(study.study_name, trial.number)
    trial.report(0.3, 1)
    return trial


def ends(study, trial, score):
    """It reaches another one, and ends as a search ends it."""
    trial.report(score, 2)
    rungs = (Rung(1, 1.0, (score,), 0.7),)
    record = record_of(trial.number, "lora", QUEUED, 1, None, Outcome(COMPLETE, rungs=rungs))
    with study._storage.together():
        trial.set_constraint("max_trial_seconds", -2.0)
        trial.set_user_attr(RECORD, asdict(record))
        study.tell(trial, score)


def trained(study, score=0.5):
    ends(study, started(study), score)


def refused(study):
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0.001, 1, log=True)})
    trial.set_constraint("max_trainable_params", 3.0)
    study.tell(trial, state=TrialState.PRUNED)


def seen(trials):
    """What there is of trials, as JSON has it."""
    parts = [
        (t.number, t.state.name, t.values, t.params, t.intermediate_values, t.user_attrs, t.system_attrs)
        for t in trials
    ]
    return json.loads(json.dumps(parts))


def test_others_read_from_the_database_what_the_study_knows(tmp_path, url):
    study = begun(tmp_path / "out", url)
    trained(study)
    refused(study)
    study.enqueue_trial(QUEUED)
    there = optuna.load_study(study_name="one", storage=url)
    trials = there.get_trials()
    dashboards = [trial.system_attrs.pop("constraints", []) for trial in trials]
    assert dashboards == [[-1.0, -2.0], [3.0], []]
    assert [trial.constraints for trial in trials] == [trial.constraints for trial in study.trials]
    assert seen(trials) == seen(study.trials)
    assert there.best_value == 0.5
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_what_a_trials_end_changes_is_written_at_once_or_not_at_all(tmp_path, store):
    output = tmp_path / "out"
    study = begun(output, store)
    ended, killed = started(study), started(study)
    before = seen(study.trials)
    with study._storage.together():
        ended.set_user_attr(RECORD, {"score": 0.5})
        ended.set_constraint("max_trial_seconds", -2.0)
        assert [trial.user_attrs for trial in open_study(output).trials] == [{}, {}]
        study.tell(ended, 0.5)

    def interrupted():
        with study._storage.together():
            killed.set_user_attr(RECORD, {"score": 0.6})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    trials = open_study(output).trials
    assert [trial.system_attrs.pop("constraints") for trial in trials] == [[-1.0, -2.0], [-1.0]]
    assert seen(trials)[0] == seen(study.trials)[0]
    assert seen(trials)[1] == before[1]
    last = study.ask()
    with study._storage.together():  # one that was refused is written whole
        last.set_constraint("max_trainable_params", 3.0)
        study.tell(last, state=TrialState.PRUNED)
    assert [trial.state.name for trial in open_study(output).trials] == ["COMPLETE", "RUNNING", "PRUNED"]


def test_a_trial_takes_few_statements_and_no_more_of_them_among_many_trials(tmp_path, url):
    study = begun(tmp_path / "out", url)
    told, each = [], []
    listen(study._storage._there.engine, "before_cursor_execute", lambda *call: told.append(call[2]))
    for _ in range(40):
        told.clear()
        trained(study)
        each.append(len(told))
    assert {*each} == {each[0]}
    assert each[0] <= 25, told


def test_a_trial_in_the_journal_waits_for_the_disk_as_it_starts_and_as_it_ends(tmp_path, monkeypatch):
    study, synced, fsync = begun(tmp_path / "out"), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), fsync(file)))
    trial = started(study)
    assert open_study(tmp_path / "out").trials[0].intermediate_values == {1: 0.3}
    assert len(synced) == 1
    ends(study, trial, 0.5)
    assert len(synced) == 2


def test_the_next_start_has_the_same_trials_and_runs_again_what_had_not_ended(tmp_path, url):
    study = begun(tmp_path / "out", url)
    trained(study)
    refused(study)
    study.enqueue_trial(QUEUED)
    before = seen(study.trials)
    study = begun(tmp_path / "out", url)
    assert seen(study.trials) == before
    study.ask()  # the queued one starts, and the process is killed
    study = begun(tmp_path / "out", url)
    recover(study)
    assert [t.state for t in study.trials[1:]] == [TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING]
    assert seen(begun(tmp_path / "out", url).trials) == seen(study.trials)


def test_the_commands_that_read_a_study_find_it_in_the_database(tmp_path, url):
    study = begun(tmp_path / "out", url)
    study.set_user_attr(GIVEN, {"tracking": {"uri": "sqlite:///m.db"}, "model": {}})
    trained(study)
    found = open_archive(tmp_path / "out")
    assert (found.name, found.state, [one.score for one in found.ended]) == ("one", INTERRUPTED, [0.5])
    assert place_of(tmp_path / "out").tracking_uri == "sqlite:///m.db"
    assert _best_so_far(tmp_path / "out")[0] == "lora"


def test_several_studies_share_a_database_and_none_takes_anothers(tmp_path, url):
    for name in ("one", "two"):
        trained(begun(tmp_path / name, url, name))
    assert [len(begun(tmp_path / name, url, name).trials) for name in ("one", "two")] == [1, 1]
    with pytest.raises(SpecError, match='already holds a study "one" that belongs to another output folder'):
        begun(tmp_path / "third", url, "one")
    assert not (tmp_path / "third" / DATABASE).exists()
    trained(begun(tmp_path / "one", url, "one"))
    assert len(open_study(tmp_path / "one").trials) == 2


def test_a_copy_of_a_folder_is_found_out_before_it_mixes_two_searches(tmp_path, url):
    first = begun(tmp_path / "out", url)
    trained(first)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    second = begun(tmp_path / "copy", url)
    trained(first)
    with pytest.raises(StoreError, match="one process at a time may run a study, but another one adds trials"):
        trained(second)


def test_a_study_goes_on_where_it_was_begun_or_not_at_all(tmp_path, url):
    trained(begun(tmp_path / "there", url))
    trained(begun(tmp_path / "here"))
    with pytest.raises(SpecError, match=r'was begun with `storage = "(sqlite|postgresql):'):
        begun(tmp_path / "there")
    with pytest.raises(SpecError, match='was begun with `storage = "journal"`'):
        begun(tmp_path / "here", url)
    with pytest.raises(SpecError, match=r"was begun in the database .* but sqlite:.*other\.db does not hold it"):
        begun(tmp_path / "there", f"sqlite:///{tmp_path}/other.db")
    assert len(begun(tmp_path / "there", url).trials) == 1


def test_a_study_whose_database_was_moved_goes_on_where_its_file_says_it_is_now(tmp_path):
    old, new = (f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "new"))
    study = begun(tmp_path / "out", old)
    study.set_user_attr(GIVEN, {"model": {"name_or_path": "org/model"}, DIGEST: f"{COMMIT}{'a' * 40}"})
    trained(study)
    optuna.copy_study(from_study_name="one", from_storage=old, to_storage=new)
    for path in tmp_path.glob("old.db*"):
        path.unlink()
    tables = {
        "model": {"name_or_path": "org/model", "dtype": "float32"},
        "task": {"kind": "text-classification"},
        "data": {"train": "rows.csv"},
        "tracking": {"storage": new},
    }
    spec = StudySpec.from_mapping({"name": "one", "output": str(tmp_path / "out"), **tables})
    assert as_begun(spec).model.revision == "a" * 40
    assert len(begun(tmp_path / "out", new).trials) == len(open_study(tmp_path / "out").trials) == 1


def test_a_process_killed_before_the_database_knew_whose_study_it_is_leaves_nobody_locked_out(tmp_path, url):
    begun(tmp_path / "out", url)
    entry = json.loads((tmp_path / "out" / DATABASE).read_text())
    owned = optuna.load_study(study_name="one", storage=url)
    owned._storage.delete_study(owned._study_id)
    trained(begun(tmp_path / "out", url))  # it was killed before it made the study
    assert len(begun(tmp_path / "out", url).trials) == 1
    optuna.delete_study(study_name="one", storage=url)
    optuna.create_study(study_name="one", storage=url, direction="maximize")  # and now right after that
    trained(begun(tmp_path / "out", url))
    assert len(begun(tmp_path / "out", url).trials) == 1
    assert json.loads((tmp_path / "out" / DATABASE).read_text()) == entry
    optuna.delete_study(study_name="one", storage=url)
    assert len(begun(tmp_path / "out", url, "renamed").trials) == 0
    trained(begun(tmp_path / "out", url, "renamed"))  # what the folder notes is the name that it began with after all
    assert len(open_study(tmp_path / "out").trials) == 1


def test_a_database_of_another_program_is_refused_in_a_sentence(tmp_path, url):
    from mlflow import MlflowClient

    MlflowClient(url, url).search_experiments()
    with pytest.raises(SpecError, match=r"another program's tables, such as MLflow's; give `storage` in .* of its own"):
        begun(tmp_path / "out", url)


@needs_postgres
def test_a_database_that_goes_away_ends_the_study_and_loses_nothing_that_ended(tmp_path):
    with server() as postgres:
        url = postgres.url("optuna")
        study = begun(tmp_path / "out", url)
        trained(study, 0.5)
        postgres.stop()
        with pytest.raises(StoreError, match=r"cannot be used: .*[Tt]hen run the same command again") as error:
            trained(study, 0.6)
        assert "one@" not in str(error.value)
        with pytest.raises(StoreError, match="cannot be used"):
            open_study(tmp_path / "out")
        with pytest.raises(StoreError, match="cannot be used"):
            begun(tmp_path / "out", url)
        postgres.start()
        study = begun(tmp_path / "out", url)
        recover(study)
        trained(study, 0.7)
        values = [t.value for t in optuna.load_study(study_name="one", storage=url).trials if t.value]
        assert values == [0.5, 0.7]


@needs_postgres
def test_a_connection_that_was_dropped_while_a_trial_trained_is_made_anew(tmp_path):
    with server() as postgres:
        study = begun(tmp_path / "out", postgres.url("optuna"))
        trained(study, 0.5)
        postgres.stop()
        postgres.start()
        trained(study, 0.6)
        assert [t.value for t in open_study(tmp_path / "out").trials] == [0.5, 0.6]


def test_a_database_without_its_driver_names_the_extra(tmp_path):
    with pytest.raises(SpecError, match=r"needs the driver .* For PostgreSQL run `pip install 'autopeft\[postgres\]'`"):
        begun(tmp_path / "out", "postgresql+pg8000://one@host/optuna")
