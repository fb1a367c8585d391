"""An outbox's two files, one entry per line: entries that wait, and entries that can never be sent as they are.

Lines are added at the end. For any other change the whole file is written under another name and then renamed, so that
a process killed at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from autopeft.common.files import whole
from autopeft.study.journal import appending, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Entry = dict[str, Any]
"""A JSON object that waits to be sent."""

LATE = "late"
"""The key that marks an entry as refused once: it is sent after entries that were made later."""

ASIDE = "call"
"""The key of an entry that was set aside, beside its reason."""


class Backlog:
    """What an outbox keeps on the disk.

    Args:
        path: of the entries that wait.
        aside: of refused entries with their reasons, and of damaged lines.
        is_entry: whether the content of a line can be an entry.
    """

    def __init__(self, path: Path, aside: Path, is_entry: Callable[[object], bool]) -> None:
        self.path, self.aside, self._is_entry = path, aside, is_entry

    def take_up(self, damaged: Callable[[int, str], None]) -> list[Entry]:
        """The entries that an earlier start left.

        An incomplete last line is cut off: the process was killed while writing it, and nobody was told that it was
        kept. Any other line that is not an entry is set aside and reported.

        Args:
            damaged: gets the number and the text of such a line.

        Raises:
            StoreError: one of the files could not be written.
        """
        if not self.path.is_file():
            return []
        raw = self.path.read_bytes()
        end = raw.rfind(b"\n") + 1
        if end < len(raw):
            with writing(self.path):
                os.truncate(self.path, end)
        entries, broken = [], []
        for number, line in enumerate(raw[:end].split(b"\n")[:-1], 1):
            try:
                entries.append(self._entry(line))
            except (ValueError, RecursionError):
                broken.append((number, line.decode(errors="backslashreplace")))
        for number, text in broken:
            self._keep_aside(f"line {number} of {self.path.name} was damaged", {"line": text})
            damaged(number, text)
        if broken:
            _write(self.path, map(_line, entries))
        return entries

    def take_back(self, entries: list[Entry]) -> list[Entry]:
        """The entries that were set aside, then `entries`; the former are marked as late and leave the other file.

        Raises:
            StoreError: one of the files could not be written.
        """
        kept = list(self._kept())
        again = [{**found[ASIDE], LATE: True} for found in kept if ASIDE in found]
        if again:
            _write(self.path, map(_line, [*again, *entries]))  # before they leave the other file: twice does no harm
            _write(self.aside, [_line(found) for found in kept if ASIDE not in found])
        return [*again, *entries]

    def add(self, entry: Entry) -> None:
        """Add an entry to those that wait, as a whole or not at all.

        Raises:
            StoreError: it could not be written.
        """
        _add(self.path, entry)

    def clear(self) -> None:
        """Forget the entries that waited; if the disk refuses, they stay and are sent once more."""
        with suppress(OSError), self.path.open("r+b") as file:
            file.truncate(0)

    def set_aside(self, entry: Entry, reason: str) -> bool:
        """Keep an entry that can never be sent, and why, in the other file; False if it is there already.

        Raises:
            StoreError: it could not be written.
        """
        return self._keep_aside(reason, {ASIDE: {key: value for key, value in entry.items() if key != LATE}})

    def reasons(self) -> list[str]:
        """Why entries and lines were set aside, one reason for each."""
        return [str(found.get("reason", "damaged")) for found in self._kept()]

    def _keep_aside(self, reason: str, content: dict[str, Any]) -> bool:
        if any(content.items() <= found.items() for found in self._kept()):
            return False
        self.aside.touch()
        _add(self.aside, {"reason": reason, **content})
        return True

    def _kept(self) -> Iterator[dict[str, Any]]:
        for line in self.aside.read_bytes().split(b"\n") if self.aside.is_file() else ():
            if line:
                try:
                    found = json.loads(line)
                    found = {**found, ASIDE: self._entry(_line(found[ASIDE]))} if ASIDE in found else {**found}
                except (ValueError, RecursionError, TypeError):
                    found = {"line": line.decode(errors="backslashreplace")}
                yield found

    def _entry(self, line: bytes) -> Entry:
        """A line's entry.

        Raises:
            ValueError: it holds none.
        """
        found: Entry = json.loads(line)
        if not self._is_entry(found):
            raise ValueError("no entry")
        return found


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _add(path: Path, content: dict[str, Any]) -> None:
    line = _line(content)
    with path.open("ab", buffering=0) as file, appending(path):
        while line:
            line = line[file.write(line) :]


def _write(path: Path, lines: Iterable[bytes]) -> None:
    with writing(path), whole(path) as draft:
        draft.write_bytes(b"".join(lines))
