"""A worker of a study as a Ray actor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import ray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from autopeft import TrialWorker

REPLY_SECONDS = 5.0
"""Longest time until an actor replies that nothing new has happened: so a reply that does not come shows a hang."""


class Place(NamedTuple):
    """Where an actor runs: the id and the address of its node."""

    node: str
    address: str


class Actor:
    """Passes calls on to a `TrialWorker`. Each but the first two returns the worker's messages since the last one.

    Args:
        gpu: whether it has a GPU; without one it must see none.
        folder: where it may keep its files; None: the system's folder for temporary ones.
    """

    def __init__(self, folder: Path | None, *, gpu: bool) -> None:
        if not gpu:  # Ray leaves all GPUs in sight of an actor that asks for none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._folder = folder
        self._worker: TrialWorker

    def place(self) -> Place:
        """Say where this is, as soon as it has found room."""
        return Place(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())

    def look(self, order: Any) -> bool:
        """Get what the study is, and say whether the base model is missing here."""
        from autopeft import TrialWorker

        self._worker = TrialWorker(order, self._folder)
        return self._worker.lacks_model

    def begin(self, rows: Any, threads: int, files: list[tuple[str, Any]]) -> Any:
        """Prepare, with pieces of the base model that are read from the object store one by one."""
        self._worker.begin(rows, threads, _pieces(files))
        return self.wait()

    def start(self, trial: Any) -> Any:
        """Run a trial to its first report."""
        self._worker.start(trial)
        return self.wait()

    def go_on(self, answer: str | None) -> Any:
        """Go on from a rung to the next report."""
        self._worker.answer(answer)
        return self.wait()

    def wait(self) -> Any:
        """The next reports, or none if there are none for a while."""
        return self._worker.messages(REPLY_SECONDS)

    def close(self) -> None:
        """Leave no files behind; the process is ended next."""
        self._worker.close()


def _pieces(files: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, piece in files:
        yield name, ray.get(piece)
