"""Download a model's files from the Hugging Face hub: those that transformers would download, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from autopeft.common.exceptions import ModelError
from autopeft.models.files import ADAPTER, CONFIG, INDEX, WEIGHTS

COMMIT = re.compile(r"[0-9a-f]{40}")


def commit_of(name: str, revision: str | None = None) -> str | None:
    """The commit of a branch, a tag or the newest state of a model; None if unknown."""
    from transformers.utils.hub import resolve_revision

    commit = getattr(resolve_revision(name, revision), "resolved", None)
    if commit is None and revision and COMMIT.fullmatch(revision):
        return revision
    return None if commit is None else str(commit)


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder in the hub's cache with a model's configuration and weights, downloaded if they are not there.

    Raises:
        ModelError: the current folder contains a folder of that name.
        OSError: the hub cannot be reached, or has no such model, or it has no configuration.
    """
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    if Path(name).exists():
        raise ModelError(
            f"[model] name_or_path: {name} is a model on the hub, but transformers would load the folder of that name "
            f"in {Path.cwd()} instead; rename the folder, or start autopeft in another folder."
        )

    def file(path: str, *, needed: bool = False) -> str | None:
        options = {"revision": revision, "_raise_exceptions_for_missing_entries": needed}
        found: str | None = cached_file(name, path, **options)
        return found

    if adapter := file(ADAPTER):
        return Path(adapter).parent
    config = str(file(CONFIG, needed=True))
    if file(WEIGHTS) is None and (index := file(INDEX)) is not None:
        get_checkpoint_shard_files(name, index, revision=revision)
    return Path(config).parent
