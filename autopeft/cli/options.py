"""What the commands share: the application, its options, and ways to read a study file and to find plugins."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.common.console import make_console
from autopeft.common.exceptions import brief

if TYPE_CHECKING:
    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec

EPILOG = "Exit codes: 0 success, 2 wrong input, 1 any other error."
app = typer.Typer(
    name="autopeft",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

VERBOSE: list[bool] = []
"""Holds something where `--verbose` was given."""

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).", show_default=False)]
AnyOfStudy = Annotated[
    Path,
    typer.Argument(metavar="STUDY", help="The study file, its output folder or its winner folder.", show_default=False),
]
ANY_OF_WINNER = "The winner folder, or the output folder or file of its study."
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting of the study file: search.trials=5. Repeatable."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with its base model, if its study did so.")
]
OfTask = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="One of several tasks, if the study learnt several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print only errors and the result, without progress and remarks.")
]
Block = Annotated[
    list[str] | None,
    typer.Option("--block", metavar="NAME", help="Leave out the plugin with this entry point. Repeatable."),
]


def _verbose(asked: bool) -> None:
    if asked:
        VERBOSE.append(True)
        warnings.simplefilter("default")


Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", help="Show warnings of libraries, and the traceback of an error.", callback=_verbose
    ),
]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"autopeft {version('autopeft')}\n")
        raise typer.Exit


@app.callback(epilog=f"Example: autopeft run studies/quickstart.toml. {EPILOG}")
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Find out how to fine-tune a transformer cheaply: which method, in which layers, and how large."""


def checked_study(study: Path, settings: list[str] | None, block: list[str] | None) -> tuple[StudySpec, Registry]:
    """A study file and the methods found; all that is wrong and can be told at once is told at once.

    Raises:
        SpecError: settings, files or columns are wrong.
    """
    from autopeft.study.file import StudySpec

    return with_methods(*StudySpec.examined_file(study, settings or ()), brief(study), block)


def with_methods(
    spec: StudySpec | None, mistakes: list[str], source: str, block: list[str] | None
) -> tuple[StudySpec, Registry]:
    """A study without what is wrong in it, and the methods found, where nothing is wrong.

    Raises:
        SpecError: what was wrong, and what else is.
    """
    from autopeft.execution.backend_factory import backend_mistakes
    from autopeft.study.mistakes import told
    from autopeft.tasks.study_check import mistakes_in

    registry = find_plugins(block, spec)
    if spec:
        mistakes = [*mistakes, *mistakes_in(spec, registry), *backend_mistakes(spec, registry.blocked)]
    if mistakes or spec is None:
        raise told(mistakes, source)
    return spec, registry


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
