"""Upload a trained adapter to the Hugging Face Hub: weights, card with figures, confidence; no pictures, no reports.

    peft-mmrl push my-adapter --hub_model_id me/my-adapter
    peft-mmrl push my-adapter --hub_model_id me/not-for-all --private

Without a name it goes to your own namespace, named as the folder. With the adapter the names of its classes and its
template can be seen there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from peft.utils import CONFIG_NAME

from ..hub.upload import check_can_push, no_adapter
from . import arguments as cli
from . import pushing
from .console import clear_errors, command_line


@command_line()
def main(args: argparse.Namespace) -> None:
    """Check, upload."""
    with clear_errors():
        if not (args.folder / CONFIG_NAME).is_file():
            raise no_adapter(args.folder)
        repo_id = check_can_push(args.hub_model_id or args.folder.resolve().name, private=args.private or None)
    failure = pushing.push(args.folder, repo_id, args.private)
    if failure is not None:
        sys.exit(f"error: {failure}")
    print(f"Uploaded {args.folder} to {repo_id}")


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("folder", type=Path, help="of the adapter")
    pushing.add_repository_arguments(parser)
    return parser.parse_args(argv)
