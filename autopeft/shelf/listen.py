"""Listens for requests, on the loopback interface unless it is told otherwise, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from autopeft.common.exceptions import UserInputError, in_a_line, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autopeft.shelf.api import Api

LOOPBACK = "127.0.0.1"
BACKLOG = 2048
"""Connections that may wait to be taken."""

DRAIN = 5
"""Seconds that answers under way have, after Ctrl-C."""


@contextmanager
def listening(host: str, port: int, *, everyone: bool) -> Iterator[socket.socket]:
    """A socket that listens.

    Args:
        host: an address of this machine, or a name that leads to one.
        port: 0 for a free one.
        everyone: whether an address that other machines reach is allowed.

    Raises:
        UserInputError: it is not allowed, is no address of this machine, or the port is taken.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UserInputError(
            f"--host must be an address of this machine, but {quoted(host)} is not: {error}."
        ) from None
    if not everyone and not is_loopback(str(address[0])):
        raise UserInputError(
            f"`autopeft serve` asks for no password, so it listens only on this machine ({LOOPBACK}), but --host is "
            f"{quoted(host)}, which other machines reach; add --open-to-network if everybody who reaches it may ask."
        )
    with socket.socket(family) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(address)
        except OSError as error:
            raise UserInputError(
                f"cannot listen on {host}, port {port}: {in_a_line(error)}; give another --port, or 0 for a free one."
            ) from None
        found.listen(BACKLOG)
        yield found


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def address_of(found: socket.socket) -> str:
    """The address of a socket, for a browser."""
    host, port = found.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(api: Api, found: socket.socket, host: str) -> None:
    """Answer requests until Ctrl-C."""
    names = {"localhost", host.lower()} - {""}
    app = api.app(tuple(names), loopback=is_loopback(str(found.getsockname()[0])))
    config = uvicorn.Config(
        app, log_level="error", access_log=False, timeout_graceful_shutdown=DRAIN, server_header=False
    )
    uvicorn.Server(config).run(sockets=[found])
