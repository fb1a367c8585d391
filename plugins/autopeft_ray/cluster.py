"""Connects to Ray: to a cluster of the study's own on this machine, or to one that the user named.

Ray changes more than it is asked to: it takes the handler of SIGTERM, joins a cluster that it finds, listens on all
network interfaces, and writes a token into the home folder. None of that is left here.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autopeft import StudyError
from autopeft_ray.own_folder import FOR_RAY, own_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LEAST_STORE = 100 * 2**20
"""Bytes of the object store of a cluster of our own; Ray would take a third of the machine's memory."""

LONGEST = 400
"""Characters of Ray's own messages that are repeated."""

PATIENCE = 10.0
"""Seconds within which a cluster must answer; Ray itself asks for a quarter of an hour where nothing does."""


@contextmanager
def connected(address: str | None, cpus: int, *, gpus: bool, size: int) -> Iterator[Path | None]:
    """Be connected to Ray in this block; yields a folder that workers may use if they are on this machine.

    Args:
        address: "auto" or "host:port" of a cluster; None or "local" starts one on this machine, which ends with the
            block.
        cpus: how many workers it must have room for, if it is started here.
        gpus: whether workers need GPUs.
        size: bytes of what is sent to workers.

    Raises:
        StudyError: there is no such cluster.
    """
    own = is_own(address)
    with environment(address), _signals_kept() as put_back:
        import ray

        if ray.is_initialized():
            if own:
                raise StudyError(
                    'Ray is in use by this process already; set `address = "auto"` in [search] to have the study run '
                    "there, or call `ray.shutdown()` first."
                )
            yield None
            return
        if not own:
            _join(str(address))
            with _until_shut(put_back):
                yield None
            return
        with own_folder() as folder:
            _start({"num_cpus": cpus, "object_store_memory": LEAST_STORE + 2 * size,
                    "_temp_dir": str(folder / FOR_RAY), **({} if gpus else {"num_gpus": 0})})  # fmt: skip
            with _until_shut(put_back):
                yield folder


@contextmanager
def _until_shut(put_back: Callable[[], None]) -> Iterator[None]:
    """Leave Ray after this block."""
    put_back()
    try:
        yield
    finally:
        import ray

        ray.shutdown()


def _start(given: dict[str, Any]) -> None:
    import ray

    try:
        ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **given)
    except Exception as error:  # Ray raises a bare one if a busy machine does not start it within half a minute
        ray.shutdown()
        told = " ".join(str(error).split())[:LONGEST]
        raise StudyError(
            f"Ray could not be started on this machine: {told} Try again when the machine is less busy, or set "
            "`workers` in [search] without `backend`."
        ) from None


def _join(address: str) -> None:
    import ray

    try:
        _reach(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        told = " ".join(str(error).split())[:LONGEST].removesuffix(".")
        raise StudyError(
            f'no Ray cluster can be joined at `address` = "{address}" in [search]: {told}. This machine must belong to '
            "the cluster: run `ray start --address=HOST:PORT` here, and see `ray status`."
        ) from None


def _reach(address: str) -> None:
    """Check that something listens at "host:port"; Ray finds any other address in its own way.

    Raises:
        OSError: nothing answers there.
        OverflowError: there is no port of that number.
        ValueError: this is no name of a machine.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()


def is_own(address: str | None) -> bool:
    """Whether a cluster is started for the study, and none is joined."""
    return address in (None, "local")


@contextmanager
def environment(address: str | None) -> Iterator[None]:
    """What Ray reads from the environment as it is imported and as it starts; nothing the user has set is replaced.

    A cluster of our own asks for a token, which is Ray's default. It is given here, so that Ray writes none to a file.
    It stays on the loopback interface, which is Ray's habit on macOS and Windows alone. And its workers have the
    priority of workers without Ray: at Ray's own, 15, they hardly run where anything else does.
    """
    ours = {}
    if is_own(address):
        ours = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_TOKEN": _token(),
                "RAY_worker_niceness": "0"}  # fmt: skip
    before = {name: os.environ.get(name) for name in (*ours, "RAY_AUTH_MODE")}  # Ray sets the last one
    os.environ.update({name: value for name, value in ours.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


@functools.cache
def _token() -> str:
    """A token that only this process and those that it starts know; Ray reads it once in a process."""
    return secrets.token_hex(32)


@contextmanager
def _signals_kept() -> Iterator[Callable[[], None]]:
    """Keep this process's handlers of signals, which Ray replaces as it connects; yields what puts them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        if threading.current_thread() is threading.main_thread():  # no other may, and Ray leaves them alone there
            for number, handler in before.items():
                signal.signal(number, handler)

    try:
        yield put_back
    finally:
        put_back()
