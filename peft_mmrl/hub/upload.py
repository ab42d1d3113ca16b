"""Uploading adapters to the Hugging Face Hub, and finding out in time whether that will work."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RevisionNotFoundError,
)
from peft.utils import CONFIG_NAME

from ..scoring.threshold import THRESHOLD_FILE
from ..tuner.validation import InvalidTypeError, is_hub_id
from .card import write_card


if TYPE_CHECKING:
    from ..tuner.peft_model import PeftModelForZeroShotImageClassification

# what is uploaded of a folder that may hold a whole run
ADAPTER_FILES = ("README.md", CONFIG_NAME, "adapter_model.*", THRESHOLD_FILE, "pictures/*")


def check_can_push(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Create a repository on the Hub where there is none, and make sure that it can be written to.

    Called before a training, it tells then what would otherwise be found out after it.

    Args:
        repo_id: `"namespace/name"`, or a name in the user's own namespace.
        private: whether a new repository is private. None: as the namespace has it.
        token: access token. None: the one that `hf auth login` has stored, or that of the variable `HF_TOKEN`.

    Returns:
        The repository's full name.

    Raises:
        ValueError: no valid name.
        OSError: no token, no permission, or the Hub cannot be reached.
    """
    if not isinstance(repo_id, str):
        raise InvalidTypeError(f"`repo_id` must be the name of a repository on the Hub, got {repo_id!r}.")
    if (token or get_token()) is None:
        raise OSError(f"Pushing to {repo_id!r} needs an access token: run `hf auth login` or set `HF_TOKEN`.")
    api = HfApi(token=token)
    try:
        full_name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        api.auth_check(full_name, write=True)  # creating says nothing where there is a repository already
    except HFValidationError as error:
        raise ValueError(f"`repo_id` must be the name of a repository on the Hub, got {repo_id!r}: {error}") from error
    except HfHubHTTPError as error:
        raise OSError(f"Cannot push to {repo_id!r}: {_reason(error)}") from error
    except Exception as error:  # no network shows as an error of whatever HTTP client is in use
        raise OSError(f"Cannot push to {repo_id!r}: the Hub cannot be reached ({error}).") from error
    return full_name


def _reason(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return "the Hub does not accept the access token. Run `hf auth login` again or set another `HF_TOKEN`."
    if status in (403, 404):  # the Hub does not tell strangers that there is a private repository
        return (
            "the access token does not allow to write there. Is the namespace yours, and has the token write access?"
        )
    return str(error)


def push_model(
    model: PeftModelForZeroShotImageClassification,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    tags: Iterable[str] | None = None,
    **commit: Any,
) -> CommitInfo:
    """Save a model's adapters and upload them. What people have written into the card on the Hub stays.

    Args:
        model: the model with the adapters.
        repo_id: name of the repository, which is created where there is none.
        private: whether a new repository is private. None: as the namespace has it.
        token: access token. None: the stored one.
        tags: further tags for the card.
        commit: as for [`push_folder`].
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with TemporaryDirectory() as folder:
        try:
            card = api.hf_hub_download(repo_id, "README.md", revision=commit.get("revision"))
            shutil.copyfile(card, Path(folder, "README.md"))
        except (EntryNotFoundError, RevisionNotFoundError):
            pass
        model.save_pretrained(folder)
        write_card(folder, model, repo_id=repo_id, tags=tags or ())
        return push_folder(folder, repo_id, token=token, files=("**/*",), **commit)


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | bool | None = None,
    files: Iterable[str] = ADAPTER_FILES,
    commit_message: str = "Upload adapter",
    commit_description: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Upload a saved adapter, as it lies, to a repository. A base model's path on this machine is not uploaded.

    Args:
        folder: where the adapter is saved.
        repo_id: name of the repository.
        token: access token. None: the stored one.
        files: what of the folder is uploaded, as patterns.
        commit_message: first line of the commit.
        commit_description: further lines.
        revision: branch to upload to, created where there is none.
        create_pr: open a pull request in place of a commit.

    Raises:
        OSError: no adapter in the folder.
    """
    folder = Path(folder)
    paths = sorted({path for pattern in files for path in folder.glob(pattern) if path.is_file()})
    if not any(path.name == CONFIG_NAME for path in paths):
        raise FileNotFoundError(f"There is no adapter in {folder}: it has no {CONFIG_NAME}.")
    api = HfApi(token=token)
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    return api.create_commit(
        repo_id,
        [CommitOperationAdd(path.relative_to(folder).as_posix(), _published(path)) for path in paths],
        commit_message=commit_message,
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )


def _published(path: Path) -> Path | bytes:
    """A file as it is uploaded: an adapter's config without the path of a base model that lies on this machine."""
    if path.name != CONFIG_NAME:
        return path
    config = json.loads(path.read_text())
    if not is_hub_id(config["base_model_name_or_path"]):
        config["base_model_name_or_path"] = None
    return json.dumps(config, indent=2, sort_keys=True).encode()
