"""All that is wrong in a study file is told at once, and what is set elsewhere leads there."""

import tomllib

import pytest

from autopeft.common.exceptions import SpecError
from autopeft.common.training_words import EXAMPLES, TRAINING_WORDS
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.methods.training_space import TRAINING_SPACE
from autopeft.study.file import StudySpec

MINIMAL = '[model]\nname_or_path = "m"\n[task]\nkind = "text-classification"\n[data]\ntrain = "rows.csv"\n'


def refused(text: str) -> str:
    with pytest.raises(SpecError) as error:
        StudySpec.from_mapping({"name": "n", **tomllib.loads(text)}, "s.toml")
    return str(error.value)


def test_every_mistake_is_told_and_each_once():
    told = refused(
        'seed = -1\n[model]\nname_or_path = "m"\n[data]\ntrain = 3\ntest_fraction = 2.5\n[tsk]\nkind = "x"\n'
        '[search]\ntrials = 0\nmethods = [1, 2]\n[budget]\nmax_gpu_memory = "2 gigs"\n'
    )
    lines = told.splitlines()
    assert lines[0] == "there are 8 mistakes in s.toml:"
    assert len(lines) == 9
    for word in ("`seed`", "`train`", "`test_fraction`", "`trials`", "`methods[0]`", "`max_gpu_memory`", '"tsk"'):
        assert sum(word in line for line in lines) == 1, word
    assert "- s.toml has no [task] table; add one with `kind" in told


def test_many_mistakes_are_cut():
    told = refused(MINIMAL + "[validation]\n" + "".join(f"x{n} = 1\n" for n in range(50)))
    assert told.splitlines()[-1] == "- 30 more."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training]\nlr = 3e-4\n", "`epochs = [2, 6]`"),
        ("[validation]\nepochs = 3\n", "`lora.epochs = [2, 6]`"),
        ("[model]\nlr = 3e-4\n", "`learning_rate = [1e-4, 1e-3]`"),
        ("[validation]\ntrials = 3\n", "it belongs in [search]"),
        ("[budget]\nfolds = 3\n", "it belongs in [validation]"),
        ("trials = 3\n", "it belongs in [search]"),
    ],
)
def test_a_setting_in_the_wrong_place_leads_to_the_right_one(text, words):
    tables = tomllib.loads(MINIMAL)
    for table, given in tomllib.loads(text).items():
        tables[table] = {**tables.get(table, {}), **given} if isinstance(given, dict) else given
    with pytest.raises(SpecError) as error:
        StudySpec.from_mapping({"name": "n", **tables}, "s.toml")
    assert words in str(error.value)


def test_the_words_of_training_are_its_dimensions_and_each_example_is_accepted():
    assert {*TRAINING_WORDS.values()} == {*EXAMPLES} == {*TRAINING_SPACE}
    lora = discover()["lora"]
    for example in EXAMPLES.values():
        CandidateSpace.build([lora], None, tomllib.loads(example), ())
        CandidateSpace.build([lora], None, tomllib.loads(f"lora.{example}"), ())


@pytest.mark.parametrize("overrides", [{"lr": 1e-3}, {"lora": {"lr": 1e-3}}])
def test_another_word_for_a_dimension_is_told_what_it_is_called(overrides):
    with pytest.raises(SpecError, match="here it is called `learning_rate`"):
        CandidateSpace.build([discover()["lora"]], None, overrides, ())
