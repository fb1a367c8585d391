"""Refuses requests that a web page of another host makes a browser send, and such as are no JSON or too large."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from autopeft.shelf.refusal import RefusedError, refusal

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

LARGEST = 8 * 2**20
"""Most bytes of a request."""

JSON = "application/json"


class Guard:
    """Lets only requests pass that name this server by an address, or by a name that is allowed.

    A page can have a browser send requests anywhere. With DNS rebinding, the browser even lets it read the answers,
    since a name of the page's own domain then leads here; an address cannot be rebound.

    Args:
        app: gets what passes.
        names: names of this server.
        loopback: whether only addresses of the loopback interface are allowed.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str], *, loopback: bool) -> None:
        self._app, self._names, self._loopback = app, names, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http" and (refused := self._refused(scope)):
            await refusal(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> RefusedError | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_here(f"//{hosts[0]}"):
            return RefusedError(403, "the host of the request is not this server; ask it by its address.")
        origin = headers.get("origin")
        if origin is not None and not self._is_here(origin):
            return RefusedError(403, "a page of another host must not ask this server.")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != JSON:  # other types are what a page may send without asking
            return RefusedError(415, f"a request must have the content type {JSON}; set this header.")
        return None

    def _is_here(self, address: str) -> bool:
        """Whether an address names this server."""
        try:
            host = urlsplit(address).hostname or ""
        except ValueError:
            return False
        if host in self._names:
            return True
        try:
            return ipaddress.ip_address(host).is_loopback or not self._loopback
        except ValueError:
            return False


async def body_of(request: Request) -> bytes:
    """The body of a request.

    Raises:
        RefusedError: it is too large.
    """
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > LARGEST:
            raise RefusedError(
                413, f"a request may have {LARGEST:,} bytes, but this one has more; send fewer rows at once."
            )
    return bytes(found)
