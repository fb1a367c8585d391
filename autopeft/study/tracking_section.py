"""The table of a study file that says where trials are kept and logged."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, model_validator

from autopeft.common.address import ARTIFACTS, holds_no_secret, is_database
from autopeft.common.paths import as_path
from autopeft.study.sections import Section


class TrackingSection(Section):
    """Where trials are kept and logged. Put credentials into the environment: no address here may hold a password."""

    uri: str | None = None
    """An MLflow tracking URI. Default: a SQLite store in the output folder."""
    artifacts: str | None = Field(None, min_length=1)
    """Where MLflow keeps files, such as the saved winner: a folder, or an address such as "s3://bucket/path". Default:
    what the server is set to, or the output folder with any other store. It cannot change once the study has begun."""
    storage: str = "journal"
    """Where Optuna keeps the trials: "journal" is a file in the output folder. A database, such as
    "sqlite:///trials.db" or "postgresql://user@host/db", can hold many studies and be read by others meanwhile."""
    system_metrics: bool = True
    """Whether to log the load of the machine during the search; of GPUs too if `nvidia-ml-py` is installed."""

    @model_validator(mode="after")
    def _checked(self) -> TrackingSection:
        if self.uri and not holds_no_secret(self.uri):
            raise ValueError(
                "`uri` must not hold a password, a token or a setting that could be one, so it is not repeated here; "
                'write it as "https://host:5000", "postgresql://user@host/db" or "sqlite:///trials.db", and set '
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN, or PGPASSWORD for a "
                "database, in the environment"
            )
        if self.artifacts and not holds_no_secret(self.artifacts, ARTIFACTS):
            raise ValueError(
                "`artifacts` must not hold a password, a token or a setting that could be one, so it is not repeated "
                'here; write it as "s3://bucket/path" or as a folder, and put what the store\'s client reads, such as '
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, into the environment"
            )
        if self.artifacts and not _has_scheme(self.artifacts):
            try:
                as_path(self.artifacts)
            except ValueError as error:
                raise ValueError(f"`artifacts` {error}") from None
        if self.database is not None and not (is_database(self.database) and holds_no_secret(self.database)):
            raise ValueError(
                '`storage` must be "journal", or the address of a database without a password, a token or a setting '
                "that could be one, so it is not repeated here; write it as "
                '"postgresql://user@host/db" or "sqlite:///trials.db", and set PGPASSWORD in the environment'
            )
        if self.database and self.database == self.uri:
            raise ValueError(
                "`uri` and `storage` must be two databases, because MLflow and Optuna both keep the version of their "
                "tables in one of the same name; give each a database of its own, or a schema: "
                '"postgresql://user@host/db?options=-csearch_path%3Doptuna"'
            )
        return self

    @property
    def database(self) -> str | None:
        """The address of the database that holds the trials; None where a file in the output folder does."""
        return None if self.storage == "journal" else self.storage

    def starting_at(self, folder: Path) -> TrackingSection:
        """The same with paths of SQLite files and of artifacts that start at `folder`."""
        moved = {"uri": _sqlite_at(self.uri, folder), "storage": _sqlite_at(self.storage, folder)}
        if self.artifacts and not _has_scheme(self.artifacts):
            moved["artifacts"] = (folder / as_path(self.artifacts)).as_uri()
        return self.model_copy(update=moved)


def _has_scheme(place: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*:/", place, re.IGNORECASE) is not None


def _sqlite_at(uri: str | None, folder: Path) -> str | None:
    """An address whose path of a SQLite file starts at `folder`, whose own % and ? are escaped."""
    path = re.fullmatch(r"sqlite:///(?![/:])(.+)", uri or "")
    escaped = Path(str(folder).replace("%", "%25").replace("?", "%3F"))
    return f"sqlite:///{escaped / path[1]}" if path else uri
