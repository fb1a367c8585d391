"""A database that holds the trials of several studies, as Optuna's RDB storage, and a study's own entry in it."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage

from autopeft.common import plain_file
from autopeft.common.address import public
from autopeft.common.exceptions import SpecError, StoreError, UserInputError, in_a_line
from autopeft.common.files import whole
from autopeft.common.sqlite import use_write_ahead_log
from autopeft.study.folder import DATABASE
from autopeft.study.one_writer import OneWriterStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

OWNER = "autopeft_output"
"""The system attribute of a study in a database that says which output folder it belongs to."""

SOON = re.compile(
    r"already exists|duplicate|unique constraint|database is locked|deadlock|no such table", re.IGNORECASE
)
"""What databases say while another process makes the same tables."""

ATTEMPTS, PAUSE = 8, 0.25
"""How often a database is opened while others make its tables, and about how many seconds between."""


OPTIONS = {"pool_pre_ping": True}
"""For SQLAlchemy: a trial may take longer than a database keeps an idle connection."""


@dataclass(frozen=True)
class Entry:
    """Which study in which database belongs to an output folder.

    Attributes:
        url: of the database.
        name: of the study in it.
        owner: a random text that the study there has too, so that no other folder's study is taken for it.
    """

    url: str
    name: str
    owner: str

    @classmethod
    def of(cls, output: Path) -> Entry | None:
        """The entry of an output folder; None where its trials are in no database.

        Raises:
            UserInputError: the file that says it is damaged.
        """
        path = output / DATABASE
        try:
            return cls(**plain_file.read_json(path))
        except FileNotFoundError:
            return None
        except TypeError as error:
            raise UserInputError(
                f"{path} must say which database holds the trials, but cannot be read: {in_a_line(error)}. Restore a "
                f"copy, or remove {output} to start over."
            ) from None

    def keep(self, output: Path) -> None:
        """Write it into the output folder."""
        with whole(output / DATABASE, lasting=True) as draft:
            draft.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def find(self, storage: RDBStorage) -> int | None:
        """The id of the study in the database; None where there is none of the name.

        Raises:
            SpecError: the study of that name there is another folder's.
        """
        with reaching(self.url):
            try:
                found = storage.get_study_id_from_name(self.name)
            except KeyError:
                return None
            owner = storage.get_study_system_attrs(found).get(OWNER)
            # A process that was killed may have made it without an owner, and then wrote nothing into it.
            mine = owner == self.owner if owner else not storage.get_study_user_attrs(found)
        if not mine:
            raise taken(self.url, self.name)
        return found


class Database(OneWriterStorage):
    """A database, with what is missing in it made, and the study of an output folder in it.

    Args:
        url: of the database.
        output: the folder.

    Raises:
        SpecError: its driver is not installed.
        StoreError: it cannot be reached or used.
    """

    def __init__(self, url: str, output: Path) -> None:
        self._output = output
        path = _sqlite_path(url)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with reaching(url):
                    if path:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        use_write_ahead_log(path)
                    _require_ours(url)
                    super().__init__(url, {**OPTIONS})
            except StoreError as error:
                if attempt == ATTEMPTS or not SOON.search(str(error)):
                    raise
                time.sleep(PAUSE * random.uniform(0.5, 1.5))
            else:
                return

    def own(self) -> list[int]:
        """The id of the folder's study here, if it has begun.

        Raises:
            SpecError: it has begun in another database, or another folder has the study of its name here.
        """
        before = Entry.of(self._output)
        if before is None:
            return []
        entry = replace(before, url=self.url)
        found = entry.find(self)
        if found is None and before.url != self.url:
            raise SpecError(
                f'the study "{entry.name}" was begun in the database {public(before.url)}, but {public(self.url)} does '
                "not hold it; restore `storage` in [tracking], or move the database there first."
            )
        if found is not None:
            self.set_study_system_attr(found, OWNER, entry.owner)
        entry.keep(self._output)
        return [] if found is None else [found]

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Make the folder's study; the folder says so first, so that a process killed meanwhile leaves nothing behind.

        Raises:
            SpecError: another folder has the study of that name here.
        """
        assert study_name
        before = Entry.of(self._output)
        entry = replace(before or Entry(self.url, study_name, uuid.uuid4().hex), name=study_name)
        entry.keep(self._output)
        try:
            found = super().create_new_study(directions, study_name)
        except DuplicatedStudyError:
            if before is None:
                (self._output / DATABASE).unlink()
            raise taken(self.url, study_name) from None
        self.set_study_system_attr(found, OWNER, entry.owner)
        return found

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Make a trial with the number that it has for its study.

        Raises:
            StoreError: another process adds trials to the study, such as one that runs a copy of the output folder.
        """
        made = self._create_new_trial(study_id, template_trial)
        if template_trial and made.number != template_trial.number:
            raise StoreError(
                "one process at a time may run a study, but another one adds trials to this one in "
                f"{public(self.url)}; end it, and run the same command again. A copy of an output folder needs "
                "another `name`."
            )
        return made._trial_id


def open_database(url: str) -> RDBStorage:
    """Open a database for reading.

    Raises:
        SpecError: its driver is not installed.
        StoreError: it does not exist, or cannot be reached.
    """
    path = _sqlite_path(url)
    if path and not path.is_file():  # SQLite would make it
        raise StoreError(f"the study's database {path} does not exist; restore it.")
    with reaching(url):
        return RDBStorage(url, {**OPTIONS}, skip_table_creation=True)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Put this around all that uses a database.

    Raises:
        SpecError: its driver is not installed.
        StoreError: the database cannot be reached, or refuses.
    """
    try:
        yield
    except ImportError as error:
        lack = in_a_line(error.__cause__ or error)
        raise SpecError(
            f"`storage` in [tracking] needs the driver of the database {public(url)}: {lack}. For PostgreSQL run "
            "`pip install 'autopeft[postgres]'`."
        ) from None
    except Exception as error:
        from sqlalchemy.exc import SQLAlchemyError  # a study without a database need not wait for this import

        if not isinstance(error, (StorageInternalError, SQLAlchemyError, sqlite3.Error, RuntimeError, OSError)):
            raise
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        said = public(str(cause).strip().partition("\n")[0])
        raise StoreError(
            f"the database {public(url)} cannot be used: {said.rstrip('.')}. Check that it runs, its address in "
            "`storage` in [tracking], and the variables that its driver reads, such as PGPASSWORD. Then run the same "
            "command again: the trials that finished are kept."
        ) from error


def taken(url: str, name: str) -> SpecError:
    """The refusal of a name that another study in the database has."""
    return SpecError(
        f'the database {public(url)} already holds a study "{name}" that belongs to another output folder; give this '
        "study another `name`, or run it with the other one's `output`."
    )


def _require_ours(url: str) -> None:
    """Check that a database is empty or Optuna's: programs that use Alembic keep their versions in one table.

    Raises:
        SpecError: another program's tables are in it.
    """
    from sqlalchemy import create_engine, inspect

    engine = create_engine(url)
    try:
        tables = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if "alembic_version" in tables and "studies" not in tables:
        raise SpecError(
            f"the database {public(url)} has another program's tables, such as MLflow's; give `storage` in [tracking] "
            "a database, or a schema, of its own."
        )


def _sqlite_path(url: str) -> Path | None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    with suppress(ArgumentError):
        found = make_url(url)
        if found.get_backend_name() == "sqlite" and found.database and not found.database.startswith("file:"):
            return Path(found.database)
    return None
