"""The command that writes a winner for other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli.options import ANY_OF_WINNER, EPILOG, OfTask, Trust, app
from autopeft.common.console import make_console


@app.command(epilog=f"Example: autopeft export outputs/quickstart --to tickets --format merged. {EPILOG}")
def export(
    winner: Annotated[Path, typer.Argument(metavar="WINNER", help=ANY_OF_WINNER)],
    form: Annotated[
        str,
        typer.Option("--format", help="One of: peft, serving, merged, adapterhub, mlflow, mlflow-transformers, onnx."),
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write; it must be new or empty.")],
    repo: Annotated[
        str | None, typer.Option("--push-to-hub", metavar="REPO", help="Also upload it to this repository on the hub.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is new.")] = False,
    trust_remote_code: Trust = False,
    task: OfTask = None,
) -> None:
    """Write a winner for peft, transformers, the adapters library, MLflow or ONNX, with a README on how to load it."""
    from autopeft.winner import hub
    from autopeft.winner.export import export as write

    console = make_console()

    def say(told: str) -> None:
        console.print(told, soft_wrap=True, markup=False)

    write(winner, to, form, trust_remote_code=trust_remote_code, say=say, task=task)
    console.print(f"Written to {to}; {to / 'README.md'} says how to load it.", soft_wrap=True)
    if repo:
        address = hub.push(to, repo, private=private or None)
        console.print(f"On the hub: {address}", soft_wrap=True)
