"""MLflow's tables, made once: in an empty database MLflow replays every change its tables ever had.

That takes longer than everything else a start does for a new study's folder (`benchmarks/startup.py`), and the result
is always the same.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from autopeft.common import cache


def lay(path: Path) -> None:
    """Put a SQLite database with MLflow's empty tables at `path`, unless it exists; if this fails, MLflow makes one."""
    if path.exists():
        return
    name = cache.key("mlflow tables", *(version(package) for package in ("mlflow", "alembic", "sqlalchemy")))
    # Only a shortcut: without it MLflow makes the tables in the store itself, and says what is wrong if it cannot.
    with suppress(Exception):
        content = cache.read(name)
        if content is None:
            content = _make()
            cache.keep(name, content)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
            draft = Path(folder) / path.name
            draft.write_bytes(content)
            os.link(draft, path)  # whole or not at all, and never over a store that was begun meanwhile


def _make() -> bytes:
    """The database that `mlflow db upgrade` makes from scratch."""
    from mlflow.db import upgrade

    with tempfile.TemporaryDirectory() as folder:
        upgrade.callback(f"sqlite:///{folder}/mlflow.db")
        return (Path(folder) / "mlflow.db").read_bytes()
