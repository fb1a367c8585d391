"""A study that was begun before its lengths went by the rows does not go on with others."""

from pathlib import Path

import pytest

from autopeft.common.exceptions import SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.search import resume
from autopeft.study.file import StudySpec


def test_a_study_from_before_goes_on_only_with_the_lengths_that_it_had(tiny_study):
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    now = resume.given(problem)
    assert {*now[resume.EPOCHS].values()} == {"4"}, "its file fixes them"
    before = {key: value for key, value in now.items() if key != resume.EPOCHS}
    resume.check(before, now, problem.spec)

    tiny_study.write_text(tiny_study.read_text().replace("epochs = 4\n", ""))
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    now = resume.given(problem)
    before = {key: value for key, value in now.items() if key != resume.EPOCHS}
    with pytest.raises(SpecError, match=r"began with other settings: .*epochs\.lora"):
        resume.check(before, now, problem.spec)
    resume.check(now, now, problem.spec)


@pytest.mark.parametrize(
    ("before", "now", "made", "named"),
    [
        ({"references": False, "race": 0.3}, {"references": True, "race": 0.3}, (), "`references` in [search] is"),
        ({"references": True, "race": 0.0}, {"references": True, "race": 0.3}, (), "`race` in [search] is"),
        (
            {"references": False, "race": 0.0},
            {"references": True, "race": 1.0},
            ["race"],
            "`references` in [search] is",
        ),
        ({"references": False, "race": 0.0}, {"references": True, "race": 1.0}, ["references", "race"], ""),
        ({"references": True, "race": 0.3}, {"references": False, "race": 0.0}, (), ""),
        ({}, {"references": True, "race": 0.3}, (), ""),
    ],
    ids=["references", "race", "one is done", "both are done", "switched off", "from before these settings"],
)
def test_what_is_switched_on_after_the_winner_is_named_with_what_to_do(before, now, made, named):
    told = resume.without_effect({"search": before}, {"search": now}, made, Path("out/winner"))
    assert told.startswith(named)
    assert bool(told) == bool(named)
    if named:
        assert told.endswith("for it now, move out/winner elsewhere and run the same command again.")


def test_the_manual_names_every_setting_that_may_change():
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    told = text.partition("## Continue a study, or extend it")[2].partition("```console")[0]
    missing = [name for name in resume.MAY_CHANGE if f"`{name.rpartition('.')[2]}`" not in told]
    assert missing == []
    assert "`artifacts` cannot change" in told
