"""Kinds of task come from plugins, a stranger's as ours, and what is wrong with one is told."""

import json
import subprocess
import sys

import pytest

from autopeft.common.exceptions import SpecError
from autopeft.tasks.registry import find_task, task_kinds
from tests.conftest import DTYPE, autopeft, tiny_rows
from tests.methods.test_registry import FIXTURES, beside, install, write_plugin

OURS = [
    "causal-lm",
    "image-classification",
    "image-text-matching",
    "multi-label-classification",
    "multiple-choice",
    "prompt-classification",
    "question-answering",
    "regression",
    "seq2seq",
    "text-classification",
    "text-pair-classification",
    "token-classification",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    install(FIXTURES / "autopeft-ordinal", folder)
    return folder


def test_ours_are_found_with_what_they_ask_for(tmp_path):
    assert sorted(task_kinds()) == OURS
    done = autopeft("tasks", "--json", cwd=tmp_path)
    found = {row["kind"]: row for row in json.loads(done.stdout)["tasks"]}
    assert sorted(found) == OURS
    assert found["text-classification"]["metrics"][0] == "accuracy"
    assert found["regression"]["columns"] == {"text": "text", "text_pair": "text, optional", "label": "number, taught"}


def test_listing_them_imports_no_torch(tmp_path):
    code = "import sys; from autopeft.tasks.registry import discover; discover(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_kind_that_nobody_brings_is_named_with_the_nearest():
    with pytest.raises(SpecError, match='"text-clasification", which no task provides; did you mean'):
        find_task("text-clasification")


def test_settings_are_checked_as_the_study_file_is():
    with pytest.raises(SpecError, match=r'"smoothing" in \[task\] is not a setting'):
        find_task("regression").configured({"smoothing": 0.1})


BROKEN = {
    "not an instance": ("return [object()]", "must yield Task instances"),
    "a name with spaces": ("Kind.kind = 'my kind'; return [Kind()]", "words joined by hyphens"),
    "no contract": ("Kind.contract = None; return [Kind()]", "must state the contract"),
    "another contract": ("Kind.contract = 99; return [Kind()]", "was written for contract 99"),
    "no metrics": ("Kind.metrics = {}; return [Kind()]", "`metrics` of Kind must hold one Metric or more"),
    "another signature": ("Kind.loss = lambda self: 0; return [Kind()]", r"loss\(\) must take"),
}
BODY = """
from autopeft import Classification, Column, hookimpl

class Kind(Classification):
    contract = 1
    kind = "another-kind"
    auto_class = "AutoModelForSequenceClassification"
    columns = (Column("text"), Column("label", "label", given=False))
    def encode(self, rows, tokenizer, labels): ...
    def example(self): ...

@hookimpl
def register_tasks():
    {body}
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(("body", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_kind_is_told_and_the_others_go_on(tmp_path, body, words):
    install(write_plugin(tmp_path, "bad-task", "bad", BODY.format(body=body)), tmp_path / "site")
    done = autopeft("tasks", "--json", cwd=tmp_path, env=beside(tmp_path / "site"))
    found = json.loads(done.stdout)
    assert [row["kind"] for row in found["tasks"]] == OURS
    (told,) = found["broken"]
    import re

    assert told.startswith("bad-task")
    assert re.search(words, told)


@pytest.mark.exhaustive
def test_a_study_and_a_check_tell_a_broken_kind_once_and_a_name_that_nobody_brings(tmp_path):
    install(write_plugin(tmp_path, "bad-task", "bad", BODY.format(body="return [object()]")), tmp_path / "site")
    install(write_plugin(tmp_path, "no-plugin", "none", "import nothing_of_that_name"), tmp_path / "site")
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    (tmp_path / "study.toml").write_text(
        'name = "s"\n[model]\nname_or_path = "./none"\n[task]\nkind = "text-clasification"\n'
        '[data]\ntrain = "rows.csv"\n'
    )
    for command in (("run", "study.toml"), ("check", "text-clasification"), ("check", "bad")):
        done = autopeft(*command, cwd=tmp_path, env=beside(tmp_path / "site"))
        assert done.returncode == 2
        told = [line for line in done.stderr.splitlines() if line.startswith("A plugin is left out. ")]
        assert [line.split()[5] for line in told] == ["no-plugin", "bad-task"]
        last = done.stderr.splitlines()[-1]
        if command == ("check", "bad"):
            assert 'a method or a kind of task "bad"; its plugin is broken: bad-task 1.2.3' in last
        elif command[0] == "check":
            assert 'no plugin provides a method or a kind of task "text-clasification"; did you mean' in last
            assert '"text-classification"? Install' in last
            assert last.endswith("see `autopeft methods` and `autopeft tasks`.")


@pytest.mark.exhaustive
def test_a_strangers_kind_keeps_every_rule(tmp_path, site):
    done = autopeft("check", "ordinal-regression", "--json", cwd=tmp_path, env=beside(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(not finding["seen"] for finding in json.loads(done.stdout)["findings"])


@pytest.mark.exhaustive
def test_a_strangers_kind_goes_through_a_whole_study(tmp_path, site, tiny_model):
    (tmp_path / "model").symlink_to(tiny_model)
    rows = tiny_rows()
    rows["label"] = rows["label"].map({"no": 1, "maybe": 2, "yes": 3})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "study.toml").write_text(
        f"""
name = "stars"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "ordinal-regression"
smoothing = 0.02
[data]
train = "rows.csv"
[search]
methods = ["lora"]
trials = 2
references = false
epochs = 4
batch_size = 8
learning_rate = 0.02
[validation]
folds = 2
"""
    )
    done = autopeft("run", "study.toml", "--json", cwd=tmp_path, env=beside(site))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metric"] == "neg_places_off"
    assert result["test"]["winner"] >= result["test"]["baseline"]
    done = autopeft("predict", "outputs/stars/winner", "--input", "rows.csv", cwd=tmp_path, env=beside(site))
    header, *lines = done.stdout.splitlines()
    assert header == "text,label,predicted_label,predicted_probability"
    assert {line.split(",")[2] for line in lines} <= {"1", "2", "3"}
    done = autopeft("report", "study.toml", "--json", cwd=tmp_path, env=beside(site))
    assert json.loads(done.stdout)["test"]["scores"][0]["interval"]
    done = autopeft("predict", "outputs/stars/winner", "--input", "rows.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert 'is "ordinal-regression", which no plugin brings' in done.stderr
