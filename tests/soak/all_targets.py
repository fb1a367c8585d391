"""All that is killed; a new backend or store is one more class, and a name here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.ray_targets import RayDriver, RayNode, RayWorker
from tests.soak.targets import (
    AtAChange,
    Database,
    Driver,
    Server,
    Target,
    Trials,
    WithWorkers,
    WithWorkersAtAChange,
    Worker,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGETS: Sequence[type[Target]] = (
    Target, AtAChange, WithWorkers, WithWorkersAtAChange, Driver, Worker, Server, Database, Trials,
    RayDriver, RayWorker, RayNode,
)  # fmt: skip
