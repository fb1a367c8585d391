"""A server of winners in a thread of this process, and a client that sends what it is told to."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from autopeft.shelf.api import Api
from autopeft.shelf.listen import listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autopeft.shelf.shelf import Shelf


class Client:
    """Sends requests to a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """The status, and the JSON of the answer; names of headers have underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            assert answer.headers["content-type"] == "application/json"
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        return self.send("GET", path)

    def post(self, path: str, content: Any, **headers: str) -> tuple[int, Any]:
        return self.send("POST", path, json.dumps(content).encode(), content_type="application/json", **headers)

    def fails(self, path: str, content: Any, status: int) -> str:
        """The message of a request that is refused with this status."""
        found, told = self.post(path, content)
        assert (found, told["error"]["code"]) == (status, status), told
        return str(told["error"]["message"])


@contextmanager
def serving(shelf: Shelf, **settings: Any) -> Iterator[Client]:
    """A client of a server that runs while the block runs."""
    with listening("127.0.0.1", 0, everyone=False) as found:
        server = uvicorn.Server(uvicorn.Config(Api(shelf, **settings).app(), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Client(found.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
