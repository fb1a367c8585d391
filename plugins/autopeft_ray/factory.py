"""Ray as a backend; Ray itself is imported only when a study runs on it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

from autopeft import BackendFactory

if TYPE_CHECKING:
    from autopeft import Backend, StudyWork

LOCAL, AUTO = "local", "auto"
"""Addresses with a meaning of their own: a cluster that is started for the study, and the one of this machine."""

HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}")


class RayFactory(BackendFactory):
    """Runs trials in Ray actors, on this machine or on a cluster."""

    contract = 1
    name = "ray"

    def check(self, address: str | None) -> None:
        """Ray must be installed, and an address must be one that it joins directly."""
        from autopeft import SpecError, quoted

        try:
            distribution("ray")
        except PackageNotFoundError:
            raise SpecError(
                '`backend` in [search] is "ray", but Ray is not installed; run `pip install "autopeft[ray]"` here, and '
                "on every machine of the cluster."
            ) from None
        if address not in (None, LOCAL, AUTO) and not HOST_AND_PORT.fullmatch(address):
            raise SpecError(
                '`address` in [search] must be "auto", or "host:port" of a Ray cluster to which this machine belongs, '
                f'but got {quoted(address)}; the default, "local", starts Ray on this machine.'
            )

    def make(self, work: StudyWork) -> Backend:
        """A backend that starts Ray or joins a cluster when its block begins."""
        from autopeft_ray.cluster import environment

        with environment(work.address):  # Ray reads a part of it as it is imported
            from autopeft_ray.backend import RayBackend

        return RayBackend(work)
