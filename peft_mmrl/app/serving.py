"""Serving the page: at which address, to whom, with which limits, and from which folders of the project."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..projects.extra import from_extra
from ..projects.under_training import ADAPTERS
from ..tuner.validation import as_whole
from .places import SHOWN, THUMBNAILS, UPLOADS, prepare_places


if TYPE_CHECKING:
    import gradio

    from ..projects.project import Project

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
LARGEST_DROPPED_FILE = 64 * 2**20  # bytes
LARGEST_UPLOAD = 2 * 2**30  # of all files that are dropped at once
SHORTEST_PASSWORD = 8


def check_address(host: str, port: int | None, share: bool, password: str | None) -> None:
    """Refuse to show a project to others without a password.

    Args:
        host: address to listen at.
        port: of it; None: a free one.
        share: whether the page is to be reached from the internet, over Gradio's servers.
        password: what visitors are asked for.

    Raises:
        ValueError: names the option.
    """
    if port is not None:
        as_whole("--port", port, low=1, high=65535)
    if password is not None and len(password) < SHORTEST_PASSWORD:
        raise ValueError(f"--password must have {SHORTEST_PASSWORD} characters or more, got {len(password)}.")
    if password is not None and password != password.strip():
        raise ValueError("--password must not begin or end with blanks.")
    if password is None and (share or not is_this_machine(host)):
        option = "--share" if share else f"--host {host}"
        raise ValueError(f"{option} lets others see and change your pictures: add --password ... to be asked for.")


def is_this_machine(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host in THIS_MACHINE or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def serve(
    project: Project,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    password: str | None = None,
    read_only: bool = False,
    open_browser: bool = False,
) -> gradio.Blocks:
    """Serve a project's page, until this process or the page is closed.

    Args:
        project: what is worked on.
        host: address to listen at.
        port: of it; None: a free one, 7860 if it is.
        share: also reach it from the internet, over Gradio's servers.
        password: what visitors are asked for, with any name.
        read_only: pictures can be tried, and nothing else; visitors need no password.
        open_browser: show the page.

    Returns:
        The page, served: its `local_url`, `share_url`, `block_thread()` and `close()`.

    Raises:
        ValueError: see `check_address`.
        ImportError: Gradio is not installed.
        OSError: see `prepare_places`; or the port is taken.
    """
    check_address("localhost" if read_only else host, port, share and not read_only, password)
    gradio = from_extra("gradio")
    prepare_places(project)

    from starlette.middleware import Middleware  # comes with Gradio

    from .guard import Guard
    from .look import SCRIPTS, STYLE_SHEET, drop_words, theme
    from .project_page import build_page

    folder = project.folder.resolve()
    shown = folder / (THUMBNAILS if read_only else SHOWN)
    addresses = {os.environ["SPACE_HOST"]} if "SPACE_HOST" in os.environ else set()  # of a Hugging Face Space
    guard = Middleware(
        Guard,
        uploads=folder / UPLOADS,
        served=[shown],
        reports=None if read_only else folder / ADAPTERS,
        largest_upload=LARGEST_DROPPED_FILE if read_only else LARGEST_UPLOAD,
        names=None if share or not is_this_machine(host) else {*THIS_MACHINE, host},
        addresses=addresses,
    )
    # else uvicorn puts what `x-forwarded-for` says in place of the address that `Guard` is asked from
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    gradio.set_static_paths([shown])
    page = build_page(project, read_only=read_only)
    page.launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=None if password is None else _asks_for(password),
        auth_message="Type any name, and the password that you were given.",
        app_kwargs={"middleware": [guard]},
        allowed_paths=[] if read_only else [str(folder / ADAPTERS)],
        max_file_size=LARGEST_DROPPED_FILE,
        theme=theme(),
        css_paths=STYLE_SHEET,
        head_paths=SCRIPTS,
        i18n=drop_words(),
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        enable_monitoring=False,
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )
    if page.share_url:
        addresses.add(urlsplit(page.share_url).netloc)
    return page


def _asks_for(password: str) -> Callable[[str, str], bool]:
    return lambda _, given: hmac.compare_digest(given.encode(), password.encode())
