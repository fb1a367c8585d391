"""What a Ray cluster has room for, and which of its nodes are left."""

from __future__ import annotations

from typing import Any

import ray

CPUS_PER_WORKER = 2


def alive() -> list[dict[str, Any]]:
    """The nodes of the cluster that are left."""
    return [node for node in ray.nodes() if node["Alive"]]


def room(nodes: list[dict[str, Any]], *, gpu: bool) -> int:
    """How many workers nodes have room for: one for each GPU, or for every two CPUs, and one on a node with one CPU.

    Args:
        nodes: as `ray.nodes` describes them.
        gpu: whether a worker needs a GPU.
    """
    found = [node["Resources"].get("GPU" if gpu else "CPU", 0.0) for node in nodes]
    return sum(int(count) if gpu else max(1, int(count // CPUS_PER_WORKER)) for count in found if count >= 1)


def threads(nodes: list[dict[str, Any]], workers: int) -> int:
    """CPU threads for each of so many workers on these nodes."""
    return max(1, int(sum(node["Resources"].get("CPU", 0.0) for node in nodes)) // max(1, workers))
