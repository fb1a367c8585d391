"""Calls to MLflow by their names, such as `create` and `log`; each may be sent twice without harm."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES, MLFLOW_PARENT_RUN_ID

from autopeft.tracking.refusal import UnsendableError

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "autopeft.run"
"""The tag that holds a run's key, by which a run is found again whatever its id in MLflow."""

MLFLOW_IMAGES, LAST_OF_IMAGE = "images", "+compressed.webp"
"""The folder where MLflow keeps the pictures of a run, and how the name of a picture's second file ends."""


class Sender:
    """Makes calls to a store.

    Args:
        client: of the store.
        experiment_id: where its runs are.
        output: the study's folder, where relative paths in calls start.

    Attributes:
        sure: whether the next call cannot have been sent before; then a run is created without searching for it.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, output: Path) -> None:
        self._client, self._experiment_id, self._output = client, experiment_id, output
        self._ids: dict[str, str] = {}
        self.sure = False

    def send(self, do: str, run: str, *, late: bool = False, **content: Any) -> None:
        """Make the call `do` for the run with the key `run`.

        Args:
            do: the name of the call.
            run: the run's key.
            late: whether later calls were already sent; what they said about the run then stays.
            content: of the call.

        Raises:
            UnsendableError: there is no such call, or what it should send does not exist.
            Exception: whatever the store raises.
        """
        action = getattr(self, f"_send_{do}", None)
        if action is None:
            raise UnsendableError(f'there is no call "{do}"')
        if late:
            content = self._without_old_news(do, run, content)
        if content or do != "status":
            action(run, **content)

    def answers(self) -> bool:
        """Whether the store answers, whatever it says to other calls."""
        try:
            self._client.get_experiment(self._experiment_id)
        except Exception:  # stores raise their own: requests', sqlalchemy's, OSError
            return False
        return True

    def know(self, key: str, run_id: str) -> None:
        """Remember the id of a run that was found in the store."""
        self._ids[key] = run_id

    def _without_old_news(self, do: str, run: str, content: dict[str, Any]) -> dict[str, Any]:
        """The content of a late call without what would overwrite later calls."""
        if do == "status" and self._client.get_run(self._id(run)).info.status != "RUNNING":
            return {}
        if do == "log" and content.get("tags"):
            there = self._client.get_run(self._id(run)).data.tags
            return {**content, "tags": {key: value for key, value in content["tags"].items() if key not in there}}
        return content

    def _send_create(self, run: str, name: str, tags: dict[str, str], start: int, parent: str | None = None) -> None:
        if self.sure or not self._find(run):
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
            synchronous=True,  # whatever MLFLOW_ENABLE_ASYNC_LOGGING says: what is sent must be there
        )

    def _send_status(self, run: str, status: str, end: int | None = None) -> None:
        if end is None:
            self._client.update_run(self._id(run), status)
        else:
            self._client.set_terminated(self._id(run), status, end)

    def _send_text(self, run: str, text: str, name: str) -> None:
        self._client.log_text(self._id(run), text, name)

    def _send_image(self, run: str, key: str, step: int, png: str) -> None:
        """Log a picture for the UI's image charts, only once: MLflow itself would keep both."""
        from PIL import Image  # a start need not import it

        run_id, known = self._id(run), f"{MLFLOW_IMAGES}/{key.replace('/', '~')}+step+{step}+"
        files = [file.path for file in self._client.list_artifacts(run_id, MLFLOW_IMAGES)]
        if any(file.startswith(known) and file.endswith(LAST_OF_IMAGE) for file in files):
            self._client.set_tag(run_id, MLFLOW_LOGGED_IMAGES, "True", synchronous=True)  # set last
        else:
            image = Image.open(BytesIO(b64decode(png)))
            self._client.log_image(run_id, image, key=key, step=step, synchronous=True)

    def _send_files(self, run: str, folder: str, path: str, weights: str | None = None) -> None:
        self._client.log_artifacts(self._id(run), self._there(folder, weights), path)

    def _send_model(
        self,
        run: str,
        folder: str,
        name: str,
        alias: str,
        params: dict[str, str],
        weights: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
    ) -> None:
        """Log a saved model as the output of a run, and make it the newest version of a registered one.

        If it is there already, its files are written again: more may be known about it now.
        """
        client, key, place = self._client, f"{run}/{alias}", self._there(folder, weights)
        version = {v.tags.get(KEY): v for v in client.search_model_versions(f"name = '{name}'")}.get(key)
        run_id = self._id(run)
        if version is not None:
            made_by = f"source_run_id = '{run_id}'"  # not every store records a version's model
            for model in client.search_logged_models([self._experiment_id], made_by):
                if model.artifact_location == version.source:
                    client.log_model_artifacts(model.model_id, place)
        else:
            model = client.create_logged_model(self._experiment_id, alias, run_id, {KEY: key}, params, "autopeft")
            client.log_model_artifacts(model.model_id, place)
            client.finalize_logged_model(model.model_id, "READY")
            try:
                client.create_registered_model(name)
            except MlflowException as error:  # it is there from an earlier winner
                if error.error_code != codes.ErrorCode.Name(codes.RESOURCE_ALREADY_EXISTS):
                    raise
            version = client.create_model_version(
                name, model.artifact_location, run_id, {KEY: key}, model_id=model.model_id
            )
        client.set_registered_model_alias(name, alias, version.version)
        for tag in (tags or {}).items():
            client.set_registered_model_tag(name, *tag)
            client.set_model_version_tag(name, version.version, *tag)
        if description:
            client.update_registered_model(name, description)
            client.update_model_version(name, version.version, description)

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

    def _there(self, folder: str, weights: str | None) -> str:
        """A folder to send, even if the study's folder was moved since.

        Raises:
            UnsendableError: it is gone, or its content has changed.
        """
        place = self._output / folder
        if not place.is_dir():
            place = self._output / Path(folder).name
        if not place.is_dir() or not any(place.iterdir()):
            raise UnsendableError(f"the folder {self._output / folder} no longer exists")
        if weights is not None and weights != weights_of(place):
            raise UnsendableError(f"the folder {place} holds other weights than those to be sent")
        return str(place)

    def _id(self, run: str) -> str:
        """MLflow's id of a run.

        Raises:
            MlflowException: no run has this key.
        """
        if run not in self._ids and not self._find(run):
            raise MlflowException(f"no run has the key {run}", codes.RESOURCE_DOES_NOT_EXIST)
        return self._ids[run]

    def _find(self, run: str) -> bool:
        found = self._client.search_runs([self._experiment_id], f"tags.`{KEY}` = '{run}'", max_results=1)
        if found:
            self._ids[run] = found[0].info.run_id
        return bool(found)


def weights_of(folder: Path) -> str:
    """A digest of the weights in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
