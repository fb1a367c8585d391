"""Uploads a folder to the Hugging Face hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autopeft.common.exceptions import AutopeftError, in_a_line

if TYPE_CHECKING:
    from pathlib import Path


class HubError(AutopeftError):
    """The hub cannot be reached, or refuses what was asked."""


def push(folder: Path, repo: str, *, private: bool | None = None) -> str:
    """Upload the files of a folder to a model repository, in one commit, and return its address.

    The account is known from `hf auth login` or HF_TOKEN; HF_ENDPOINT names another hub.

    Args:
        folder: to upload.
        repo: such as ``me/tickets``; made if it does not exist.
        private: whether a new one is private; default: the account's setting.

    Raises:
        HubError: no network, no permission, or no such name.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add what autopeft found")
    except Exception as error:  # the hub's library raises its own errors, httpx's, Xet's, and plain RuntimeErrors
        raise HubError(
            f'"{repo}" cannot be uploaded to the hub: {in_a_line(error).rstrip(".")}. Check the network and the name, '
            "and log in (`hf auth login`) with a token that may write."
        ) from None
    return str(made)
