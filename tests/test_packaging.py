"""What users install: the wheel's content, and the plugins as it loads them."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.plugins.test_methods import METHODS

ROOT = Path(__file__).parents[1]
PLUGINS = {path.name for path in (ROOT / "plugins").iterdir() if path.name.startswith("autopeft_")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_host_the_plugins_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "autopeft",
        *PLUGINS,
    }
    assert "autopeft/py.typed" in names
    assert "autopeft/templates/plugin/pyproject.toml.template" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_wheel_loads_its_plugins_through_the_entry_points(wheel, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    # Without `site`, the development install's import hook stays out; dependencies come by path.
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({sysconfig.get_path('purelib')!r})\n"
        "import autopeft.cli.app; sys.argv = ['autopeft', 'methods', '--json']\n"
        f"assert autopeft.__file__.startswith({str(tmp_path)!r}), autopeft.__file__\n"
        "autopeft.cli.app.main()"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert {row["name"] for row in json.loads(done.stdout)["methods"]} == {*METHODS}
