"""The lock on a study's output folder: one process at a time runs a study, and others can find out which one.

If the file system has `flock`, that is the lock: the system releases it however its holder ends. Otherwise a file
serves as the lock, and is taken over from a process that is gone. In both cases another file says who holds the lock,
so that a process that only wants to know takes no lock and disturbs nobody.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from autopeft.common.exceptions import StoreError, StudyError, in_a_line
from autopeft.common.files import is_alive, whole
from autopeft.study.folder import EARLIER_LOCK, HOLDER, LOCK, MARKER, holds_study

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of a file system that has no `flock`."""

PATIENCE, PAUSE = 2.0, 0.02
"""Seconds to try for a lock without a living holder, and seconds between attempts: its holder may be about to say who
it is, or somebody may be checking whether a holder on another machine lives."""

_held: dict[Path, int] = {}
"""The folders that this process holds, and its id: on some file systems a process can take its own `flock` again."""

_changing = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """Who holds a study's output folder.

    Attributes:
        pid: the process.
        host: its machine.
        space: the container of the machine in which the pid is valid; "" where the system does not say.
        began: when the process was started, by the system's clocks, as pids are reused; "" where that is unknown.
        since: when it took the folder, in seconds since 1970.
        native: whether it holds a `flock`.
    """

    pid: int
    host: str
    space: str
    began: str
    since: float
    native: bool

    @classmethod
    def me(cls, *, native: bool) -> Holder:
        """This process, from now on."""
        pid = os.getpid()
        now = time.time()  # noqa: TID251  # to be shown
        return cls(pid, socket.gethostname(), _space(), _began(pid) or "", now, native)

    @classmethod
    def read(cls, output: Path) -> Holder | None:
        """The process that says it holds the folder; None where there is none."""
        with suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
            said = json.loads((output / HOLDER).read_text(encoding="utf-8"))
            pid, since, native = int(said["pid"]), float(said["since"]), bool(said["native"])
            return cls(pid, str(said["host"]), str(said["space"]), str(said["began"]), since, native)
        return None

    @property
    def alive(self) -> bool | None:
        """Whether the process still runs; None where that cannot be found out from here."""
        if (self.host, self.space) != (socket.gethostname(), _space()):
            return None
        began = _began(self.pid)
        return began is not None and began == (self.began or began)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Hold a study's output folder against every other start; it is made if it does not exist.

    If no study has begun in it when the block ends, the folder is left as it was found.

    Raises:
        StudyError: another process holds it, or another thread of this one.
        StoreError: it cannot be written to.
    """
    key = output.absolute().resolve()
    with _changing:
        if _held.get(key) == os.getpid():
            raise _refusal(output, Holder.read(output))
        _held[key] = os.getpid()
    made: list[Path] = []
    try:
        locks = _take(output, made)
        try:
            _refuse_an_earlier_version(output)
            yield
        finally:
            _release(output, locks)
    finally:
        for folder in made:
            with suppress(OSError):  # something is in it
                folder.rmdir()
        with _changing:
            del _held[key]


def holder(output: Path) -> Holder | None:
    """The process that runs the study in a folder now; takes no lock that would refuse a start."""
    found = Holder.read(output)
    if found is None or found.alive is False:
        return None
    return found if found.alive or not found.native or _is_locked(output / LOCK) else None


def _take(output: Path, made: list[Path]) -> list[BaseFileLock]:
    """Take the lock, and write down who did; folders made for it are added to `made`, the innermost first."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            made += _make(output)
            locks = _locks(output)
        except FileNotFoundError as error:  # another start that was refused removed its folder again
            if time.monotonic() > deadline:
                raise _unwritable(output, error) from error
        except Timeout:
            found = Holder.read(output)
            if (found and found.alive) or time.monotonic() > deadline:
                raise _refusal(output, found) from None
        except OSError as error:
            raise _unwritable(output, error) from error
        else:
            break
        time.sleep(PAUSE)
    try:
        with whole(output / HOLDER) as draft:
            me = Holder.me(native=not isinstance(locks[-1], SoftFileLock))
            draft.write_text(json.dumps(asdict(me)), encoding="utf-8")
    except OSError as error:
        _release(output, locks)
        raise _unwritable(output, error) from error
    return locks


def _locks(output: Path) -> list[BaseFileLock]:
    """The locks that hold a folder, the most reliable last.

    Raises:
        Timeout: somebody else holds one.
    """
    taken: list[BaseFileLock] = []
    try:
        native: BaseFileLock = FileLock(output / LOCK, thread_local=False, fallback_to_soft=False)
        marker: BaseFileLock = SoftFileLock(output / MARKER, thread_local=False)
        try:
            native.acquire(timeout=0)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            other = Holder.read(output)
            if other and other.native and other.alive is not False:  # it runs where there is `flock`
                raise Timeout(str(output / HOLDER)) from None
            marker.acquire(timeout=0)
            return [marker]
        taken.append(native)
        if (output / MARKER).exists():  # from a machine where this file system has no `flock`
            marker.acquire(timeout=0)
            taken.insert(0, marker)
    except BaseException:
        for lock in taken:
            lock.release()
        raise
    return taken


def _release(output: Path, locks: list[BaseFileLock]) -> None:
    with suppress(OSError):
        (output / HOLDER).unlink(missing_ok=True)
        if not holds_study(output):
            (output / LOCK).unlink(missing_ok=True)
    for lock in locks:
        with suppress(OSError):
            lock.release()


def _make(output: Path) -> list[Path]:
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]
    output.mkdir(parents=True, exist_ok=True)
    return missing


def _refuse_an_earlier_version(output: Path) -> None:
    path = output / EARLIER_LOCK
    if not path.exists():
        return
    try:
        FileLock(path, fallback_to_soft=False).acquire(timeout=0).lock.release()
    except Timeout:
        raise _refusal(output, None) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise _unwritable(output, error) from error


def _refusal(output: Path, found: Holder | None) -> StudyError:
    who = f"{found}," if found else "another one"
    advice = "wait for it"
    if found and found.alive is None and not found.native:
        advice = f"wait for it; or, if it no longer runs, remove {output / MARKER} and {output / HOLDER}"
    return StudyError(f"one process at a time may run a study, but {who} runs {output}; {advice}.")


def _unwritable(output: Path, error: OSError) -> StoreError:
    return StoreError(f"the study's folder {output} cannot be locked: {in_a_line(error)}. Give another `output`.")


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the `flock`; tried with a shared one, and a start that meets that one tries again."""
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is not there, or may not be read
        return False
    return False


def _began(pid: int) -> str | None:
    """When a process was started; "" where that is unknown, None where there is no such process."""
    if not is_alive(pid):
        return None
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"  # dead, and not yet waited for
    return ""


def _space() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return ""
