"""A study that was begun before its lengths went by the rows does not go on with others."""

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
