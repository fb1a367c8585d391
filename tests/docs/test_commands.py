"""Every command on the pages is one that there is, with options it has and files that are there.

`tests/test_docs.py` runs them all, as part of `make exhaustive`; here run those that take no time.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import autopeft.cli.app  # noqa: F401  # enters the commands
from autopeft.cli.options import app
from tests.conftest import autopeft_here
from tests.docs.pages import PAGES, ROOT, in_backticks, named, typed

PACKAGE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
QUICK = ("methods", "tasks", "schema", "new-plugin")
"""Commands that run here as they stand: they train nothing and need no model."""

READERS_OWN = (
    "rows.csv",
    "new.csv",
    "answers.csv",
    "answers.parquet",
    "study.toml",
    "tickets.toml",
    "studies/tickets.toml",
)
"""Files that a reader brings, as the page says."""

TEMPLATES = sorted((ROOT / "autopeft" / "templates").rglob("*.md.template"))
"""Pages that `autopeft new-plugin` writes."""

WITH_COMMANDS = [page for page in [*PAGES, *TEMPLATES] if typed(page)]


def asked(line: str) -> dict[str, Any]:
    """The arguments and options of a line of `autopeft`, as the command would get them.

    Raises:
        Exception: typer's, where the command line would refuse the line.
    """
    command = get_command(app)
    for option in command.params:  # such as --install-completion, which would write into the account's settings
        option.callback = lambda context, option, value: context.exit() if value else value
    for one in command.commands.values():
        one.callback = lambda **given: given
    arguments = shlex.split(re.split(r" [>|] ", line)[0])[1:]
    return command.main(arguments, standalone_mode=False) or {}


def lines(page: Path) -> list[str]:
    """Those of the page's console that call autopeft."""
    return [line for line in typed(page) if line.startswith("autopeft ")]


@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if lines(page)], ids=named)
def test_every_line_of_autopeft_parses_and_names_files_that_are_there(page):
    text = page.read_text(encoding="utf-8")
    for line in lines(page):
        for name, value in asked(line).items():
            if isinstance(value, Path) and name != "to" and value.parts[0] != "outputs":
                told = str(value) in READERS_OWN or f"# {value}\n" in text
                assert told or (ROOT / value).exists(), f"{named(page)}: {line} names {value}, which is not there"


def refused(code: str) -> str:
    """What the command line says against a call; nothing of one that leaves out what it needs, as sentences do."""
    try:
        asked(code.replace("…", "ANYTHING"))
    except Exception as error:  # typer keeps its classes of errors to itself
        return "" if type(error).__name__ == "MissingParameter" else repr(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_call_within_a_sentence_is_one_that_there_is(page):
    calls = [code for code in in_backticks(page) if code.startswith("autopeft ")]
    assert {code: why for code in calls if (why := refused(code))} == {}


def test_a_line_that_the_command_line_refuses_is_told():
    assert refused("autopeft run") == ""
    for line in ("autopeft ruin STUDY", "autopeft run STUDY --wrong", "autopeft plan STUDY --samples many"):
        with pytest.raises(Exception, match=r"(?i)no such|valid"):
            asked(line)
        assert refused(line)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_every_target_of_make_script_and_extra_is_there(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in typed(page):
        words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
        if words[0] == "make":
            assert set(words[1:]) <= targets, f"{named(page)}: {line}"
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), f"{named(page)}: {line}"
        elif words[0] == "pip":
            for extras in re.findall(r"(?:^|[ \"'])(?:\.|autopeft)\[([\w,-]+)\]", line):
                assert set(extras.split(",")) <= set(PACKAGE["optional-dependencies"]), f"{named(page)}: {line}"
        else:
            assert words[0] in ("autopeft", "pytest"), (
                f"{named(page)}: {line} is not a command of a kind that is tested"
            )


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in lines(page) if line.split()[1] in QUICK}))
def test_a_command_that_takes_no_time_runs_as_it_stands(line, tmp_path):
    done = autopeft_here(*shlex.split(line)[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
