"""The outbox's file, a call a line, and the file beside it for lines that can never be sent as they are.

Lines are added at the end. A file that must change otherwise is written whole under another name, which then takes the
place of the first, so that a process that is killed at any moment leaves one or the other.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from autopeft.common.files import whole
from autopeft.study.journal import appending, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

REFUSED = "mlflow.refused.jsonl"
"""In a study's output folder: what MLflow refused, with the reason, and lines of the outbox that were damaged."""

LONGEST_SHOWN = 60
"""Characters of a damaged line that a message shows."""

LATE = "late"
"""The mark of a call that was refused once and comes after calls that were made later."""


def take_up(path: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The calls that an earlier start left in the outbox's file.

    Half a line at the end is one that a process was killed in the middle of: nobody was told that it was kept, and it
    is cut off. Any other line that is no call is set aside and told.

    Raises:
        StoreError: one of the files could not be written.
    """
    if not path.is_file():
        return []
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        with writing(path):
            os.truncate(path, whole)
    calls, damaged = [], []
    for number, line in enumerate(raw[:whole].split(b"\n")[:-1], 1):
        try:
            calls.append(_call(line))
        except (ValueError, RecursionError):
            damaged.append((number, line.decode(errors="backslashreplace")))
    for number, text in damaged:
        set_aside(path, f"line {number} of {path.name} was damaged", {"line": text})
        shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
        say(
            f"Line {number} of {path} is damaged and cannot be sent to MLflow: {shown!r}. "
            f"It is kept in {path.with_name(REFUSED)}; the rest is sent."
        )
    if damaged:
        _write(path, map(_line, calls))
    return calls


def add(path: Path, call: dict[str, Any]) -> None:
    """Add a call to the outbox's file, all of it or nothing.

    Raises:
        StoreError: it could not be written.
    """
    line = _line(call)
    with path.open("ab", buffering=0) as file, appending(path):
        while line:
            line = line[file.write(line) :]


def set_aside(path: Path, reason: str, content: dict[str, Any]) -> bool:
    """Keep in the other file what cannot be sent, and why; False if it is there already.

    Args:
        path: of the outbox's file.
        reason: why, in a few words.
        content: the call as `call`, or a damaged line as `line`.

    Raises:
        StoreError: it could not be written.
    """
    place = path.with_name(REFUSED)
    if any(content.items() <= kept.items() for kept in _kept(place)):
        return False
    place.touch()
    add(place, {"reason": reason, **content})
    return True


def kept_aside(path: Path) -> list[str]:
    """The reasons of what was set aside, one for each call or line."""
    return [str(kept.get("reason", "damaged")) for kept in _kept(path.with_name(REFUSED))]


def take_back(path: Path, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`calls` behind those that were set aside, which are marked as late and leave the other file.

    Raises:
        StoreError: one of the files could not be written.
    """
    place = path.with_name(REFUSED)
    found = list(_kept(place))
    again = [{**kept["call"], LATE: True} for kept in found if "call" in kept]
    if again:
        _write(path, map(_line, [*again, *calls]))  # before they leave the other file: twice does no harm
        _write(place, [_line(kept) for kept in found if "call" not in kept])
    return [*again, *calls]


def _kept(place: Path) -> Iterator[dict[str, Any]]:
    for line in place.read_bytes().split(b"\n") if place.is_file() else ():
        if line:
            try:
                kept = json.loads(line)
                kept = {**kept, "call": _call(_line(kept["call"]))} if "call" in kept else {**kept}
            except (ValueError, RecursionError, TypeError):
                kept = {"line": line.decode(errors="backslashreplace")}
            yield kept


def _call(line: bytes) -> dict[str, Any]:
    """A line's call.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(line)
    if not isinstance(found, dict) or not isinstance(found.get("do"), str) or not isinstance(found.get("run"), str):
        raise ValueError("no call")
    return found


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _write(path: Path, lines: Iterable[bytes]) -> None:
    with writing(path), whole(path) as draft:
        draft.write_bytes(b"".join(lines))
