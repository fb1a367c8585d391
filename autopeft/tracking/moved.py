"""A study's folder that was moved or copied: MLflow's store in it has absolute paths of its artifacts."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from autopeft.study.folder import EARLIER_LOCK

PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns of MLflow's tables that hold the address of a folder."""


def follow(database: Path, artifacts: Path) -> bool:
    """Make the store in a study's own folder point to the artifacts beside it; returns whether it changed.

    Addresses below any other folder stay as they are. Nothing changes while a process runs the study, or if the
    artifacts were left behind at their old place.

    Args:
        database: the store.
        artifacts: the study's folder of artifacts.

    Raises:
        sqlite3.Error: the store cannot be read or written.
    """
    here = artifacts.absolute().as_uri()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        columns = [(table, column) for table, names in PLACES.items() for column in names]
        if not all(_has(connection, *place) for place in columns):
            return False
        old = [root for root in _roots(connection, artifacts.name) if root != here and _left(root, artifacts)]
        if not old:
            return False
        try:
            with FileLock(artifacts.parent / EARLIER_LOCK, timeout=0):
                connection.execute("BEGIN IMMEDIATE")
                for table, column in columns:
                    for root in old:
                        connection.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (here, len(root) + 1, root, len(root) + 1, f"{root}/"),
                        )
                connection.execute("COMMIT")
        except Timeout:
            return False
    return True


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return column in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _roots(connection: sqlite3.Connection, name: str) -> list[str]:
    """Where the experiments of this store, which a study made, have their artifacts."""
    rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
    return [root for (root,) in rows if root and root.startswith("file:///") and root.endswith(f"/{name}")]


def _left(root: str, artifacts: Path) -> bool:
    """Whether a recorded folder is not the one beside the store, and no longer the one to use."""
    recorded = Path(unquote(urlsplit(root).path))
    if not recorded.is_dir():
        return True
    return artifacts.is_dir() and not os.path.samefile(recorded, artifacts)
