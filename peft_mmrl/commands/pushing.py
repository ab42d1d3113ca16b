"""Pushing to the Hub from the command line: what becomes public is said before, and nothing is lost where it fails."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..hub.upload import check_can_push, plain_errors, push_folder


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Where to push to, for `train`."""
    group.add_argument("--push_to_hub", action="store_true", help="upload adapter, card and confidence at the end")
    add_repository_arguments(group)


def add_repository_arguments(group: argparse._ActionsContainer) -> None:
    """The repository."""
    group.add_argument("--hub_model_id", help="me/my-adapter (your own, named as the folder)")
    group.add_argument("--private", action="store_true", help="make the repository a private one")


def check(args: argparse.Namespace) -> str | None:
    """The repository that a training will push to, after saying what is going to be seen there; None: it will not.

    Raises:
        ValueError, OSError: see `check_can_push`.
    """
    if not args.push_to_hub:
        if args.private:
            raise ValueError("--private is for a repository of the Hub: add --push_to_hub.")
        return None
    repo_id = check_can_push(args.hub_model_id or args.output_dir.resolve().name, private=args.private or None)
    what = "the adapter, its card with figures and what it said of held-out pictures (the pictures stay here)"
    what += "; with them the names of classes and the template"
    seen = "" if args.private else ", which everybody can see unless the repository is private (--private)"
    print(f"at the end, {repo_id} on the Hub gets {what}{seen}", file=sys.stderr)
    return repo_id


def push(folder: Path, repo_id: str, private: bool) -> str | None:
    """Upload a saved adapter; returns, in words, why that failed and how to do it later, or None."""
    try:
        with plain_errors(repo_id):
            push_folder(folder, repo_id, private=private or None)
    except (OSError, ValueError) as error:
        later = f"peft-mmrl push {shlex.quote(str(folder))} --hub_model_id {repo_id}{' --private' if private else ''}"
        return f"{error} The adapter is safe in {folder}; upload it later with: {later}"
    return None
