"""What a study has to tell MLflow: kept in a file until the store has taken it, and sent by a thread of its own.

So a search never waits for MLflow. While a server is away the search goes on, and what it logs is sent when the server
is back, in this start or a later one. Every call may be sent twice without harm: a run is looked up by its key before
it is made a second time, and MLflow keeps a metric point, a param or a tag that it knows already just once.
"""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections import deque
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES, MLFLOW_PARENT_RUN_ID

from autopeft.lock import NO_LOCKS
from autopeft.storage import appending
from autopeft.tracking.store import TrackingError, first_line, public

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow import MlflowClient

KEY = "autopeft.run"
"""The tag that holds a run's key: by it a run is found again, whatever MLflow called it."""

REFUSED = {
    codes.ErrorCode.Name(code)
    for code in (
        codes.INVALID_PARAMETER_VALUE,
        codes.RESOURCE_DOES_NOT_EXIST,
        codes.RESOURCE_ALREADY_EXISTS,
        codes.PERMISSION_DENIED,
        codes.INVALID_STATE,
    )
}
"""MLflow's answers that would be the same another time."""

MLFLOW_IMAGES, LAST_OF_IMAGE = "images", "+compressed.webp"
"""Where MLflow keeps the pictures of a run, and how the name of the second of a picture's two files ends."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between attempts to reach a server that is away; each pause is twice the one before."""

MOST_HELD = 100
"""Calls that wait at most while the outbox is held: what an interrupted search still has time to send."""


class Outbox:
    """Calls to MLflow on their way, in the order they came.

    Args:
        client: of the store.
        experiment_id: where its runs are.
        path: of the file, in a folder that is there.
        say: told in a sentence when the store cannot be reached, when it can again, and what it refused.

    Raises:
        TrackingError: another process has it open.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, path: Path, say: Callable[[str], None]) -> None:
        self._client, self._experiment_id, self._path, self._say = client, experiment_id, path, say
        self._lock = FileLock(f"{path}.lock", timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise TrackingError(
                f"one process at a time may run a study, but another one has {path} open; wait until it ends."
            ) from None
        except OSError as error:  # of a file system without locks: the study's own lock keeps others away
            if error.errno not in NO_LOCKS:
                raise
        self._waiting: deque[dict[str, Any]] = deque(_read(path))
        self._file = path.open("ab", buffering=0)
        self._ids: dict[str, str] = {}
        self._sure = False  # of the first call it is not known whether it was sent before
        self._changed = threading.Condition()
        self._held = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def put(self, do: str, run: str, **content: Any) -> None:
        """Send a call as soon as that can be: `do` names it, `run` is its run's key, `content` is plain JSON.

        Raises:
            StoreError: the outbox's file could not be written.
        """
        call = {"do": do, "run": run, **content}
        with self._changed:
            line = json.dumps(call).encode() + b"\n"
            with appending(self._path):
                while line:
                    line = line[self._file.write(line) :]
            self._waiting.append(call)
            self._changed.notify_all()

    def hold(self) -> None:
        """Keep what comes, as far as it is not much, until `release` or `drain`.

        Two threads of one Python program take each other's time.
        """
        with self._changed:
            self._held = MOST_HELD

    def release(self) -> None:
        """Send what was held."""
        with self._changed:
            self._held = 0
            self._changed.notify_all()

    def drain(self, seconds: float) -> int:
        """Wait until all is sent, but not longer than that; returns how many calls are left."""
        self.release()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=seconds)
            return len(self._waiting)

    def close(self, seconds: float) -> int:
        """Send what can be sent in that time; returns how many calls are left in the file."""
        left = self.drain(seconds)
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout=1.0)
        with self._changed:
            self._file.close()
        self._lock.release()
        return left

    def know(self, key: str, run_id: str) -> None:
        """Take note of a run that was found in the store."""
        self._ids[key] = run_id

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) > self._held or self._closed.is_set())
                if self._closed.is_set():
                    return
                call = self._waiting[0]
            if not self._deliver(call):
                return
            with self._changed:
                if self._closed.is_set():  # it took so long that nobody waited; sent once more it does no harm
                    return
                self._waiting.popleft()
                if not self._waiting:
                    self._file.truncate(0)
                    self._sure = True
                self._changed.notify_all()

    def _deliver(self, call: dict[str, Any]) -> bool:
        """Send a call, however often that takes; False if the outbox was closed before."""
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            try:
                self._send(**call)
            except Exception as error:  # stores raise their own: requests', sqlalchemy's, OSError
                if isinstance(error, MlflowException) and error.error_code in REFUSED:
                    self._say(f"MLflow refused to log something ({call['do']}): {public(first_line(error))}.")
                    return True
                if pause == FIRST_PAUSE:
                    self._say(
                        f"MLflow cannot be reached: {public(first_line(error))}. The search goes on; what it logs is "
                        f"kept in {self._path} and sent when the store is back."
                    )
                self._sure = False
                self._closed.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if pause > FIRST_PAUSE:
                    self._say("MLflow can be reached again.")
                return True
        return False

    def _send(self, do: str, run: str, **content: Any) -> None:
        getattr(self, f"_send_{do}")(run, **content)

    def _send_create(self, run: str, name: str, tags: dict[str, str], start: int, parent: str | None = None) -> None:
        if self._sure or not self._find(run):
            if parent:
                tags = {**tags, MLFLOW_PARENT_RUN_ID: self._id(parent)}
            made = self._client.create_run(self._experiment_id, start, {**tags, KEY: run}, name)
            self._ids[run] = made.info.run_id

    def _send_log(
        self,
        run: str,
        metrics: list[tuple[str, float, int, int]] = (),  # type: ignore[assignment]  # never changed
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        self._client.log_batch(
            self._id(run),
            [Metric(*point) for point in metrics],
            [Param(*item) for item in (params or {}).items()],
            [RunTag(*item) for item in (tags or {}).items()],
        )

    def _send_status(self, run: str, status: str, end: int | None = None) -> None:
        if end is None:
            self._client.update_run(self._id(run), status)
        else:
            self._client.set_terminated(self._id(run), status, end)

    def _send_text(self, run: str, text: str, name: str) -> None:
        self._client.log_text(self._id(run), text, name)

    def _send_image(self, run: str, key: str, step: int, png: str) -> None:
        """Log a picture for the UI's image charts, once: MLflow itself would keep another one beside it."""
        from PIL import Image  # what a start needs not import

        run_id, known = self._id(run), f"{MLFLOW_IMAGES}/{key.replace('/', '~')}+step+{step}+"
        files = [file.path for file in self._client.list_artifacts(run_id, MLFLOW_IMAGES)]
        if any(file.startswith(known) and file.endswith(LAST_OF_IMAGE) for file in files):
            self._client.set_tag(run_id, MLFLOW_LOGGED_IMAGES, "True")  # MLflow sets it last, and may not have come to
        else:
            self._client.log_image(run_id, Image.open(BytesIO(b64decode(png))), key=key, step=step)

    def _send_files(self, run: str, folder: str, path: str) -> None:
        self._client.log_artifacts(self._id(run), folder, path)

    def _send_model(self, run: str, folder: str, name: str, alias: str, params: dict[str, str]) -> None:
        """Log a saved model as what a run made, and make it the newest version of a registered one."""
        client, key = self._client, f"{run}/{alias}"
        known = {} if self._sure else {v.tags.get(KEY): v for v in client.search_model_versions(f"name = '{name}'")}
        version = known.get(key)
        if version is None:
            run_id = self._id(run)
            model = client.create_logged_model(self._experiment_id, alias, run_id, {KEY: key}, params, "autopeft")
            client.log_model_artifacts(model.model_id, folder)
            client.finalize_logged_model(model.model_id, "READY")
            with suppress(MlflowException):  # it is there from an earlier winner
                client.create_registered_model(name)
            version = client.create_model_version(
                name, model.artifact_location, run_id, {KEY: key}, model_id=model.model_id
            )
        client.set_registered_model_alias(name, alias, version.version)

    def _send_datasets(self, run: str, datasets: list[dict[str, str]]) -> None:
        self._client.log_inputs(
            self._id(run),
            [
                DatasetInput(
                    Dataset(**{key: value for key, value in dataset.items() if key != "context"}),
                    [InputTag("mlflow.data.context", dataset["context"])],
                )
                for dataset in datasets
            ],
        )

    def _id(self, run: str) -> str:
        """MLflow's id of a run.

        Raises:
            MlflowException: there is none of that key.
        """
        if run not in self._ids and not self._find(run):
            raise MlflowException(f"no run has the key {run}", codes.RESOURCE_DOES_NOT_EXIST)
        return self._ids[run]

    def _find(self, run: str) -> bool:
        found = self._client.search_runs([self._experiment_id], f"tags.`{KEY}` = '{run}'", max_results=1)
        if found:
            self._ids[run] = found[0].info.run_id
        return bool(found)


def _read(path: Path) -> list[dict[str, Any]]:
    """The calls an earlier start left there; half a line is one that it was killed in the middle of."""
    if not path.is_file():
        return []
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [json.loads(line) for line in lines]
