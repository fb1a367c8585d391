"""`autopeft recommend`: what a search would try first, and what to expect."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from autopeft.common.exceptions import SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.search import start
from autopeft.search.recommend import recommend
from autopeft.study.file import StudySpec
from tests.conftest import autopeft_here
from tests.search.test_run import edit


@pytest.fixture
def wanted(tiny_study, known):
    """The tiny study, which starts from the portfolio."""
    edit(tiny_study, ("portfolio = false\n", ""), ("trials = 4", "trials = 16"), ("epochs = 4", "epochs = [1, 99]"))
    edit(tiny_study, ("batch_size = 8\nlearning_rate = 0.02\n", ""))
    return tiny_study


def asked(study):
    return recommend(StudySpec.from_file(study), discover())


def test_it_says_what_the_search_then_does(wanted):
    found = asked(wanted)
    assert (found.kind, found.rows, found.fold_rows, found.beside) == ("text-classification", 48, 24, "lora")
    problem = Problem.from_spec(StudySpec.from_file(wanted), discover())
    first, _ = start.first(problem.spec, problem.space, len(problem.rows.train))
    assert [one.params for one in found.tried] == [one.candidate.flat for one in first]
    assert not (wanted.parent / "outputs").exists()


def test_a_person_reads_it_at_any_width(wanted, monkeypatch):
    for width in (80, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        done = autopeft_here("recommend", wanted.name, cwd=wanted.parent)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 160
        text = " ".join(done.stdout.split())
        assert "tiny: text-classification, 48 rows to train on, 24 to a fold" in text
        assert "+0.5 ± 0.0 7 tasks, 7 groups" in text
        assert "best default" in text
        assert "lora, its default" in text
        assert "lora r=16 learning_rate=0.0003" in text
        assert "scored +1.2 points (standard error 0.4) against lora's default, on 7 recorded tasks of 7 groups" in text
        assert "a factor of over 4, so take this as a guess" in text
        assert "a-model" in text
        assert "`autopeft plan` does" in text


def test_a_script_reads_it(wanted):
    edit(wanted, ("trials = 16", "trials = 6"))
    done = autopeft_here("recommend", wanted.name, "--json", cwd=wanted.parent)
    told = json.loads(done.stdout)
    assert [one["source"] for one in told["tried"]] == [start.RECORDED, start.RECORDED, start.DEFAULT]
    assert told["tried"][0]["gain"] == 0
    assert told["tried"][2]["gain"] is None
    assert told["tried"][1]["steps"] == told["tried"][1]["epochs"] * 2, "24 rows in batches of 16"
    assert told["left"] == ["adapter"]


def test_it_is_honest_about_a_kind_that_was_recorded_little_or_not_at_all(wanted):
    rows = pd.DataFrame({"text": [f"w{n} w{n % 7}" for n in range(300)], "label": np.arange(300) / 7})
    rows.to_csv(wanted.parent / "rows.csv", index=False)
    edit(wanted, ("text-classification", "regression"))
    found = asked(wanted)
    assert any("No task of the kind regression was recorded" in one for one in found.cautions)
    assert not any("take this as a guess" in one for one in found.cautions)
    assert "about 100 rows" in found.expected
    tags = [{"tokens": [f"w{n}", f"w{n % 7}"], "tags": ["B-X", "O"]} for n in range(300)]
    (wanted.parent / "rows.jsonl").write_text("\n".join(map(json.dumps, tags)))
    edit(wanted, ("regression", "token-classification"), ("rows.csv", "rows.jsonl"))
    assert any("1 group of token-classification tasks had about as many rows" in one for one in asked(wanted).cautions)


def test_it_says_where_the_recorded_length_is_not_to_be_had(wanted):
    edit(wanted, ("epochs = [1, 99]", "epochs = 3"))
    found = asked(wanted)
    assert {one.advised for one in found.tried} == {None, found.tried[0].advised}
    assert f"6 steps instead of {found.tried[0].advised}" in " ".join(found.cautions)
    edit(wanted, ("epochs = 3", "epochs = 84"))  # 168 steps
    assert not any("another number of steps" in one for one in asked(wanted).cautions)


def test_where_nothing_is_known_it_says_so(wanted, known):
    edit(wanted, ("trials = 16", "trials = 16\nportfolio = false"))
    found = asked(wanted)
    assert (found.beside, found.expected) == (None, "")
    assert [one.source for one in found.tried] == [start.DEFAULT] * 3
    assert any("`portfolio = false`" in one for one in found.cautions)
    edit(wanted, ("portfolio = false", "portfolio = true"), ('"adapter", "lora", "prefix_tuning"', '"bitfit"'))
    assert any("These methods have no recorded tasks" in one for one in asked(wanted).cautions)


def test_a_mistake_in_the_study_is_one_sentence(wanted):
    edit(wanted, ("trials = 16", "lora.rank = 16"))
    with pytest.raises(SpecError, match="rank"):
        asked(wanted)


def test_it_imports_no_torch(wanted):
    code = (
        f"import sys; from autopeft.cli.app import main; sys.argv = ['autopeft', 'recommend', {str(wanted)!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'mlflow', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=wanted.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tried first" in done.stdout
