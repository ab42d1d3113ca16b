"""What of a request reaches Gradio: only the page's own addresses, from the page itself, and files of the project."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


# All that the page asks for. Gradio answers to more, some of which fetches from other hosts or writes elsewhere.
PAGES = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt|logout|login_check/?|(static|assets|svelte)/.+)?"
    r"|/gradio_api/(info/?|app_id/?|startup-events|heartbeat/\w+|upload_progress|queue/data|login_check/?)"
)
FILE_ADDRESS = "/gradio_api/file="
ACTIONS = re.compile(r"/login/?|/gradio_api/(queue/join|upload|cancel|reset)/?")
UPLOAD, LOGIN = "/gradio_api/upload", "/login"
WRONG_PASSWORD_PAUSE = 1.0  # seconds
MOST_WAITING = 10  # answers to passwords in a queue
TUNNEL = "tunnel"  # name of the queue of all who come over one
LENGTH = re.compile("[0-9]{1,18}")  # Python makes no number of thousands of digits
LARGEST_REQUEST = 4 * 2**20  # bytes of anything but an upload
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
FILE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox allow-popups"  # a report, a picture
)


class Refused(Exception):
    """An answer to a request, with its status."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class LoginQueue:
    """Answers to passwords that wait for each other."""

    def __init__(self) -> None:
        self.lock, self.length = asyncio.Lock(), 0


class Guard:
    """ASGI middleware in front of Gradio.

    Args:
        app: what is guarded.
        uploads: folder of what was uploaded, the only one whose files a request may name as input.
        served: folders whose files may be fetched; links in them lead no further.
        reports: a folder with a folder per run, whose `report/` may be fetched; None: none may.
        largest_upload: bytes of one request.
        names: hosts that the page may be asked for as; None: any.
        addresses: host and port of further addresses of the page, behind which requests come with another host.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        uploads: Path,
        served: list[Path],
        reports: Path | None,
        largest_upload: int,
        names: set[str] | None,
        addresses: set[str],
    ) -> None:
        self._app, self._uploads, self._served, self._reports = app, uploads, [uploads, *served], reports
        self._largest_upload, self._names, self._addresses = largest_upload, names, addresses
        self._queues: WeakValueDictionary[str, LoginQueue] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers(scope["path"])]}
            await send(message)

        try:
            self._check(scope)
            if scope["method"] == "POST" and scope["path"].rstrip("/") == "/gradio_api/queue/join":
                receive = await self._checked_body(receive)
            if scope["path"].rstrip("/") == LOGIN:
                await self._log_in(scope, receive, send_guarded)
            else:
                await self._app(scope, receive, send_guarded)
        except Refused as refused:
            await JSONResponse({"error": str(refused), "detail": str(refused)}, refused.status)(scope, receive, send)

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a password on, and give the answers one after the other, a wrong one after a pause: many take long.

        Answers to others do not wait, else whoever tries many would lock everybody out; and where many wait already,
        the next one is told nothing, else they would lock out those of their own queue for hours.
        """
        queue, answer = self._queues.setdefault(queue_of(scope), LoginQueue()), []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)  # not in turn: it takes as long as somebody takes to send the password
        if queue.length >= MOST_WAITING:
            raise Refused(429, "Too many passwords are tried at once. Wait a few seconds.")
        queue.length += 1
        try:
            async with queue.lock:
                if any(message.get("status", 200) >= 400 for message in answer):
                    await asyncio.sleep(WRONG_PASSWORD_PAUSE)
        finally:
            queue.length -= 1
        for message in answer:
            await send(message)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if self._names is not None and _hostname(host) not in self._names:
            raise Refused(403, "This page is open to this machine alone.")  # also a name that leads here: rebinding
        origin = headers.get("origin")
        # Gradio lets any page read what it asks for with the visitor's cookie, unless the page is local
        if origin is not None and _host_and_port(origin) not in {host, *self._addresses}:
            raise Refused(403, "Only the page itself may ask for this.")
        if scope["method"] in ("GET", "HEAD"):
            if path.startswith(FILE_ADDRESS):
                self._check_file(path.removeprefix(FILE_ADDRESS))
            elif not PAGES.fullmatch(path):
                raise Refused(404, "There is nothing here.")
        elif scope["method"] == "POST" and ACTIONS.fullmatch(path):
            is_upload = path.rstrip("/") == UPLOAD
            self._check_size(headers, self._largest_upload if is_upload else LARGEST_REQUEST)
        else:
            raise Refused(404, "There is nothing here.")

    def _check_file(self, name: str) -> None:
        """Refuse what is no file of the project that the page shows, by whatever way it is named."""
        try:
            real = Path(name).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # no such file; a null byte; a circle of links
            raise Refused(404, "There is no such file.") from None
        if not real.is_file():
            raise Refused(404, "There is no such file.")
        if any(real.is_relative_to(folder.resolve()) for folder in self._served):
            return
        reports = self._reports and self._reports.resolve()
        if reports and real.is_relative_to(reports) and real.relative_to(reports).parts[1:2] == ("report",):
            return
        raise Refused(403, "This file is not shown.")

    def _check_size(self, headers: Headers, most: int) -> None:
        length = LENGTH.fullmatch(headers.get("content-length", ""))
        if "transfer-encoding" in headers or length is None:
            raise Refused(411, "A request says how long it is.")
        if int(length[0]) > most:
            raise Refused(413, f"This is more than {most // 2**20} MB at once.")

    async def _checked_body(self, receive: Receive) -> Receive:
        """Refuse a call that names a file which was not uploaded; Gradio would fetch an address."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "Nothing was asked.")
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise ValueError("a call is an object")
            for name in named_files(
                asked.get("data")
            ):  # `event_data` names what was clicked, and no file is read by it
                self._check_upload(name)
        except (ValueError, RecursionError):
            raise Refused(400, "This is not a call of this page.") from None
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    def _check_upload(self, name: str) -> None:
        try:
            real = Path(name).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            raise Refused(403, "Only files that were uploaded here can be used, and this one is gone.") from None
        if not (real.is_file() and real.is_relative_to(self._uploads.resolve())):
            raise Refused(403, "Only files that were uploaded here can be used.")

    def _headers(self, path: str) -> Iterator[tuple[bytes, bytes]]:
        policy = FILE_POLICY if path.startswith(FILE_ADDRESS) else POLICY
        if self._names is not None:
            policy += "; frame-ancestors 'self'"
        yield b"content-security-policy", policy.encode()
        yield b"x-content-type-options", b"nosniff"
        yield b"referrer-policy", b"no-referrer"


def queue_of(scope: Scope) -> str:
    """Name of the queue that somebody's passwords wait in: of one address, but with two exceptions.

    Whoever has one IPv6 address has as many as they like, all in one network. And those who come over a tunnel, which
    ends on this machine, say themselves which address they have.
    """
    host = (scope.get("client") or [""])[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback and "x-forwarded-for" in Headers(scope=scope):
        return TUNNEL
    return str(address if address.version == 4 else IPv6Network(f"{address}/64", strict=False))


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # brackets that hold no address
        return None


def _host_and_port(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def named_files(asked: Any) -> Iterator[str]:
    """The files that a call names anywhere, as Gradio looks for them: whatever has a path."""
    if isinstance(asked, dict):
        for key, value in asked.items():
            if key == "path" and isinstance(value, str):
                yield value
            else:
                yield from named_files(value)
    elif isinstance(asked, list):
        for value in asked:
            yield from named_files(value)
