"""What fails on a machine is told from what a method does wrong."""

import errno
import os
import resource
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from autopeft.common import machine
from autopeft.common.console import make_console
from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import MachineError, OverBudgetError, PluginError, StreamError
from autopeft.training.batch import Batch
from autopeft.training.packing_check import packable
from tests.forking import Child


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room on the disk"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "make room"),
        (caused(ValueError("no weights"), OSError(errno.EIO, "Input/output error")), "check the device"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
    ],
)
def test_what_no_method_can_help_is_the_machines(error, words):
    assert words in machine.fault(error)
    with pytest.raises(MachineError, match="run the same command again"), unguarded(), guarded(60):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a planted fault"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),  # a method's own: whoever reads our output is still there
        MemoryError(),  # with memory to spare
        RuntimeError("could not create a primitive"),
        OverBudgetError("a step needed 2 GiB"),
    ],
)
def test_what_a_method_does_is_its_own(error):
    assert machine.fault(error) == ""
    with pytest.raises(type(error)) as raised, unguarded(), guarded(60):
        raise error
    assert raised.value is error


def taken() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def limited(kind: int, limit: int) -> None:
    resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def asks(what) -> int:
    """The exit status of a child: 1 where its fault is the machine's, 0 where it is its own."""
    try:
        with unguarded(), guarded(60):
            what()
    except MachineError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    except (RuntimeError, MemoryError):
        return 0
    return 2


def test_memory_that_the_system_refuses_is_the_machines_fault_where_it_has_none_left(tmp_path):
    assert not machine.short_of_memory()

    def work():
        limited(resource.RLIMIT_AS, taken() + 2**26)
        return asks(lambda: torch.zeros(2**26))  # 256 MiB

    child = Child(work, tmp_path)
    assert "the machine has no memory left (RuntimeError: " in child.line("memory")
    assert child.wait() == (1, "")
    assert asks(lambda: torch.zeros(2**50)) == 0, "no machine has so much"


def test_files_that_may_not_be_opened_are_the_machines_fault(tmp_path):
    def work():
        limited(resource.RLIMIT_NOFILE, 3)
        return asks(lambda: os.open(os.devnull, os.O_RDONLY))

    child = Child(work, tmp_path)
    assert "Too many open files" in child.line("ulimit -n")
    assert child.wait()[0] == 1


def test_a_method_that_prints_to_nobody_is_not_at_fault(tmp_path):
    def work():
        while True:
            try:
                with unguarded(), guarded(60):
                    print("what a method has to say", flush=True)  # noqa: T201  # as methods do
            except StreamError:
                return 1
            except BrokenPipeError:
                return 2

    child = Child(work, tmp_path)
    child.line("a method")
    child.stdout.close()
    assert child.wait()[0] == 1


def test_a_console_that_nobody_reads_says_so_and_ends_no_process(tmp_path):
    def work():
        console = make_console()
        try:
            while True:
                with unguarded(), guarded(60):
                    console.print("a line")
        except StreamError:
            console.print("nothing more")
            return 1
        except (PluginError, SystemExit):
            return 2

    child = Child(work, tmp_path)
    child.line("a line")
    child.stdout.close()
    assert child.wait() == (1, "")


def test_whether_folds_can_be_packed_is_not_decided_by_a_fault_of_the_machine():
    def make():
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        packable(make, lambda model, batch: {}, Batch({}, (2, 2)), torch.float32)
