"""A study from options alone, the file that is kept of it, and settings over those of a file."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from autopeft.cli.without_file import Options, study_of
from autopeft.common.exceptions import SpecError
from autopeft.study.file import StudySpec
from autopeft.study.own_file import keep
from tests.conftest import DTYPE, autopeft_here, tiny_rows, write_tiny_study

QUICK = (
    "search.trials=1", "search.epochs=1", "search.methods=lora", "search.references=false", "search.race=0",
    "search.portfolio=false", "validation.folds=2", "validation.packing=off", f"model.dtype={DTYPE}",
)  # fmt: skip


def options(**given: object) -> Options:
    names = ("model", "train", "test", "task", "text", "label", "output")
    return Options(**{name: given.get(name) for name in names})


@pytest.fixture
def tickets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_rows().rename(columns={"text": "message", "label": "queue"}).to_csv("my tickets.csv", index=False)
    (tmp_path / "model").mkdir()
    return tmp_path


def test_the_file_that_is_kept_says_the_same_from_its_own_folder(tickets):
    given = options(model="model", train="my tickets.csv", text="message", label="queue", task="text-classification")
    spec, mistakes = study_of(
        given, ["search.trials=3", "search.warm_start=earlier", "tracking.uri=sqlite:///a.db"], ()
    )
    assert mistakes == []
    assert (spec.name, spec.output, spec.search.trials) == ("my-tickets", tickets / "outputs" / "my-tickets", 3)
    spec.output.mkdir(parents=True)
    keep(spec)
    again = StudySpec.from_file(spec.output / "study.toml")
    assert again.output == spec.output
    assert again.to_dict() == {**spec.to_dict(), "search": again.to_dict()["search"]}
    assert again.search.warm_start == [str(tickets / "earlier")]
    assert (again.data.train, again.model.name_or_path) == (str(tickets / "my tickets.csv"), str(tickets / "model"))


def test_a_study_file_of_the_users_own_is_not_written_over(tickets):
    given = options(model="model", train="my tickets.csv", text="message", label="queue", output=tickets)
    spec, _ = study_of(given, (), ())
    (tickets / "study.toml").write_text("mine")
    with pytest.raises(SpecError, match="not overwritten"):
        keep(spec)
    assert (tickets / "study.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a study file, or --model and --train"),
        (["study.toml", "--train", "x.csv"], "--set data.train="),
        (["--train", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--train", "my tickets.csv", "--text", "mesage"], 'did you mean "message"'),
        (["--train", "my tickets.csv", "--set", "search.trails=3"], 'did you mean "trials"'),
    ],
)
def test_what_is_missing_or_wrong_is_told(tickets, arguments, words):
    done = autopeft_here("run", *arguments, cwd=tickets)
    assert done.returncode == 2
    assert words in done.stderr, done.stderr
    assert not (tickets / "outputs").exists()


def test_files_and_columns_are_told_with_the_settings(tickets):
    (tickets / "s.toml").write_text(
        '[model]\nname_or_path = "./nowhere"\n[task]\nkind = "text-classification"\n'
        '[data]\ntrain = "my tickets.csv"\ntest = "later.csv"\nlabel = "quue"\nlabell = "queue"\n'
        "[search]\ntrials = 0\nlora.rr = 3\nlearning_rate = -1\n"
    )
    told = autopeft_here("run", "s.toml", cwd=tickets).stderr
    for word in ("`trials`", '"rr" in [search] lora', "learning_rate", "/nowhere does not exist", '"later.csv" must be',
                 '"labell" in [data]', 'no column "text"', 'no column "quue"'):  # fmt: skip
        assert told.count(word) == 1, (word, told)


def test_settings_go_over_those_of_the_file(tiny_study):
    spec, mistakes = StudySpec.examined_file(tiny_study, ["search.trials=9", "name=other"])
    assert (spec.name, spec.search.trials, spec.search.methods, mistakes) == (
        "other", 9, StudySpec.from_file(tiny_study).search.methods, [],
    )  # fmt: skip
    assert spec.text == ""


def test_a_shell_completes_commands(tmp_path):
    asked = {"_AUTOPEFT_COMPLETE": "complete_bash", "COMP_WORDS": "autopeft st", "COMP_CWORD": "1"}
    code = "import sys; from autopeft.cli.app import main; sys.argv = ['autopeft']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["status"], done.stderr


@pytest.mark.parametrize("arguments", [["-v", "status", "nowhere.toml"], ["run", "nowhere.toml", "-v"]])
def test_verbose_shows_where_an_error_came_from(tmp_path, monkeypatch, arguments):
    monkeypatch.setattr("autopeft.cli.options.VERBOSE", verbose := [])
    monkeypatch.setattr("autopeft.cli.app.VERBOSE", verbose)
    plain = autopeft_here(*(one for one in arguments if one != "-v"), cwd=tmp_path)
    assert "Traceback" not in plain.stderr
    told = autopeft_here(*arguments, cwd=tmp_path)
    assert told.returncode == 2
    assert "Traceback" in told.stderr
    assert told.stderr.endswith(plain.stderr)


@pytest.mark.exhaustive
def test_a_study_without_a_file_runs_goes_on_and_has_nothing_to_do_in_the_end(tmp_path, tiny_model):
    write_tiny_study(tmp_path, tiny_model)
    frame = pd.read_csv(tmp_path / "rows.csv").rename(columns={"text": "message", "label": "queue"})
    frame.to_csv(tmp_path / "tickets.csv", index=False)
    settings = [part for setting in QUICK for part in ("--set", setting)]
    named = ("--model", "model", "--train", "tickets.csv", "--text", "message", "--label", "queue")
    first = autopeft_here("run", *named, *settings, "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    output = tmp_path / "outputs" / "tickets"
    again = autopeft_here("run", output, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    more = autopeft_here("run", output / "winner", "--set", "search.trials=2", "--json", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert len(json.loads(more.stdout)["records"]) == 2
    (output / "report.html").unlink()
    healed = autopeft_here("run", output, "--set", "search.trials=2", "--json", cwd=tmp_path)
    assert healed.returncode == 0, healed.stderr
    assert "nothing to do" not in healed.stderr
    assert (output / "report.html").is_file()
