"""Ray for autopeft: trials on many machines."""

from __future__ import annotations

from autopeft import BackendFactory, hookimpl
from autopeft_ray.factory import RayFactory


@hookimpl
def register_backends() -> list[BackendFactory]:
    """Ray."""
    return [RayFactory()]
