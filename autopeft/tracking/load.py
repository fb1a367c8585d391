"""The machine's load while a study searches, under the names that MLflow's UI shows as "System metrics".

MLflow has a thread for this, but it calls the store itself and ends when the store is away. Here its monitors are read,
and their values go through the outbox like everything else.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL

from autopeft.common.exceptions import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MONITORS = {
    "cpu_monitor": "CPUMonitor",
    "disk_monitor": "DiskMonitor",
    "network_monitor": "NetworkMonitor",
    "gpu_monitor": "GPUMonitor",
    "rocm_monitor": "ROCMMonitor",
}
"""MLflow's monitors, by module. The first three need psutil, the others a GPU and nvidia-ml-py or pyrsmi."""

SECONDS, SHORTEST = 10.0, 1.0
"""Seconds between samples, as in MLflow; and seconds that a block must take to be sampled at all."""


@contextmanager
def sampling(log: Callable[[dict[str, float]], None]) -> Iterator[None]:
    """Sample in a separate thread while the block runs, and at its end; values that cannot be read are left out.

    Args:
        log: takes each sample, a value by name.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_sample, args=(log, ended), name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5.0)  # a driver that hangs must not hold up the end of a study


def _sample(log: Callable[[dict[str, float]], None], ended: threading.Event) -> None:
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # it warns of each value a GPU does not give
    started = time.monotonic()
    interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SECONDS
    monitors = _monitors()
    while monitors and not ended.is_set():
        ended.wait(interval)
        if time.monotonic() - started < min(interval, SHORTEST):
            return
        sample: dict[str, float] = {}
        for monitor in monitors:
            with suppress(Exception):  # a disk or a driver that went away
                monitor.collect_metrics()
                sample |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        # The study has ended without waiting and its outbox is closed; or the disk is full, which others report.
        with suppress(ValueError, StoreError):
            log({f"system/{name}": float(value) for name, value in sample.items()})


def _monitors() -> list[Any]:
    found = []
    for module, name in MONITORS.items():
        with suppress(Exception):  # the package, the device or its driver is not there
            monitor = getattr(import_module(f"mlflow.system_metrics.metrics.{module}"), name)()
            monitor.collect_metrics()  # a CPU's load is that since the previous reading, and the first reading is 0
            monitor.clear_metrics()
            found.append(monitor)
    return found
