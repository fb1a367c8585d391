"""Commands on a winner: predict, export."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopeft.cli.options import ANY_OF_WINNER, EPILOG, AsJson, Trust, app, as_csv, lines_of_stdin
from autopeft.common.console import make_console
from autopeft.common.exceptions import UserInputError
from autopeft.common.streams import for_stdout

if TYPE_CHECKING:
    import pandas as pd

    from autopeft.winner.winner import Winner


@app.command(epilog=f"Example: autopeft predict outputs/quickstart/winner --input rows.csv > labels.csv. {EPILOG}")
def predict(
    winner: Annotated[Path, typer.Argument(metavar="WINNER", help=ANY_OF_WINNER)],
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Rows to answer (a file as a study reads, or a folder of images); default: an input a line on stdin.",
        ),
    ] = None,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Answer rows with a saved winner: a table with columns named as its inputs, or one input a line on stdin.

    Images are named beside their answers.
    """
    import pandas as pd

    from autopeft.data.table import read_rows
    from autopeft.study.place import winner_of
    from autopeft.winner import winner as artifact

    def say(told: str) -> None:
        typer.echo(f"autopeft: {told}", err=True)

    loaded = artifact.load(winner_of(winner), trust_remote_code=trust_remote_code)
    if input_file is not None:
        frame = read_rows(input_file, loaded.inputs, loaded.columns, say)
    elif len(loaded.inputs) > 1:
        raise UserInputError(f"this winner needs the columns {', '.join(loaded.inputs)}; give a file with --input.")
    else:
        lines = lines_of_stdin()
        frame = pd.DataFrame({loaded.inputs[0]: lines}, index=range(1, len(lines) + 1))

    names = _names(loaded, frame)
    if as_json:
        answers = loaded.as_json(frame, say)
        for place, answer in enumerate(answers):
            named = {key: column[place] for key, column in names.items()}
            sys.stdout.write(json.dumps({**named, **answer}) + "\n")
        return
    table = loaded.table(frame, say).round(6)
    sys.stdout.write(for_stdout(as_csv(pd.DataFrame({**names, **table}))))


def _names(winner: Winner, frame: pd.DataFrame) -> dict[str, list[str]]:
    """What answers are to stand beside: the names of images, whose order nobody can see."""
    images = [column.key for column in winner.columns if column.holds == "image" and column.key in frame]
    return {key: [getattr(cell, "name", str(cell)) for cell in frame[key]] for key in images}


@app.command(epilog=f"Example: autopeft export outputs/quickstart --to tickets --format merged. {EPILOG}")
def export(
    winner: Annotated[Path, typer.Argument(metavar="WINNER", help=ANY_OF_WINNER)],
    form: Annotated[
        str, typer.Option("--format", help="peft, serving, merged, adapterhub, mlflow, mlflow-transformers or onnx.")
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, empty or not there.")],
    repo: Annotated[str | None, typer.Option("--push-to-hub", metavar="REPO", help="Put it on the hub too.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is new.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write a winner for peft, transformers, the adapters library, MLflow or ONNX, with a README on how to load it."""
    from autopeft.winner import hub
    from autopeft.winner.export import export as write

    console = make_console()

    def say(told: str) -> None:
        console.print(told, soft_wrap=True, markup=False)

    write(winner, to, form, trust_remote_code=trust_remote_code, say=say)
    console.print(f"Written to {to}; {to / 'README.md'} says how to load it.", soft_wrap=True)
    if repo:
        address = hub.push(to, repo, private=private or None)
        console.print(f"On the hub: {address}", soft_wrap=True)
