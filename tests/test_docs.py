"""Every `$ autopeft …` in README and docs runs as it stands there, on a tiny study in the quickstart's place."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import autopeft_here, write_tiny_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = ("make ", "pip ", "autopeft check low_rank")
"""What sets the machine up, and what needs a plugin installed, which `tests/test_new_plugin.py` does."""


def commands(page: Path) -> list[str]:
    """The lines after a prompt in the page's console blocks, without their comments, each once."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [
        line[2:].split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]
    return list(dict.fromkeys(line for line in lines if not line.startswith(ELSEWHERE)))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model) -> Path:
    """A folder with `studies/quickstart.toml` and `rows.csv`, on the tiny model."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "studies").mkdir()
    study = write_tiny_study(folder / "studies", tiny_model)
    study.with_name("quickstart.toml").write_text(study.read_text().replace('name = "tiny"', 'name = "quickstart"'))
    (folder / "rows.csv").write_bytes((folder / "studies" / "rows.csv").read_bytes())
    return folder


def serve(arguments: list[str], cwd: Path) -> None:
    """Start a command that serves until Ctrl-C, and end it once it says where."""
    command = [sys.executable, "-m", "autopeft", *arguments, "--port", "0"]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True)
    assert "http://127.0.0.1:" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0


def test_every_command_in_the_docs_runs(place):
    ran = []
    for command in dict.fromkeys(line for page in PAGES for line in commands(page)):
        program, *arguments = shlex.split(command.split(" > ")[0].split(" | ")[0])
        assert program == "autopeft", command
        if arguments[0] == "ui":
            serve(arguments, place)
        else:
            done = autopeft_here(*arguments, cwd=place)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        ran.append(arguments[0])
    assert {"run", "report", "predict", "ui", "sync"} <= set(ran)


def test_every_link_in_the_docs_leads_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
