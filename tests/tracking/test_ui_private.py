import http.client
import socket

import pytest

from autopeft.tracking import Tracker, serving

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


class Connection(http.client.HTTPConnection):
    def __init__(self, place):
        super().__init__("127.0.0.1", timeout=30)
        self.place = str(place)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.place)


def answer(place, host):
    connection = Connection(place)
    connection.request("GET", "/ajax-api/2.0/mlflow/experiments/search?max_results=5", headers={"Host": host})
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_the_ui_can_listen_on_a_socket_and_on_nothing_else(tmp_path):
    with Tracker.connect(None, tmp_path, "study"):
        pass
    place = tmp_path / "private" / "ui.sock"
    place.parent.mkdir(mode=0o700)
    with socket.socket() as probe:  # a port that was free a moment ago
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(None, tmp_path, "study", port, place) as (address, _):
        assert f"127.0.0.1:{port}/" in address  # where a tunnel ends
        status, text = answer(place, "127.0.0.1")
        assert status == 200
        assert '"study"' in text
        assert answer(place, "evil.example")[0] == 403  # a web page whose host name leads to this machine
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert place.parent.stat().st_mode & 0o077 == 0
