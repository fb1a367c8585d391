"""What is killed while a study runs on Ray: its driver, one of its workers, or a node of its cluster."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.processes import alive, descendants
from tests.search.test_run import edit
from tests.soak.harness import RayChild
from tests.soak.ray_nodes import Nodes
from tests.soak.targets import LONGEST_PAUSE, Killed, Target, Worker

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from tests.soak.books import Whole

LEFT = 180.0
"""Seconds for Ray's own processes to notice that their driver is gone, and end."""


class RayDriver(Target):
    """The study's process, with a Ray cluster of its own: that must notice, and end."""

    name, kills = "ray-driver", 2
    kind = RayChild

    def missing(self) -> str:
        """Ray."""
        return "" if find_spec("ray") else "it needs Ray (pip install autopeft[ray])"

    @contextmanager
    def world(self, study: Path) -> Iterator[None]:
        """On a cluster of the study's own."""
        with super().world(study):
            edit(study, (f"workers = {self.workers}", f'workers = {self.workers}\nbackend = "ray"'))
            yield

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """At a time."""
        child = self.started(study, drawn, whole)
        found = descendants(child.pid) if child.runs else []
        hit = child.kill()
        deadline = time.monotonic() + LEFT
        while left := [pid for pid in found if pid != child.pid and alive(pid)]:
            assert time.monotonic() < deadline, f"the study was killed, but these processes of Ray were not: {left}"
            time.sleep(0.2)
        child.code = child.wait()
        return Killed(child, hit)


class RayWorker(RayDriver):
    """One of two workers: the study replaces it, and goes on."""

    name, workers, kills = "ray-worker", 2, 2
    codes = Worker.codes
    kill = Worker.kill


class RayNode(RayDriver):
    """One of two nodes of a cluster, and another comes after a moment: trials go on elsewhere."""

    name, workers, kills = "ray-node", 2, 2
    codes = (0,)

    @contextmanager
    def world(self, study: Path) -> Iterator[None]:
        """On a cluster that the user started."""
        with super().world(study), ExitStack() as stack:
            self._nodes = Nodes(2)
            stack.callback(self._nodes.close)
            edit(study, ('backend = "ray"', f'backend = "ray"\naddress = "{self._nodes.address}"'))
            yield

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """At a time."""
        child = self.started(study, drawn, whole)
        hit = child.runs
        self._nodes.lose()
        time.sleep(drawn.uniform(0, LONGEST_PAUSE))
        self._nodes.add()
        child.code = child.wait()
        return Killed(child, hit)
