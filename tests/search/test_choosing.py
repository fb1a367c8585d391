"""The winner chosen by what the folds of the best candidates write for the rows that they validate."""

import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from autopeft.common.exceptions import SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.reporting import choice as choices
from autopeft.search import choosing, fold_models
from autopeft.study.archive import open_archive
from autopeft.study.choice import CHOICE, Choice
from autopeft.study.file import StudySpec
from autopeft.study.folder import CHECKPOINTS, RESULT
from autopeft.study.journal import open_journal
from autopeft.study.record import TrialRecord, by_score, ranked, records
from autopeft.study.storage import StudyStorage
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.learner import evaluate
from tests.conftest import DTYPE, autopeft_here
from tests.tasks.test_causal_lm import conversations, model, problem_of

__all__ = ["model"]

SHORTEST = """
def shortest(texts, references):
    # What the search does not look for, so that both scores differ.
    return [-float(len(text)) for text in texts]
"""


def study_file(folder, model, trials, choose='choose_by = "mine:shortest"'):
    pd.DataFrame({"messages": conversations(60)}).to_json(folder / "rows.jsonl", orient="records", lines=True)
    (folder / "mine.py").write_text(SHORTEST)
    (folder / "study.toml").write_text(
        f"""
name = "chosen"
[model]
name_or_path = "{model}"
dtype = "{DTYPE}"
[task]
kind = "causal-lm"
template = "plain"
max_new_tokens = 6
written_rows = 20
{choose}
[data]
train = "rows.jsonl"
[search]
methods = ["lora"]
trials = {trials}
references = false
epochs = 2
batch_size = 8
learning_rate = [1e-3, 0.05]
pruner = "none"
lora.target_modules = "all_linear"
[validation]
folds = 2
"""
    )
    return folder / "study.toml"


def run(folder):
    done = autopeft_here("run", "study.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def study(tmp_path_factory, model):
    """A finished study of four trials, and what was said while it ran."""
    folder = tmp_path_factory.mktemp("chosen")
    study_file(folder, model, 4)
    return folder, run(folder)


def records_of(folder):
    (found,) = open_journal(folder / "outputs" / "chosen").get_all_studies()
    return optuna.load_study(study_name=found.study_name, storage=open_journal(folder / "outputs" / "chosen"))


def test_the_best_of_three_by_what_they_wrote_wins(study):
    folder, said = study
    assert (
        "At the end of the search the 3 candidates with the best neg_loss each write texts for 20 validation rows"
        in said
    )
    found = records(records_of(folder))
    best = by_score(found)
    wrote = [record for record in found if record.written is not None]
    assert {record.number for record in wrote} == {record.number for record in best[:3]}
    winner = max(wrote, key=lambda record: record.written)
    assert ranked(found)[0] == winner
    result = json.loads((folder / "outputs" / "chosen" / RESULT).read_text())
    assert (result["best"]["number"], result["chosen_by"]) == (winner.number, "mine:shortest")
    assert not (folder / "outputs" / "chosen" / CHECKPOINTS).exists(), "what folds learnt is of no more use"
    assert "writes texts" not in run(folder), "a finished study has chosen"


def test_the_report_says_by_what_and_mlflow_has_it(study):
    import mlflow

    folder, _ = study
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=folder).stdout)
    best = open_archive(folder / "outputs" / "chosen").ranked[0]
    assert report["winner"]["number"] == best.number
    assert any(told.startswith("It was chosen by mine:shortest: what its folds wrote") for told in report["headline"])
    section = next(part for part in report["sections"] if part["title"] == "How the winner was chosen")
    assert section["table"]["rows"][0][0] == str(best.number)
    assert len(section["table"]["rows"]) == 3
    client = mlflow.MlflowClient(f"sqlite:///{folder}/outputs/chosen/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'chosen'")
    runs = client.search_runs([experiment.experiment_id], "tags.`autopeft.role` = 'trial'")
    wrote = {int(r.data.tags["trial"]): r.data.metrics.get("written_mine_shortest") for r in runs}
    assert {number: score for number, score in wrote.items() if score is not None} == {
        record.number: record.written for record in open_archive(folder / "outputs" / "chosen").ranked[:3]
    }
    (won,) = [r for r in runs if r.data.tags["winner"] == "true"]
    assert won.data.tags["reason"] == "won by mine:shortest of what its folds wrote"
    assert (
        "mine:shortest of the texts that their folds wrote decided"
        in (folder / "outputs/chosen/winner/README.md").read_text()
    )


@pytest.mark.exhaustive
def test_two_workers_leave_what_the_choice_needs(tmp_path, model, monkeypatch):
    path = study_file(tmp_path, model, 5)
    path.write_text(path.read_text().replace("trials = 5", "trials = 5\nworkers = 2"))
    monkeypatch.setattr(fold_models, "run_trial", None)  # nothing is trained once more
    run(tmp_path)
    found = records(records_of(tmp_path))
    wrote = {record.number for record in found if record.written is not None}
    assert len(found) == 5
    assert wrote == {record.number for record in by_score(found)[:3]}
    assert not (tmp_path / "outputs" / "chosen" / CHECKPOINTS).exists()


@pytest.mark.parametrize(("choose", "read"), [('choose_by = "mine:shortest"', 1), ("", 0)])
def test_what_folds_learnt_stays_where_it_is_needed_and_records_are_read_once(
    study, tmp_path, monkeypatch, choose, read
):
    shutil.copytree(study[0], tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    path = Path("study.toml")
    path.write_text(path.read_text().replace('choose_by = "mine:shortest"', choose))
    problem = Problem.from_spec(StudySpec.from_file(path), discover())
    kept = optuna.load_study(study_name="chosen", storage=StudyStorage(problem.spec.output))
    kept.set_user_attr(CHOICE, {})
    found, calls = by_score(records(kept)), []
    assert len(found) == 4

    def counted(study):
        calls.append(study)
        return records(study)

    for record in found:
        checkpoint = Checkpoint.of(problem.spec.output, record.params)
        checkpoint.folder.mkdir(parents=True)
        (checkpoint.folder / "0.safetensors").touch()
    monkeypatch.setattr(choosing, "records", counted)
    choosing.tidy(problem, kept, found[0], [found[3].params])
    left = [record.number for record in found if Checkpoint.of(problem.spec.output, record.params).folder.exists()]
    assert len(calls) == read
    assert left == [record.number for record in (found if choose else found[1:])]
    choosing.tidy(problem, kept, found[1], [])
    left = [record.number for record in found if Checkpoint.of(problem.spec.output, record.params).folder.exists()]
    assert left == [record.number for record in (found[:3] if choose else found[2:])]


@pytest.mark.exhaustive
def test_a_choice_that_was_interrupted_goes_on_without_the_trials(tmp_path, model):
    study_file(tmp_path, model, 2)
    (tmp_path / "mine.py").write_text(
        "seen = []\n"
        "def shortest(texts, references):\n"
        "    seen.append(len(texts))\n"
        "    if len(seen) > 3:  # it was tried before the first trial, on texts and on empty ones\n"
        "        raise KeyboardInterrupt\n"
        "    return [-float(len(text)) for text in texts]\n"
    )
    done = autopeft_here("run", "study.toml", cwd=tmp_path)
    assert done.returncode != 0
    study = records_of(tmp_path)
    before = [record.number for record in by_score(records(study))]
    assert len(before) == 2
    assert len(Choice.read(study.user_attrs).scores) == 1
    assert all(record.written is None for record in records(study)), "nothing is chosen yet"
    assert [*(tmp_path / "outputs/chosen" / CHECKPOINTS).iterdir()], "one of them has still to write"
    (tmp_path / "mine.py").write_text(SHORTEST)
    said = run(tmp_path)
    found = records(records_of(tmp_path))
    assert [record.number for record in by_score(found)] == before, "no trial ran again"
    assert said.count("writes texts for 20 validation rows") == 2, "the function is another one now"
    assert all(record.written is not None for record in found)


@pytest.mark.exhaustive
def test_one_that_cannot_write_gives_its_place_to_the_next(study, tmp_path, monkeypatch):
    shutil.copytree(study[0], tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    problem = Problem.from_spec(StudySpec.from_file(Path("study.toml")), discover())
    kept = optuna.load_study(study_name="chosen", storage=StudyStorage(problem.spec.output))
    kept.set_user_attr(CHOICE, {})
    best, said = [record.number for record in by_score(records(kept))], []

    class Fails(type(problem.task)):
        failed = False

        def write(self, *args, **settings):
            if not Fails.failed:
                Fails.failed = True
                raise RuntimeError("no head")
            return super().write(*args, **settings)

    problem.task.__class__ = Fails
    choosing.choose(problem, kept, said.append, lambda: None)
    assert f"Trial {best[0]} cannot win, because its folds failed to write: RuntimeError: no head" in said
    assert {record.number for record in records(kept) if record.written is not None} == {*best[1:4]}
    assert [record.number for record in ranked(records(kept))][-1] == best[0], "what did not write comes last"
    (section,) = choices.sections(open_archive(problem.spec.output))
    assert f"Trial {best[0]} could not write: RuntimeError: no head" in section.text


def test_folds_write_with_what_they_learnt_and_train_again_where_that_is_gone(tmp_path, model):
    path = study_file(tmp_path, model, 1)
    problem = Problem.from_spec(StudySpec.from_file(path), discover())
    candidate = problem.space["lora"].default()
    scores = [choosing.written_score(problem, candidate)]
    checkpoint = Checkpoint.of(problem.spec.output, candidate.flat)
    assert checkpoint.rungs(2) == len(problem.rung_ends(candidate.hyper.epochs))
    kept = [one.stat().st_mtime_ns for one in sorted(checkpoint.folder.iterdir())]
    scores.append(choosing.written_score(problem, candidate))
    assert [one.stat().st_mtime_ns for one in sorted(checkpoint.folder.iterdir())] == kept, "nothing was trained"
    checkpoint.remove()
    scores.append(choosing.written_score(problem, candidate))
    assert len({*scores}) == 1


def test_what_writes_is_the_model_of_the_fold(tmp_path, model, monkeypatch):
    """While it writes, it scores the fold's own rows as the trial did."""
    path = study_file(tmp_path, model, 1)
    problem = Problem.from_spec(StudySpec.from_file(path), discover())
    candidate, seen = problem.space["lora"].default(), []

    class Spy(type(problem.task)):
        def write(self, module, rows, reader):
            fold = problem.folds[len(seen)].validation
            (answers,) = evaluate(module, problem.train, [fold], problem.task, problem.device)
            seen.append(problem.task.score(problem.metric, problem.train.truths[fold], answers))
            assert {*rows.index} <= {*problem.rows.train.index[fold]}
            return super().write(module, rows, reader)

    problem.task.__class__ = Spy
    choosing.written_score(problem, candidate)
    kept = [_last(path) for path in sorted(Checkpoint.of(problem.spec.output, candidate.flat).folder.iterdir())]
    assert seen == pytest.approx(kept, rel=1e-3)
    assert abs(seen[0] - seen[1]) > 1e-6


def _last(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["history"])[-1][0]


def test_rows_are_drawn_once_and_are_those_the_folds_validate(tmp_path, model):
    rows = [{"messages": messages} for messages in conversations()]
    problem = problem_of(tmp_path, model, rows, template="plain", written_rows=11)
    drawn = choosing.written_rows(problem)
    assert sum(map(len, drawn)) == 11
    for few, fold in zip(drawn, problem.folds, strict=True):
        assert {*few} <= {*fold.validation}
    assert all(np.array_equal(a, b) for a, b in zip(drawn, choosing.written_rows(problem), strict=True))


def record(number, score, written=None):
    return TrialRecord(
        number, "", "lora", "COMPLETE", "", score, (score,), (score,), 1, 10, 10, 1, 1, 1.0, written=written
    )


def test_a_choice_holds_for_the_best_of_now():
    best = [record(0, -1.0), record(1, -2.0), record(2, -3.0)]
    choice = Choice("rouge_l", 2, 8, scores={0: 0.25, 1: 0.5})
    chosen = choice.put_in(best)
    assert [one.number for one in ranked([chosen.get(one.number, one) for one in best])] == [1, 0, 2]
    assert choice.put_in([record(3, -0.5), *best]) == {}, "a better trial has not written yet"
    assert choice.awaited([record(3, -0.5), *best]) == [record(3, -0.5)]
    assert choice.put_in(best[:1]) == {}
    even = Choice("rouge_l", 2, 8, scores={0: 0.5, 1: 0.5}).put_in(best)
    assert ranked([even.get(one.number, one) for one in best])[0].number == 0, "of equal texts the better score"
    assert [one.number for one in Choice("rouge_l", 2, 8, failed={0: "why"}).best(best)] == [1, 2]
    assert Choice.read({"choice": json.loads(json.dumps(choice.kept()))}) == choice


def test_a_score_that_is_not_known_or_has_no_texts_is_refused(tmp_path, model):
    rows = [{"messages": messages} for messages in conversations()]
    with pytest.raises(SpecError, match='the score of texts "rouge_x" is not known'):
        problem_of(tmp_path, model, rows, template="plain", choose_by="rouge_x")
    with pytest.raises(SpecError, match="`choose_by` in \\[task\\] needs texts, but"):
        problem_of(tmp_path, model, rows, template="plain", choose_by="token_f1", written_rows=0)
