"""The outbox as a queue: what becomes of entries, whoever receives them."""

import json
import threading

import pytest

from autopeft.tracking import outbox
from autopeft.tracking.outbox import Outbox, RefusedError, RetryError


class Receiver:
    """Takes an entry, or raises what was planned for it, one error an attempt."""

    def __init__(self, **planned: list[Exception]) -> None:
        self.planned, self.taken, self.heard = planned, [], []

    def is_entry(self, found: object) -> bool:
        return isinstance(found, dict) and "name" in found

    def begin(self) -> None:
        self.heard.append(f"began in {threading.current_thread().name}")

    def send(self, entry: dict, *, repeated: bool) -> None:
        if errors := self.planned.get(entry["name"]):
            raise errors.pop(0)
        self.taken.append((entry["name"], repeated))

    def damaged(self, number: int, line: str) -> None:
        self.heard.append(f"line {number}: {line}")

    def away(self, reason: str) -> None:
        self.heard.append(f"away: {reason}")

    def back(self) -> None:
        self.heard.append("back")

    def refused(self, entry: dict, reason: str) -> None:
        self.heard.append(f"refused {entry['name']}: {reason}")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.01)


def sent(folder, receiver: Receiver, *names: str, again: bool = False) -> Receiver:
    """The receiver, once an outbox has sent what its file holds, and then entries of these names."""
    queue = Outbox(receiver, folder / "waiting", folder / "aside", thread="post", again=again)
    assert queue.drain(30) == 0
    queue.hold()
    for name in names:
        queue.put({"name": name})
    assert queue.close(30) == 0
    assert (folder / "waiting").read_text() == ""
    return receiver


def test_entries_are_taken_in_order_and_those_of_an_earlier_start_may_be_repeated(tmp_path):
    (tmp_path / "waiting").write_text('{"name": "old"}\nnonsense\n{"name": "older"}\n')
    receiver = sent(tmp_path, Receiver(), "a", "b")
    assert receiver.taken == [("old", True), ("older", True), ("a", False), ("b", False)]
    assert receiver.heard == ["line 2: nonsense", "began in post"]


def test_a_receiver_that_is_away_gets_everything_when_it_is_back(tmp_path):
    (tmp_path / "waiting").write_text('{"name": "old"}\n')
    away = [RetryError("gone", answers=False) for _ in range(outbox.ATTEMPTS + 2)]
    receiver = sent(tmp_path, Receiver(a=away), "a", "b")
    assert receiver.taken == [("old", True), ("a", True), ("b", True)]
    assert receiver.heard[1:] == ["away: gone", "back"]


def test_what_is_refused_is_set_aside_and_comes_again_when_asked_for(tmp_path):
    doubtful = [RetryError("odd", answers=True) for _ in range(outbox.ATTEMPTS)]
    receiver = sent(tmp_path, Receiver(a=[RefusedError("never")], b=doubtful), "a", "b", "c")
    assert [name for name, _ in receiver.taken] == ["c"]
    assert receiver.heard[1:] == ["refused a: never", "refused b: odd"]
    kept = [json.loads(line) for line in (tmp_path / "aside").read_text().splitlines()]
    assert kept == [{"reason": "never", "call": {"name": "a"}}, {"reason": "odd", "call": {"name": "b"}}]
    assert sent(tmp_path, Receiver(), again=True).taken == [("a", True), ("b", True)]
    assert (tmp_path / "aside").read_text() == ""
