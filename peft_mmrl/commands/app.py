"""Open a page on which a project is worked on in the browser, without writing code.

    peft-mmrl app                        # the project in ./my-classifier, a new one where there is none
    peft-mmrl app leaves                 # a project, an empty folder, or a folder with a folder of pictures per class
    peft-mmrl app leaves --host 0.0.0.0 --password "..."     # for others in the same network, too
    peft-mmrl app leaves --share --password "..."            # for others anywhere, over Gradio's servers

Drop pictures, train, try, correct, take the classifier away. All of it lies in the project's folder: `pictures/` with
a folder per class, `unlabelled/`, `removed/`, `adapters/` with a folder per training, as `train` writes it, `logs/`
with what trainings said, `project.json` (the base model), `class_names.csv` (better names of classes) and
`agreed.json` (labels that somebody found right). Pictures are only ever moved inside the project, never deleted; a
plain folder of class folders is copied into a project beside it, `leaves-project`, and stays as it is. Closing the
page loses nothing, and a training goes on.

The page is open to this machine alone, but for --host and --share. It asks no other host but the Hugging Face Hub:
for the base model, which is fetched once, and where you upload; --share goes over Gradio's servers. It needs the
extra "app" of this package: pip install "peft_mmrl[app]".
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..app.serving import check_address, serve
from ..auto import DEFAULT_BASE_MODEL
from ..projects.extra import from_extra
from ..projects.project import Project
from . import arguments as cli
from .console import clear_errors, command_line


@command_line()
def main(args: argparse.Namespace) -> None:
    """Check, open, serve until Ctrl-C."""
    with clear_errors():
        check_address(args.host, args.port, args.share, args.password)
        from_extra("gradio")
        project = Project.open(args.folder, args.base_model)
        page = serve(
            project,
            host=args.host,
            port=args.port,
            share=args.share,
            password=args.password,
            open_browser=not args.no_browser,
        )
    print(f"The project is {project.folder}")
    print(f"The page is {page.local_url}" + (f" and {page.share_url}" if page.share_url else ""))
    print("Ctrl-C closes it; a training that runs goes on.", flush=True)
    page.block_thread()


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("my-classifier"), help="(%(default)s)")
    parser.add_argument("--base_model", default=DEFAULT_BASE_MODEL, help="of a new project (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine alone)")
    parser.add_argument("--port", type=int, help="of it (a free one, 7860 if it is)")
    parser.add_argument("--share", action="store_true", help="reach it from the internet, too; needs --password")
    parser.add_argument("--password", help="that visitors are asked for, with any name")
    parser.add_argument("--no_browser", action="store_true", help="do not open a browser")
    return parser.parse_args(argv)
