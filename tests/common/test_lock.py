"""One process at a time holds a study's folder, whatever the file system can do and however a holder ended."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from filelock import FileLock

from autopeft.common.exceptions import StoreError, StudyError
from autopeft.study import lock
from autopeft.study.folder import EARLIER_LOCK, HOLDER, JOURNAL, LOCK, MARKER
from autopeft.study.lock import Holder, held, holder

NO_FLOCK = """
import errno, fcntl
def flock(*_): raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@contextmanager
def another(output, before=""):
    """A process that holds the folder, after running `before`."""
    code = f"{before}\nimport sys, pathlib; from autopeft.study.lock import held\n"
    code += "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


@pytest.fixture
def without_flock(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def begin(output: Path) -> None:
    """Have a study there, so that the folder stays."""
    output.mkdir(exist_ok=True)
    (output / JOURNAL).touch()


@pytest.mark.parametrize("before", ["", NO_FLOCK], ids=["flock", "no flock"])
def test_a_second_start_is_told_who_holds_the_folder_and_one_whose_holder_was_killed_takes_it(
    tmp_path, before, request
):
    begin(tmp_path)
    with another(tmp_path, before) as process:
        if before:
            request.getfixturevalue("without_flock")
        told = rf"one process .* but process {process.pid} on {socket.gethostname()}, since 2\d\d\d-.*, runs"
        with pytest.raises(StudyError, match=told), held(tmp_path):
            pytest.fail("two hold it")
        assert holder(tmp_path).pid == process.pid
        process.kill()
        process.wait()
        assert holder(tmp_path) is None
        with held(tmp_path):
            assert holder(tmp_path).pid == os.getpid()
        assert holder(tmp_path) is None
        process.stdin.close()
    assert {path.name for path in tmp_path.iterdir()} <= {JOURNAL, LOCK}


@pytest.mark.parametrize("flock", [True, False])
def test_a_process_keeps_itself_out_too(tmp_path, flock, request):
    if not flock:
        request.getfixturevalue("without_flock")
    begin(tmp_path)
    seen = []

    def second():
        try:
            with held(tmp_path / "." / "x" / ".."):
                seen.append("two hold it")
        except StudyError as error:
            seen.append(str(error))

    (tmp_path / "x").mkdir()
    with held(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} on" in seen[0]
    with held(tmp_path):
        pass


def test_whoever_looks_does_not_refuse_a_start(tmp_path):
    begin(tmp_path)
    with held(tmp_path):
        there = Holder.read(tmp_path)
    elsewhere = {**asdict(there), "host": "another-machine"}  # whose process can be asked for with a lock alone
    over = threading.Event()

    def look():
        while not over.is_set():
            holder(tmp_path)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            (tmp_path / HOLDER).write_text(json.dumps(elsewhere))
            with held(tmp_path):
                assert holder(tmp_path).pid == os.getpid()
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_holder_elsewhere_counts_while_its_lock_is_held(tmp_path):
    begin(tmp_path)
    with another(tmp_path) as process:
        there = asdict(Holder.read(tmp_path))
        (tmp_path / HOLDER).write_text(json.dumps({**there, "host": "another-machine"}))
        assert holder(tmp_path).host == "another-machine"
        with pytest.raises(StudyError, match=f"process {process.pid} on another-machine"), held(tmp_path):
            pytest.fail("two hold it")
        process.kill()
        process.wait()
        assert holder(tmp_path) is None
        with held(tmp_path):
            pass
        process.stdin.close()


def test_where_nothing_tells_whether_a_holder_elsewhere_lives_it_does_and_the_way_out_is_told(tmp_path, without_flock):
    begin(tmp_path)
    with held(tmp_path):
        there, marker = asdict(Holder.read(tmp_path)), (tmp_path / MARKER).read_text()
    (tmp_path / HOLDER).write_text(json.dumps({**there, "host": "another-machine"}))
    (tmp_path / MARKER).write_text(marker.replace(marker.split("\n")[1], "another-machine"))
    assert holder(tmp_path) is not None
    with pytest.raises(StudyError, match=rf"another-machine.* remove {tmp_path / MARKER} and .*{HOLDER}"):
        held(tmp_path).__enter__()
    (tmp_path / HOLDER).unlink()
    (tmp_path / MARKER).unlink()
    with held(tmp_path):
        pass


@pytest.mark.parametrize("first", ["", NO_FLOCK], ids=["flock first", "flock second"])
def test_a_machine_with_flock_and_one_without_keep_each_other_out(tmp_path, first, request):
    begin(tmp_path)
    with another(tmp_path, first) as process:
        if not first:
            request.getfixturevalue("without_flock")
        with pytest.raises(StudyError, match=f"process {process.pid} "), held(tmp_path):
            pytest.fail("two hold it")


def test_a_pid_that_was_given_again_is_not_the_holder(tmp_path):
    begin(tmp_path)
    with held(tmp_path):
        there = Holder.read(tmp_path)
        (tmp_path / HOLDER).write_text(json.dumps({**asdict(there), "began": "another-boot 1"}))
        assert holder(tmp_path) is None
        (tmp_path / HOLDER).write_text(json.dumps(asdict(there)))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"pid": 1e400}', '{"pid": "x"}'])
def test_a_damaged_record_says_nothing(tmp_path, content):
    begin(tmp_path)
    (tmp_path / HOLDER).write_text(content)
    assert holder(tmp_path) is None
    with held(tmp_path):
        assert holder(tmp_path).pid == os.getpid()


def test_an_earlier_version_that_runs_the_study_is_heeded(tmp_path):
    begin(tmp_path)
    with FileLock(tmp_path / EARLIER_LOCK), pytest.raises(StudyError, match="but another one runs"), held(tmp_path):
        pytest.fail("two hold it")
    with held(tmp_path):
        pass


def test_a_folder_in_which_no_study_began_is_left_as_it_was(tmp_path):
    with held(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not any(tmp_path.iterdir())
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match="planted"), held(tmp_path / "c"):
        raise ValueError("planted")
    assert not any((tmp_path / "c").iterdir())


def test_a_folder_that_cannot_be_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be locked: .*NotADirectory.* Give another `output`"):
        held(tmp_path / "file" / "output").__enter__()
    with held(tmp_path / "fine"):
        pass


def test_a_process_that_is_stopped_still_holds_it(tmp_path):
    begin(tmp_path)
    with another(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(StudyError, match=f"process {process.pid} "), held(tmp_path):
            pytest.fail("two hold it")
        assert time.monotonic() - started < lock.PATIENCE, "its record says that it is there, at once"
        process.send_signal(signal.SIGCONT)
