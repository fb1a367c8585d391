"""A study file, an output folder and a winner's folder lead to the same study."""

import json

import optuna
import pytest

from autopeft.common.exceptions import UserInputError
from autopeft.study.card import CARD
from autopeft.study.file import StudySpec
from autopeft.study.place import Place, output_of, place_of, study_file_of, winner_of
from autopeft.study.storage import StudyStorage
from tests.conftest import autopeft_here

STUDY = """
name = "mine"
[model]
name_or_path = "m"
[task]
kind = "text-classification"
[data]
train = "rows.csv"
[tracking]
uri = "sqlite:///all.db"
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study file, and its output folder as a study leaves it: a journal, and a winner's folder with a card."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(STUDY)
    spec = StudySpec.from_file(path)
    spec.output.mkdir(parents=True)
    made = optuna.create_study(study_name="mine", storage=StudyStorage(spec.output), direction="maximize")
    made.set_user_attr("given", spec.to_dict())
    (spec.output / "winner").mkdir()
    (spec.output / "winner" / CARD).write_text("{}")
    return path


def test_each_of_the_three_leads_to_the_study(study):
    output = study.parent / "outputs" / "mine"
    expected = Place(output, "mine", f"sqlite:///{study.parent}/all.db")
    for given in (study, output, output / "winner"):
        assert place_of(given) == expected
        assert output_of(given) == output
        assert winner_of(given) == output / "winner"


def test_a_winner_elsewhere_is_a_winner_but_no_study(study, tmp_path):
    copy = (study.parent / "outputs" / "mine" / "winner").rename(tmp_path / "copy")
    assert winner_of(copy) == copy
    with pytest.raises(UserInputError, match="holds a winner, but its parent folder holds no study"):
        place_of(copy)
    with pytest.raises(UserInputError, match="holds no winner yet"):
        winner_of(study)


def test_a_study_without_a_file_keeps_one(study):
    output = study.parent / "outputs" / "mine"
    with pytest.raises(UserInputError, match="without a study file"):
        study_file_of(output)
    (output / "study.toml").write_text(STUDY)
    assert study_file_of(output) == study_file_of(output / "winner") == output / "study.toml"
    assert study_file_of(study) == study


@pytest.mark.parametrize("command", ["status", "report", "ui", "sync", "predict", "generate", "chat", "export"])
@pytest.mark.parametrize("given", ["empty", "nowhere"])
def test_an_error_says_what_was_looked_for(tmp_path, command, given):
    (tmp_path / "empty").mkdir()
    more = ["--to", "x", "--format", "peft"] if command == "export" else []
    done = autopeft_here(command, given, *more, cwd=tmp_path)
    assert done.returncode == 2
    expected = "a study file, the output folder of a study or its winner's folder, but is a folder without"
    wanted = expected if given == "empty" else "does not exist"
    assert wanted in done.stderr, done.stderr


def test_status_takes_all_three(study):
    output = study.parent / "outputs" / "mine"
    shown = [
        json.loads(autopeft_here("status", path, "--json", cwd=study.parent).stdout)
        for path in (study, output, output / "winner")
    ]
    assert shown[0]["name"] == "mine"
    assert shown[0] == shown[1] == shown[2]
