"""What the server says when it cannot answer: a status, and JSON in the form of OpenAI's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from autopeft.common.exceptions import AutopeftError, UserInputError, printable
from autopeft.shelf.batcher import BusyError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from starlette.requests import Request

KINDS = {400: "invalid_request", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 503: "busy"}
"""The type of an error, by its status; all others between 400 and 499 are `invalid_request`."""

MOST = 1000
"""Characters of a message that are told."""


class RefusedError(AutopeftError):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def refusal(error: Exception) -> JSONResponse:
    """The answer to a request that led to an error of autopeft or of HTTP; any other is told as no more than that."""
    status = _status(error)
    message = str(error) if isinstance(error, AutopeftError) else getattr(error, "detail", "the server failed.")
    kind = KINDS.get(status, "invalid_request" if status < 500 else "server_error")
    told: dict[str, Any] = {"error": {"message": printable(message[:MOST]), "type": kind, "code": status}}
    return JSONResponse(told, status, {"Retry-After": "1"} if status == 503 else None)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    """The same, as Starlette calls it."""
    return refusal(error)


def first_mistake(error: ValidationError) -> RefusedError:
    """What is wrong in a request's JSON."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:80]
    if first["type"] == "json_invalid":
        return RefusedError(400, f"a request must be JSON, but: {first['msg']}.")
    if first["type"] == "extra_forbidden":
        return RefusedError(400, f'the request has "{where}", which is not known here or has no effect; leave it out.')
    return RefusedError(400, f'"{where}" in the request is wrong: {first["msg"]}.' if where else f"{first['msg']}.")


def _status(error: Exception) -> int:
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, BusyError):
        return 503
    if isinstance(error, UserInputError):
        return 422
    return int(getattr(error, "status_code", 500))
