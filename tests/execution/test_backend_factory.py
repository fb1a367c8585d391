"""Backends from plugins: which are found, and what is said of one that is not there or not right."""

import json
import subprocess
import sys

import pytest

from autopeft.execution.backend_factory import backend_mistakes, discover, find_backend
from autopeft.study.file import StudySpec
from tests.conftest import THREE, autopeft, autopeft_here
from tests.docs.pages import ROOT, blocks
from tests.execution.test_processes import check_books
from tests.methods.test_registry import beside, install, write_plugin
from tests.search.test_run import edit, run_study

NOWHERE = """
from autopeft import Backend, BackendFactory, hookimpl
class Nowhere(Backend):
    free, busy = True, False
    def __init__(self, work):
        self.work = work
    def give(self, trial):
        from autopeft.execution.outcome import Outcome
        trial.end(Outcome("FAIL", f"{self.work.address} is no machine"))
    def poll(self): ...
    def __exit__(self, *_): ...
class Factory(BackendFactory):
    contract = 1
    name = "nowhere"
    def make(self, work):
        return Nowhere(work)
@hookimpl
def register_backends():
    return [Factory()]
"""


def mistakes(study, *settings: str) -> str:
    edit(study, ("trials = 4", "trials = 4\n" + "\n".join(settings)))
    done = autopeft_here("run", study, cwd=study.parent)
    assert done.returncode == 2
    return " ".join(done.stderr.split())


def test_an_unknown_backend_is_refused_with_those_that_are_installed(tiny_study):
    told = mistakes(tiny_study, 'backend = "slurm"')
    assert '`backend` in [search] is "slurm", which no plugin provides; installed: local, ray.' in told


def test_an_address_belongs_to_a_backend(tiny_study):
    assert "`address` belongs to a `backend`" in mistakes(tiny_study, 'address = "10.0.0.1:6379"')


def test_several_base_models_stay_on_the_studys_machine(tiny_study):
    edit(tiny_study, ('name_or_path = "model"', 'candidates = ["model", "other"]'))
    spec, _ = StudySpec.examined_file(tiny_study, ["search.backend=ray"])
    assert 'must be "local" if [model] has `candidates`' in backend_mistakes(spec)[0]


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "10.0.0.1", "http://user:secret@host:1"])
def test_an_address_that_ray_does_not_join_directly_is_refused(tiny_study, address):
    told = mistakes(tiny_study, 'backend = "ray"', f'address = "{address}"')
    assert '`address` in [search] must be "auto", or "host:port" of a Ray cluster' in told
    assert "secret" not in told


def test_without_ray_the_study_says_what_to_install(tiny_study, monkeypatch):
    from autopeft_ray import factory

    def nothing(name):
        raise factory.PackageNotFoundError(name)

    monkeypatch.setattr(factory, "distribution", nothing)
    assert 'Ray is not installed; run `pip install "autopeft[ray]"`' in mistakes(tiny_study, 'backend = "ray"')


def test_a_study_is_checked_before_torch_and_ray_are_imported(tiny_study):
    edit(tiny_study, ("trials = 4", 'trials = 4\nbackend = "ray"\naddress = "nowhere"'))
    code = (
        "import sys, autopeft.cli.app as app\n"
        f"sys.argv = ['autopeft', 'run', {str(tiny_study)!r}]\n"
        "try: app.main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False", "False"]


def test_the_backend_on_the_page_about_plugins_runs_a_study(tiny_study, tmp_path):
    (code,) = [code for code in blocks(ROOT / "docs" / "plugins.md", "python") if "Backend" in code]
    install(write_plugin(tmp_path, "beside-plugin", "beside", code), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", 'trials = 2\nbackend = "beside"\nworkers = 1'))
    done = autopeft("run", tiny_study.name, cwd=tiny_study.parent, env=beside(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    check_books(tiny_study, 2)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (NOWHERE.replace("    contract = 1\n", ""), "Add `contract = 1` to the class"),
        (NOWHERE.replace("contract = 1", "contract = 7"), "written for contract 7, but this autopeft has contract 1"),
        (NOWHERE.replace('"nowhere"', '"local"'), 'and not "local"'),
        (NOWHERE.replace("[Factory()]", "[3]"), "must yield BackendFactory instances, but yielded 3"),
        (NOWHERE.replace("def make(self, work)", "def make(self)"), "Factory.make() must take (work)"),
    ],
)
def test_a_broken_backend_is_reported(tmp_path, body, reason, tiny_study):
    install(write_plugin(tmp_path, "nowhere-plugin", "nowhere", body), tmp_path / "site")
    edit(tiny_study, ("trials = 4", 'trials = 4\nbackend = "nowhere"'))
    done = autopeft("run", tiny_study.name, cwd=tiny_study.parent, env=beside(tmp_path / "site"))
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "its plugin is broken" in told
    assert "nowhere-plugin" in told
    assert reason in told


def test_the_local_backend_loads_no_plugin_for_it(tiny_study):
    discover.cache_clear()
    assert backend_mistakes(StudySpec.from_file(tiny_study)) == []
    assert discover.cache_info().currsize == 0
    assert find_backend("ray").name == "ray"


def test_the_backend_may_change_as_a_study_goes_on(tiny_study, tmp_path):
    install(write_plugin(tmp_path, "nowhere-plugin", "nowhere", NOWHERE), tmp_path / "site")
    edit(tiny_study, ("trials = 4", "trials = 2"))
    before = run_study(tiny_study)
    edit(tiny_study, ("trials = 2", 'trials = 3\nbackend = "nowhere"'))
    done = autopeft("run", tiny_study.name, "--json", cwd=tiny_study.parent, env=beside(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)["records"]
    assert after[:2] == before["records"]
    assert [record["state"] for record in after] == ["COMPLETE", "COMPLETE", "FAIL"]
