"""The plugin host, against plugin distributions that pip really installed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autopeft.methods.registry import discover

FIXTURES = Path(__file__).parents[1] / "fixtures"

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "1.2.3"
[project.entry-points.autopeft]
{entry} = "{module}"
[tool.hatch.build.targets.wheel]
include = ["{module}.py"]
"""


def install(source: Path, target: Path, *more: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, *map(str, (target, source, *more))], check=True, capture_output=True)


def write_plugin(folder: Path, name: str, entry: str, body: str) -> Path:
    module = name.replace("-", "_")
    source = folder / name
    source.mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT.format(name=name, entry=entry, module=module))
    (source / f"{module}.py").write_text(body)
    return source


def beside(site: Path) -> dict[str, str]:
    """The environment of a process that finds what was installed there too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}


def methods(site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autopeft", "methods", "--json", *options]
    return subprocess.run(command, env=beside(site), capture_output=True, text=True, check=False)


GOOD = """
from autopeft import hookimpl, PeftMethod, SearchSpace
class Method(PeftMethod):
    contract = 1
    name = "{method}"
    def search_space(self, spec=None):
        return SearchSpace({{}})
    def apply(self, model, params, spec):
        return model
@hookimpl
def register_methods():
    return [Method()]
"""


@pytest.fixture(scope="module")
def oft_site(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    install(FIXTURES / "autopeft-oft", site)
    return site


def test_a_strangers_plugin_stands_beside_ours(oft_site):
    found = json.loads(methods(oft_site).stdout)
    plugins = {row["name"]: row["plugin"] for row in found["methods"]}
    assert {"adapter", "lora", "prefix_tuning"} < set(plugins)
    assert plugins["oft"] == "autopeft-oft 0.3.0 (entry point 'oft')"
    assert found["broken"] == []


def test_a_plugin_can_be_left_out(oft_site):
    found = json.loads(methods(oft_site, "--block", "oft").stdout)
    assert "oft" not in {row["name"] for row in found["methods"]}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import a_package_that_is_not_there", "a_package_that_is_not_there"),
        ("x = 1", "register_methods"),
        (GOOD.format(method="m") + "\n@hookimpl\ndef register_methods(models): return []", "models"),
        (GOOD.format(method="not a name"), "identifier"),
        (
            GOOD.format(method="m").replace("model, params, spec", "model, params"),
            "Method.apply() must take (model, params, spec), like PeftMethod's, but takes (model, params).",
        ),
        (
            GOOD.format(method="m").replace("spec=None", "spec"),
            "Method.search_space() must take (spec=None), like PeftMethod's, but takes (spec).",
        ),
        (GOOD.format(method="m").replace("SearchSpace({})", "{}"), "must return a SearchSpace, but returned {}"),
        (GOOD.format(method="m").replace("[Method()]", "[Method(), Method()]"), "each method once"),
        (GOOD.format(method="m").replace("return [Method()]", "return [3]"), "PeftMethod"),
        (GOOD.format(method="m").replace("return SearchSpace({})", "raise OSError('no space')"), "no space"),
        ("raise SystemExit('bye')", "bye"),
        (GOOD.format(method="m").replace("    contract = 1\n", ""), "Add `contract = 1` to the class"),
        (
            GOOD.format(method="m").replace("contract = 1", "contract = 7"),
            "written for contract 7, but this autopeft has contract 1; install another version of broken-plugin",
        ),
    ],
)
def test_a_broken_plugin_is_reported_and_the_others_go_on(tmp_path, body, reason):
    install(write_plugin(tmp_path, "broken-plugin", "broken", body), tmp_path / "site")
    done = methods(tmp_path / "site")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert {row["name"] for row in found["methods"]} >= {"adapter", "lora", "prefix_tuning"}
    (fault,) = found["broken"]
    assert fault.startswith("broken-plugin 1.2.3 (entry point 'broken')")
    assert reason in fault


@pytest.mark.parametrize("entry", ["another", "lora"])
def test_a_stranger_cannot_take_the_name_of_a_method_of_ours(tmp_path, entry):
    source = write_plugin(tmp_path, "clashing-plugin", entry, GOOD.format(method="lora"))
    install(source, tmp_path / "site")
    found = json.loads(methods(tmp_path / "site").stdout)
    assert {row["name"]: row["plugin"] for row in found["methods"]}["lora"].startswith("autopeft ")
    (fault,) = found["broken"]
    assert fault.startswith(f"clashing-plugin 1.2.3 (entry point '{entry}'): two plugins bring the ")
    assert "(entry point 'lora'); uninstall one" in fault
    if entry == "another":  # who wants the stranger's says so
        chosen = json.loads(methods(tmp_path / "site", "--block", "lora").stdout)
        assert {row["name"]: row["plugin"] for row in chosen["methods"]}["lora"].startswith("clashing-plugin ")


@pytest.mark.parametrize("entries", [("one", "two"), ("same", "same")])
def test_of_strangers_that_clash_none_is_taken(tmp_path, entries):
    sources = [
        write_plugin(tmp_path, f"{which}-plugin", entry, GOOD.format(method="new"))
        for which, entry in zip(("a", "b"), entries, strict=True)
    ]
    install(sources[0], tmp_path / "site", sources[1])
    found = json.loads(methods(tmp_path / "site").stdout)
    assert "new" not in {row["name"] for row in found["methods"]}
    assert [fault.split()[0] for fault in found["broken"]] == ["a-plugin", "b-plugin"]
    assert all("a-plugin 1.2.3" in fault and "b-plugin 1.2.3" in fault for fault in found["broken"])


def test_a_plugin_that_hangs_when_it_is_loaded_is_interrupted(tmp_path, monkeypatch):
    body = "import time\nwhile True:\n    try: time.sleep(60)\n    except Exception: pass"
    install(write_plugin(tmp_path, "hanging-plugin", "hanging", body), tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (fault,) = discover(seconds=0.5).faults
    assert str(fault) == (
        "hanging-plugin 1.2.3 (entry point 'hanging'): it made no progress for 0.5 s and was interrupted."
    )
    assert discover().faults == (fault,), "a process waits for it once"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_methods_shows_broken_plugins_with_the_reason_once(tmp_path):
    install(write_plugin(tmp_path, "broken-plugin", "broken", "x = 1"), tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "autopeft", "methods"],
        env=beside(tmp_path / "site"),
        capture_output=True,
        text=True,
        check=True,
    )
    shown = " ".join(done.stdout.split())
    assert "Broken plugins" in shown
    assert shown.count("broken-plugin 1.2.3") == 1
    assert "has no `@autopeft.hookimpl" in shown
    assert done.stderr == ""
    assert json.loads(methods(tmp_path / "site", "--block", "broken").stdout)["broken"] == []
