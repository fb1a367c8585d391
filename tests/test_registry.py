"""The plugin host, against plugin distributions that pip really installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"

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


def install(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(target), str(source)], check=True, capture_output=True)


def write_plugin(folder: Path, name: str, entry: str, body: str) -> Path:
    module = name.replace("-", "_")
    source = folder / name
    source.mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT.format(name=name, entry=entry, module=module))
    (source / f"{module}.py").write_text(body)
    return source


def methods(site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autopeft", "methods", "--json", *options]
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)


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


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import a_package_that_is_not_there", "a_package_that_is_not_there"),
        ("x = 1", "register_methods"),
        (GOOD.format(method="m") + "\n@hookimpl\ndef register_methods(models): return []", "models"),
        (GOOD.format(method="not a name"), "identifier"),
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
def test_a_name_clash_is_refused_naming_both_sides(tmp_path, entry):
    source = write_plugin(tmp_path, "clashing-plugin", entry, GOOD.format(method="lora"))
    install(source, tmp_path / "site")
    done = methods(tmp_path / "site")
    assert done.returncode == 1
    assert "clashing-plugin 1.2.3" in done.stderr
    assert "autopeft" in done.stderr
    assert "Traceback" not in done.stderr
