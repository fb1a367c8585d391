"""A study whose disk is full ends with one sentence, and goes on to the same result when there is room."""

import os
import random

import pytest

from tests.forking import Child
from tests.search.test_run import edit
from tests.soak.books import again, outcome, remove, run, undisturbed
from tests.soak.mount import mounted

TIMES = 12
MEGABYTES = 64
REFUSED = 77
"""The exit code where the system lets nobody mount anything."""

SENTENCES = ("No space left on device", "database or disk is full", "disk I/O error")


def used(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def leave(folder, room: int):
    """Fill a file system but for so many bytes; returns the file that fills it."""
    there, ballast = os.statvfs(folder), folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, there.f_bavail * there.f_frsize - room))
    return ballast


def work(study, workers: int, times: int) -> int:
    """The study on a small file system, with less room than it needs and then with enough, again and again."""
    outputs, drawn, stopped = study.parent / "outputs", random.Random(f"disk {workers}"), 0
    outputs.mkdir()
    try:
        mounted(outputs, MEGABYTES)
    except OSError:
        return REFUSED
    edit(study, ("batch_size = 8", f"batch_size = 8\nworkers = {workers}"))
    assert run(study).code == 0
    needed = used(outputs)
    whole = undisturbed(study, 4)
    for _ in range(times):
        ballast = leave(outputs, drawn.randint(0, needed))
        first = run(study)
        said = " ".join(first.said.split())
        assert first.code in (0, 1, 2), said
        assert "Traceback" not in said, said
        assert first.code == 0 or any(words in said for words in SENTENCES), said
        stopped += first.code != 0
        ballast.unlink()
        result = again(study, 4)
        if workers == 1:
            assert outcome(result) == whole.outcome
        remove(study)
    assert stopped > times / 3
    return 0


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_whose_disk_was_full_goes_on_when_there_is_room(tiny_study, workers):
    code, said = Child(lambda: work(tiny_study, workers, TIMES), tiny_study.parent).wait()
    if code == REFUSED:
        pytest.skip("the system lets nobody mount a file system of their own")
    assert code == 0, said
