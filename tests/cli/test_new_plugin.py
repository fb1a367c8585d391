"""A generated plugin, installed by pip, is found, passes its own tests and holds the contract."""

import json
import subprocess
import sys
import tomllib

import pytest

from autopeft.study.file import StudySpec
from tests.conftest import autopeft, autopeft_here
from tests.methods.test_registry import FIXTURES, beside, install, methods


def test_a_new_plugin_is_found_and_passes_its_own_tests(tmp_path, monkeypatch):
    done = autopeft_here("new-plugin", "low_rank", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    source, site = tmp_path / "autopeft-low-rank", tmp_path / "site"
    written = {str(path.relative_to(tmp_path)) for path in source.rglob("*") if path.is_file()}
    assert written == {line for line in done.stdout.splitlines() if not line.startswith("Next: ")}
    assert not [path for path in source.rglob("*") if path.is_file() and "$" in path.read_text().replace("$ ", "")]
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["autopeft"] == {"low_rank": "autopeft_low_rank"}
    for command in (["format", "--check"], ["check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=source, check=True, capture_output=True)
    assert StudySpec.from_file(source / "study.toml").search.methods == ["low_rank", "lora"]

    install(source, site)
    listed = methods(site).stdout
    assert "autopeft-low-rank 0.1.0 (entry point 'low_rank')" in listed
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "gpt2 and merges or scaled"]
    ran = subprocess.run(tests, cwd=source, env=beside(site), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "2 passed" in ran.stdout

    monkeypatch.syspath_prepend(site)
    checked = autopeft_here("check", "low_rank", "--family", "bert", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    taken = autopeft_here("new-plugin", "low_rank", "elsewhere", cwd=tmp_path)
    assert taken.returncode == 2
    assert "taken by autopeft-low-rank 0.1.0" in taken.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["method", "task"])
def test_the_study_of_a_new_plugin_runs(tmp_path, kind):
    done = autopeft_here("new-plugin", "low_rank", *["--task"] * (kind == "task"), cwd=tmp_path)
    assert "then autopeft check" in done.stdout
    assert "study.toml" in done.stdout.splitlines()[-1]
    source, site = tmp_path / "autopeft-low-rank", tmp_path / "site"
    install(source, site)
    ran = autopeft("run", "study.toml", "--json", cwd=source, env=beside(site))
    assert ran.returncode == 0, ran.stderr
    trials = json.loads(ran.stdout)["records"]
    assert {trial["method"] for trial in trials} >= ({"low_rank", "lora"} if kind == "method" else {"lora"})
    assert not [trial for trial in trials if trial["state"] == "FAIL"]


@pytest.mark.exhaustive
def test_a_new_kind_of_task_is_found_and_passes_its_own_tests(tmp_path, monkeypatch):
    done = autopeft_here("new-plugin", "smoothed_labels", "--task", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "autopeft check smoothed-labels" in done.stdout
    source, site = tmp_path / "autopeft-smoothed-labels", tmp_path / "site"
    for command in (["format", "--check"], ["check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=source, check=True, capture_output=True)
    install(source, site)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(tests, cwd=source, env=beside(site), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "3 passed" in ran.stdout
    listed = autopeft("tasks", "--json", cwd=tmp_path, env=beside(site))
    assert '"kind": "smoothed-labels"' in listed.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LowRank", "lower-case words"),
        ("low-rank", 'got "low-rank"'),
        ("class", "not a Python keyword"),
        ("lora", "taken by autopeft "),
        ("text_classification", "taken by autopeft "),
        ("trials", "already has a meaning"),
        ("learning_rate", "already has a meaning"),
        ("peft", "already has a meaning"),
    ],
)
def test_a_name_that_no_method_can_have_is_refused(tmp_path, name, words):
    done = autopeft_here("new-plugin", name, "there", cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").touch()
    done = autopeft_here("new-plugin", "low_rank", "there", cwd=tmp_path)
    assert done.returncode == 2
    assert "a new or empty folder, but there is neither" in done.stderr
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine.txt"]


def test_the_page_about_plugins_shows_the_fixture_as_it_is():
    page = (FIXTURES.parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
    source = (FIXTURES / "autopeft-oft" / "autopeft_oft.py").read_text(encoding="utf-8")
    assert source.partition("\n\n")[2] in page
