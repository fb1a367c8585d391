"""Addresses of MLflow stores: how a path is written as one, and which registry belongs to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url
from sqlalchemy.engine import URL

from autopeft.common.exceptions import TrackingError
from autopeft.study.folder import STORE

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

DATABASES = ("sqlite", "mysql", "postgresql", "mssql")


def tracking_uri(uri: str | None, output: Path) -> str:
    """The store a study logs to: the one its file names, or SQLite in its output folder."""
    return uri or sqlite_uri(output / STORE)


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite file, whatever characters its path has.

    Raises:
        TrackingError: the installed SQLAlchemy has no way to write this path.
    """
    whole = str(path.absolute())
    plain, written = f"sqlite:///{whole}", URL.create("sqlite", database=whole).render_as_string()
    for address in (plain, written):  # MLflow also reads a plain one as a path
        if make_url(address).database == whole and not make_url(address).query:
            return address
    raise TrackingError(f"the path of the output folder must not contain ? or %, but is {path.parent}; give another.")


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite address; None for any other address, and for one that is in memory or has arguments."""
    if not uri.startswith("sqlite:"):
        return None
    url = make_url(uri)
    return Path(url.database) if url.database and url.database != ":memory:" and not url.query else None


def registry_uri(uri: str) -> str:
    """The registry that belongs to a store, whatever MLFLOW_REGISTRY_URI says; Databricks has one of its own."""
    return re.sub(r"^databricks(?=$|:)", "databricks-uc", uri)


def is_server(uri: str) -> bool:
    """Whether the URI is an MLflow server's, not a database or folder that this process opens itself."""
    return not uri.startswith(("sqlite:", "file:", "mysql", "postgresql", "mssql", "/", "."))


def open_afresh(uri: str) -> None:
    """Make MLflow reopen a database: what it caches for a whole process may point to files that were removed or moved.

    If the address of a path has escapes, MLflow would also make a folder of that name before it opens the right one.
    """
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking
    from mlflow.tracking._tracking_service import utils

    getattr(utils, "_artifact_repos_cache", {}).clear()
    for store in (Tracking, Registry):
        known: dict[str, Engine] | None = getattr(store, "_engine_map", None)
        if known is not None and uri in known:
            known[uri].dispose()
        elif known is not None and "%" in uri:
            known[uri] = create_sqlalchemy_engine(uri)
