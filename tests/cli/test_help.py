"""The help of every command: an example, and sentences that fit a narrow terminal."""

import inspect

import pytest
import typer

from autopeft.cli.app import app

COMMANDS = typer.main.get_command(app).commands
WIDEST = 78
"""Of 80 columns, typer keeps one free on each side, and breaks a line only where the docstring does or at the edge."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_an_example_and_no_line_that_is_broken_twice(name):
    command = COMMANDS[name]
    assert f"Example: autopeft {name}" in command.epilog
    first, *others = inspect.cleandoc(command.help or "").split("\n\n")
    assert first.endswith(".")
    wrapped = [text for text in others if len(text.splitlines()) > 1]
    assert not [line for text in wrapped for line in text.splitlines() if len(line) > WIDEST]
