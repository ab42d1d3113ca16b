"""Uploading adapters to the Hugging Face Hub, and finding out in time whether that will work."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from peft.utils import CONFIG_NAME

from ..scoring.held_out import CONFIDENCE_FILE
from ..tuner.decision import DECISION_FILE
from ..tuner.validation import InvalidTypeError, is_hub_id
from .card import CARD_FILE, published_card, write_card


if TYPE_CHECKING:
    from ..tuner.peft_model import PeftModelForZeroShotImageClassification

# what is uploaded of a folder that may hold a whole run
ADAPTER_FILES = (CARD_FILE, CONFIG_NAME, "adapter_model.*", DECISION_FILE, CONFIDENCE_FILE, "pictures/*")
WAITS = (1, 2, 4)  # seconds before the Hub is asked again
NO_PERMISSION = (
    'the access token does not allow to write there. What stands before the slash ("/") must be your name on the Hub, '
    "or that of an organisation of yours, and the token must have write access."
)
Result = TypeVar("Result")


def check_can_push(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Find out whether an adapter can be pushed to a repository on the Hub, and change nothing.

    Called before a training, it tells then what would otherwise be found out after it.

    Args:
        repo_id: `"namespace/name"`, or a name in the user's own namespace.
        private: whether the repository is to be private. None: as the namespace has it.
        token: access token. None: the one that `hf auth login` has stored, or that of the variable `HF_TOKEN`.

    Returns:
        The repository's full name.

    Raises:
        ValueError: no valid name, or a repository that is public already and should be private.
        OSError: no token, no permission, or the Hub cannot be reached.
    """
    if not isinstance(repo_id, str):
        raise InvalidTypeError(f"`repo_id` must be the name of a repository on the Hub, got {repo_id!r}.")
    if (token or get_token()) is None:
        raise OSError(f"Pushing to {repo_id!r} needs an access token: run `hf auth login` or set `HF_TOKEN`.")
    api = HfApi(token=token)
    with plain_errors(repo_id):
        validate_repo_id(repo_id)
        user = _who_am_i(api)
        if user is None:
            return repo_id
        full_name = repo_id if "/" in repo_id else f"{user['name']}/{repo_id}"
        try:
            is_public = not retried(partial(api.model_info, full_name)).private
            retried(partial(api.auth_check, full_name, write=True))
            may_write = True
        except RepositoryNotFoundError:  # nobody's, or a private one of somebody else
            is_public = False
            owned = [user["name"], *(organisation["name"] for organisation in user.get("orgs") or [])]
            role = (user.get("auth") or {}).get("accessToken", {}).get("role")
            may_write = full_name.partition("/")[0] in owned and role != "read"
    if not may_write:
        raise OSError(f"Cannot push to {repo_id!r}: {NO_PERMISSION}")
    if private and is_public:
        raise ValueError(f"{full_name} is public already: make it private on the Hub, or choose another name.")
    return full_name


def _who_am_i(api: HfApi) -> dict[str, Any] | None:
    """The user; None on a Hub of another make, which does not say: what may be written shows when it is."""
    try:
        return retried(api.whoami)
    except HfHubHTTPError as error:
        if error.response.status_code == 404:
            return None
        raise


def is_private(repo_id: str, token: str | None = None) -> bool:
    """Whether a repository is private; one that was there before a push stays what it was.

    Args:
        repo_id: its full name.
        token: as for `check_can_push`.
    """
    return bool(retried(partial(HfApi(token=token).model_info, repo_id)).private)


@contextmanager
def plain_errors(repo_id: str) -> Iterator[None]:
    """Say in plain words why something cannot be pushed to a repository.

    Raises:
        ValueError: no valid name.
        OSError: everything else that the Hub or the network refuse.
    """
    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"`repo_id` must be the name of a repository on the Hub, got {repo_id!r}: {error}") from error
    except HfHubHTTPError as error:
        raise OSError(f"Cannot push to {repo_id!r}: {_reason(error)}") from error
    except Exception as error:  # no network shows as an error of whatever HTTP client is in use
        raise OSError(f"Cannot push to {repo_id!r}: the Hub cannot be reached ({error}).") from error


def _reason(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return "the Hub does not accept the access token. Run `hf auth login` again or set another `HF_TOKEN`."
    if status in (403, 404):  # the Hub does not tell strangers that there is a private repository
        return NO_PERMISSION
    return f"the Hub answers {' '.join(str(error).split())}"


def retried(ask: Callable[[], Result]) -> Result:
    """What the Hub answers, asked again after a moment where it is busy or the network fails."""
    for wait in WAITS:
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code not in (408, 429) and error.response.status_code < 500:
                raise
        except Exception as error:  # see `plain_errors`
            if isinstance(error, ValueError | TypeError | OSError):  # no valid name or file, or HF_HUB_OFFLINE is set
                raise
        time.sleep(wait)
    return ask()


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
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # before there is a repository that would stay empty
        repo_id = retried(partial(api.create_repo, repo_id, private=private, exist_ok=True)).repo_id
        try:
            card = api.hf_hub_download(repo_id, CARD_FILE, revision=commit.get("revision"))
            shutil.copyfile(card, Path(folder, CARD_FILE))
        except (EntryNotFoundError, RevisionNotFoundError):
            pass
        write_card(folder, model, repo_id=repo_id, tags=tags or ())
        return push_folder(folder, repo_id, token=token, files=("**/*",), **commit)


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
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
        repo_id: name of the repository, which is created where there is none.
        private: whether a new repository is private. None: as the namespace has it.
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
        raise no_adapter(folder)
    api = HfApi(token=token)
    repo_id = retried(partial(api.create_repo, repo_id, private=private, exist_ok=True)).repo_id
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), _published(path, repo_id)) for path in paths]
    # one of an adapter that was there before would decide for this one
    decisions = [path.with_name(DECISION_FILE) for path in paths if path.name == CONFIG_NAME]
    for name in (path.relative_to(folder).as_posix() for path in decisions if path not in paths):
        if retried(partial(api.file_exists, repo_id, name, revision=revision)):
            operations.append(CommitOperationDelete(name))
    commit = partial(
        api.create_commit,
        repo_id,
        operations,
        commit_message=commit_message,
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )
    return retried(commit)


def no_adapter(folder: Path) -> FileNotFoundError:
    """The error where a folder holds no adapter."""
    return FileNotFoundError(f"There is no adapter in {folder}: it has no {CONFIG_NAME}.")


def _published(path: Path, repo_id: str) -> Path | bytes:
    """A file as it is uploaded: a card with its name on the Hub, a config without a path of this machine."""
    if path.name == CARD_FILE:
        return published_card(path.read_text(encoding="utf-8"), repo_id).encode()
    if path.name != CONFIG_NAME:
        return path
    config = json.loads(path.read_text(encoding="utf-8"))
    if not is_hub_id(config["base_model_name_or_path"]):
        config["base_model_name_or_path"] = None
    return json.dumps(config, indent=2, sort_keys=True).encode()
