"""The command that serves winners over HTTP."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from autopeft.cli.options import EPILOG, Trust, app
from autopeft.cli.predict_command import DeviceName
from autopeft.common.collector import loading
from autopeft.common.streams import tell
from autopeft.common.units import counted


@app.command(epilog=f"Example: autopeft serve outputs/tickets outputs/tone urgent=outputs/u/winner. {EPILOG}")
def serve(
    winners: Annotated[
        list[str],
        typer.Argument(
            metavar="WINNER...",
            help="Winner folders, or the output folders or files of their studies; NAME=FOLDER chooses a name.",
            show_default=False,
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: a free port.")] = 8008,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="An address of this machine.")] = "127.0.0.1",
    open_to_network: Annotated[
        bool, typer.Option("--open-to-network", help="Allow a --host that other machines reach; there is no password.")
    ] = False,
    wait: Annotated[
        float, typer.Option(metavar="MS", min=0, max=1000, help="Milliseconds to wait for more requests.")
    ] = 2.0,
    most_rows: Annotated[int, typer.Option(metavar="N", min=1, help="Rows that are answered together.")] = 64,
    device: DeviceName = None,
    trust_remote_code: Trust = False,
) -> None:
    """Serve winners that share a base model over HTTP, with the base in memory once.

    POST /predict takes {"winner": "NAME", "rows": [{"COLUMN": "…"}]} and gives
    what `autopeft predict --json` gives. Requests that come at the same time
    are answered together: rows of different winners share a pass wherever
    their methods allow it. GET /winners lists the winners.

    Winners that write texts also answer OpenAI's clients, at /v1/completions
    and /v1/chat/completions.

    It listens only on this machine, and asks for no password.
    """
    from autopeft.shelf.names import find

    folders = find(winners)  # before the libraries are loaded, so that what is wrong is told soon
    with loading():
        from autopeft.models.device import named_device
        from autopeft.shelf import listen
        from autopeft.shelf.api import Api
        from autopeft.shelf.shelf import Shelf
    with listen.listening(host, port, everyone=open_to_network) as found:
        with loading():
            shelf = Shelf.load(folders, named_device(device), trust_remote_code=trust_remote_code)
        for name, reason in shelf.turns.items():
            tell(f"Rows for {name} run alone: {reason}.")
        if open_to_network:
            tell("There is no password: everybody who reaches this address can ask these winners.")
        with suppress(KeyboardInterrupt):  # Ctrl-C ends it from the moment that it says so
            sys.stdout.write(f"Serving {counted(len(shelf), 'winner')}: {listen.address_of(found)}\nCtrl-C ends it.\n")
            sys.stdout.flush()
            listen.serve(Api(shelf, wait / 1000, most_rows), found, host)
