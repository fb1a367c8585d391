"""The files of a base model in Ray's object store, for nodes that lack them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import ray

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PIECE = 2**26
"""Bytes of a piece: a node reads one after another, so that large weights need little room in its object store."""


def pieces(files: Mapping[str, Path]) -> list[tuple[str, Any]]:
    """Put files into the object store, from where each node gets them once; returns names and references in order."""
    found = []
    for name, path in files.items():
        for start in range(0, max(1, path.stat().st_size), PIECE):
            piece = np.fromfile(path, np.uint8, count=PIECE, offset=start)
            found.append((name, ray.put(piece)))
    return found
