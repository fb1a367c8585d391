"""What the commands share: the application, its options, and ways to read a study file and to find plugins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.common.console import make_console

if TYPE_CHECKING:
    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec

EPILOG = "Exit codes: 0 done, 2 the input is wrong, 1 anything else."
app = typer.Typer(
    name="autopeft",
    help="Find out how to fine-tune a transformer cheaply: which method, where, and how large.",
    epilog=f"Example: autopeft run studies/quickstart.toml. {EPILOG}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).", show_default=False)]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that its base model brings, where its study did.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Block = Annotated[list[str] | None, typer.Option("--block", metavar="NAME", help="Leave out a plugin's entry point.")]


def read_spec(study: Path) -> StudySpec:
    """The study file, read and checked."""
    from autopeft.study.file import StudySpec

    return StudySpec.from_file(study)


def find_plugins(block: list[str] | None, spec: StudySpec | None = None, *, silent: bool = False) -> Registry:
    """The methods found; plugins that cannot be used are told, unless nobody asks for them anyway."""
    from autopeft.common.plugins import LOADING_SECONDS
    from autopeft.methods.registry import discover
    from autopeft.tasks.registry import left_out

    seconds = min(LOADING_SECONDS, spec.search.hang_timeout) if spec else LOADING_SECONDS
    unwanted = spec.search.exclude if spec else ()
    registry = discover(block or (), seconds)
    for fault in () if silent else left_out(registry):
        if not any(map(fault.concerns, unwanted)):
            make_console(stderr=True).print(f"A plugin is left out. {fault}", style="yellow", soft_wrap=True)
    return registry


def print_json(content: Any) -> None:
    """Print `content` for a script to read."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
