"""A Ray cluster of several nodes on this machine, in a process of its own: processes with Ray in them must not fork.

`python -m tests.soak.ray_nodes NODES` starts it and prints its address. Then each line on standard input is answered:
"lose" kills the node that was added last, as in a power cut, "add" starts another; it ends with the input.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


class Nodes:
    """The cluster, seen from here: a head without room for trials, and nodes of one CPU each.

    Args:
        count: of the nodes.

    Attributes:
        address: as `address` in [search] takes it.
    """

    def __init__(self, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.ray_nodes", str(count)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
        )
        self.address = self._line()

    def lose(self) -> None:
        """Kill a node."""
        self._ask("lose")

    def add(self) -> None:
        """Start another, and wait until it has joined."""
        self._ask("add")

    def close(self) -> None:
        """End all."""
        self._process.communicate(timeout=60)

    def _ask(self, what: str) -> None:
        assert self._process.stdin
        print(what, file=self._process.stdin, flush=True)
        answer = self._line()
        assert answer == what, answer

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def serve(count: int) -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder, "ray").mkdir()  # where it writes its address; it takes for granted that the folder is there
        os.environ["RAY_TMPDIR"] = folder
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": folder})
        try:
            nodes = [cluster.add_node(num_cpus=1) for _ in range(count)]
            print(cluster.address, file=out, flush=True)
            for line in sys.stdin:
                if line.strip() == "lose":
                    cluster.remove_node(nodes.pop(), allow_graceful=False)
                else:
                    nodes.append(cluster.add_node(num_cpus=1))
                print(line.strip(), file=out, flush=True)
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
