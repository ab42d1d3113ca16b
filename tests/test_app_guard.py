"""No request to the page reads or writes outside its project, reaches another host, or comes from another page."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from peft_mmrl.app import guard
from peft_mmrl.app.guard import LARGEST_REQUEST, MOST_WAITING, WRONG_PASSWORD_PAUSE, Guard, named_files
from peft_mmrl.app.serving import THIS_MACHINE, check_address, is_this_machine


FILES = "/gradio_api/file="
JOIN = "/gradio_api/queue/join"


@pytest.fixture
def folder(tmp_path):
    """A project with a thumbnail, an upload, a report, a picture, and links that lead out of it."""
    project = tmp_path / "project"
    secret = tmp_path / "secret.txt"
    for path in (
        secret,
        project / ".uploads" / "ab" / "new.png",
        project / ".cache" / "shown" / "small.jpg",
        project / ".cache" / "features.sqlite",
        project / "adapters" / "run-1" / "report" / "report.html",
        project / "adapters" / "run-1" / "adapter_config.json",
        project / "pictures" / "cat" / "1.png",
        project / "project.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    for inside in (".uploads", ".cache/shown", "adapters/run-1/report"):
        (project / inside / "link.png").symlink_to(secret)
        (project / inside / "out").symlink_to(tmp_path)
    (project / "adapters" / "linked").symlink_to(tmp_path)
    return project


def guarded(folder, names=frozenset(THIS_MACHINE), addresses=()):
    """A client of what stands behind the guard: an echo."""

    async def echo(request):
        return JSONResponse({"path": request.url.path, "body": (await request.body()).decode()})

    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"])])
    places = {"uploads": folder / ".uploads", "served": [folder / ".cache" / "shown"], "reports": folder / "adapters"}
    app.add_middleware(Guard, **places, largest_upload=2 * LARGEST_REQUEST, names=names, addresses=set(addresses))
    return TestClient(app, base_url="http://127.0.0.1:7860")


@pytest.fixture
def client(folder):
    return guarded(folder)


def file_data(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    "inside", [".uploads/ab/new.png", ".cache/shown/small.jpg", "adapters/run-1/report/report.html"]
)
def test_what_the_page_shows_is_served(client, folder, inside):
    answer = client.get(f"{FILES}{folder / inside}")
    assert answer.status_code == 200
    assert "sandbox" in answer.headers["content-security-policy"]  # a report from elsewhere runs no script


@pytest.mark.parametrize(
    "inside",
    [
        "pictures/cat/1.png",
        "project.json",
        ".cache/features.sqlite",
        ".cache/shown/../features.sqlite",
        ".cache/shown/link.png",
        ".cache/shown/out/secret.txt",
        ".cache/shown/out/project/project.json",
        ".cache/shown",
        ".uploads/link.png",
        ".uploads/../project.json",
        ".uploads/%2e%2e/project.json",
        "adapters/run-1/adapter_config.json",
        "adapters/run-1/report/../adapter_config.json",
        "adapters/run-1/report/link.png",
        "adapters/linked/secret.txt",
        "adapters/linked/report/../secret.txt",
        ".uploads/nothing.png",
        ".uploads/ab/new.png%00.jpg",
        "\u202e.uploads/ab/new.png",
        "..",
    ],
)
def test_no_other_file_is_served(client, folder, inside):
    assert client.get(f"{FILES}{folder}/{inside}").status_code in (403, 404)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "//etc/passwd",
        "../../../../../../../../etc/passwd",
        "~/.ssh/id_rsa",
        "",
        "/",
        "/proc/self/environ",
        "http://example.com/a.png",
        "https://example.com/a.png",
        "file:///etc/passwd",
        "\\\\server\\share\\a.png",
        "C:\\Windows\\win.ini",
    ],
)
def test_no_file_of_the_machine_and_no_other_host_is_fetched(client, name):
    assert client.get(FILES + name).status_code in (403, 404)


@pytest.mark.parametrize(
    "asked",
    [
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/component_server",
        "/gradio_api/vibe-code",
        "/gradio_api/file/etc/passwd",
        "/monitoring",
        "/monitoring/key",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/gradio_api/openapi.json",
        "/docs",
        "/openapi.json",
        "/gradio_api/custom_component/1/client/component/../../etc/passwd",
        "/gradio_api/stream/1/2/3/playlist.m3u8",
        "/dev/reload",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_addresses_that_the_page_does_not_need_are_not_there(client, asked, method):
    assert client.request(method, asked, content=b"{}").status_code in (404, 411)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_there(client, method):
    assert client.request(method, "/", content=b"").status_code == 404


@pytest.mark.parametrize("asked", ["/gradio_api/run/predict", "/gradio_api/api/predict", "/gradio_api/call/predict"])
def test_calls_go_through_the_queue_alone(client, asked):
    assert client.post(asked, json={"data": []}).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "{folder}/pictures/cat/1.png",
        "{folder}/project.json",
        "{folder}/.cache/shown/small.jpg",
        "{folder}/.uploads/../project.json",
        "{folder}/.uploads/link.png",
        "{folder}/.uploads/out/secret.txt",
        "{folder}/.uploads",
        "{folder}/.uploads/gone.png",
        "http://127.0.0.1/a.png",
        "https://example.com/a.png",
        "data:image/png;base64,AAAA",
        "a\0b",
        "",
        "\ud800",
    ],
)
@pytest.mark.parametrize("wrap", [lambda one: [one], lambda one: [[one]], lambda one: [{"deep": {"image": one}}]])
def test_a_call_may_name_uploaded_files_alone(client, folder, name, wrap):
    body = {"data": wrap(file_data(name.format(folder=folder))), "fn_index": 0, "session_hash": "a"}
    answer = client.post(JOIN, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 403
    assert "uploaded" in answer.json()["error"]  # Gradio's page shows it


def test_a_call_may_name_an_uploaded_file(client, folder):
    body = {"data": [file_data(folder / ".uploads" / "ab" / "new.png")], "fn_index": 0}
    answer = client.post(JOIN, json=body)
    assert json.loads(answer.json()["body"]) == body  # what was read is passed on


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'{"data": ' + b"[" * 100_000, b'"text"'])
def test_what_is_no_call_is_refused(client, body):
    assert client.post(JOIN, content=body).status_code == 400


def test_calls_and_uploads_are_limited_in_size(client):
    assert client.post(JOIN, content=b" " * (LARGEST_REQUEST + 1)).status_code == 413
    assert client.post("/gradio_api/upload", content=b" " * (LARGEST_REQUEST + 1)).status_code == 200
    assert client.post("/gradio_api/upload", content=b" " * (2 * LARGEST_REQUEST + 1)).status_code == 413
    assert client.post("/gradio_api/upload", content=iter([b"of unknown length"])).status_code == 411


@pytest.mark.parametrize("length", ["", "x", "-1", "1e3", "\u00b2".encode(), "\u0663".encode(), "9" * 5000])
def test_a_length_that_is_none_is_refused(client, length):
    assert client.post(JOIN, content=b"{}", headers={"content-length": length}).status_code == 411


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://127.0.0.1.evil.example",
        "http://127.0.0.1:7861",
        "null",
        "",
        "http://[",
        "http://[evil]",
        "http://[::1",
        "http://127.0.0.1:7860\u2100".encode(),
        b"\xff\xfe",
    ],
)
def test_another_page_can_do_nothing_here(client, origin):
    for asked in (JOIN, "/gradio_api/upload", "/login"):
        assert client.post(asked, json={"data": []}, headers={"origin": origin}).status_code == 403
    for asked in ("/", "/config", "/gradio_api/queue/data"):
        assert client.get(asked, headers={"origin": origin}).status_code == 403
    own = {"origin": "http://127.0.0.1:7860"}
    assert client.post(JOIN, json={"data": []}, headers=own).status_code == 200
    assert client.get("/config", headers=own).status_code == 200


def test_another_page_can_do_nothing_where_others_are_let_in_either(folder):
    client = guarded(folder, names=None, addresses=["given.example"])
    evil = {"host": "my-machine:7860", "origin": "https://evil.example"}
    for headers in (evil, evil | {"x-forwarded-host": "evil.example"}):
        assert client.post(JOIN, json={"data": []}, headers=headers).status_code == 403
        assert client.get("/config", headers=headers).status_code == 403
    for origin in ("http://my-machine:7860", "https://given.example"):  # as asked for, and a tunnel's own
        headers = {"host": "my-machine:7860", "origin": origin}
        assert client.post(JOIN, json={"data": []}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "",
        "192.168.0.7:7860",
        "localhost.evil",
        "[::1",
        "[evil]",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(client, folder, host):
    assert client.get("/", headers={"host": host}).status_code == 403
    assert (
        guarded(folder, names=None).get("/", headers={"host": host}).status_code == 200
    )  # asked for, with a password


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "localhost"])
def test_this_machine_is_served_under_its_names(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


def test_the_browser_is_told_to_ask_no_other_host(client):
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self' data: blob:")
    assert "http" not in policy and "*" not in policy
    assert "frame-ancestors 'self'" in policy


class Door:
    """An app behind the guard that lets in whoever says "right", and the order in which it has answered."""

    def __init__(self, monkeypatch):
        self.paused, self.answered = [], []

        async def app(scope, receive, send):
            said = (await receive())["body"].decode()
            await send({"type": "http.response.start", "status": 200 if said.endswith("right") else 400})
            await send({"type": "http.response.body", "body": said.encode()})

        async def pause(seconds):
            self.paused.append(seconds)
            for _ in range(100):  # whoever need not wait is quicker
                await asyncio.sleep(0)
            self.answered.append("pause")

        monkeypatch.setattr(guard, "asyncio", SimpleNamespace(Lock=asyncio.Lock, sleep=pause))
        folders = {"uploads": Path(), "served": [], "reports": None}
        self.guard = Guard(app, **folders, largest_upload=0, names=None, addresses=set())

    async def knock(self, said, address="10.0.0.1", path="/login", **headers):
        headers = {"content-length": "9", **headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "client": (address, 1234)}

        async def receive():
            return {"type": "http.request", "body": said.encode()}

        async def send(message):
            if message["type"] == "http.response.body":
                self.answered.append(message["body"].decode())

        await self.guard(scope, receive, send)

    def knock_at_once(self, *knocks):
        async def all_of_them():
            await asyncio.gather(*knocks)

        asyncio.run(all_of_them())
        return self.answered


@pytest.mark.parametrize("path", ["/login", "/login/"])
def test_wrong_passwords_wait_for_each_other_however_many_come_at_once(monkeypatch, path):
    door = Door(monkeypatch)
    answered = door.knock_at_once(*(door.knock(f"wrong {number}", path=path) for number in range(4)))
    assert answered == [word for number in range(4) for word in ("pause", f"wrong {number}")]
    assert door.paused == [WRONG_PASSWORD_PAUSE] * 4 and WRONG_PASSWORD_PAUSE >= 1


def test_a_right_password_among_many_is_not_told_sooner(monkeypatch):
    door = Door(monkeypatch)
    answered = door.knock_at_once(door.knock("wrong 1"), door.knock("wrong 2"), door.knock("right"))
    assert answered == ["pause", "wrong 1", "pause", "wrong 2", "right"]


def test_whoever_comes_from_elsewhere_does_not_wait_for_them(monkeypatch):
    door = Door(monkeypatch)
    tries = [door.knock(f"wrong {number}") for number in range(3)]
    assert door.knock_at_once(*tries, door.knock("right", address="10.0.0.2"))[0] == "right"
    assert door.knock_at_once(door.knock("wrong"))[-1] == "wrong"  # and later it goes on


def test_where_many_wait_the_next_is_told_at_once_and_nothing(monkeypatch):
    door = Door(monkeypatch)
    tries = [door.knock(f"wrong {number}") for number in range(3 * MOST_WAITING)]
    answered = door.knock_at_once(*tries, door.knock("right"))
    assert all("Too many" in one for one in answered[: 2 * MOST_WAITING + 1])
    assert len(door.paused) == MOST_WAITING and "right" not in answered
    assert door.knock_at_once(door.knock("right"))[-1] == "right"  # and soon it goes on


def test_addresses_that_a_tunnel_says_are_not_believed(monkeypatch):
    door = Door(monkeypatch)
    tries = [door.knock(f"wrong {n}", "127.0.0.1", **{"x-forwarded-for": f"10.0.0.{n}"}) for n in range(3)]
    own = door.knock("right", "127.0.0.1")
    assert door.knock_at_once(*tries, own) == ["right", *(w for n in range(3) for w in ("pause", f"wrong {n}"))]


@pytest.mark.parametrize(
    ("address", "headers", "queue"),
    [
        ("10.0.0.9", {}, "10.0.0.9"),
        ("10.0.0.9", {"x-forwarded-for": "10.0.0.1"}, "10.0.0.9"),  # a neighbour who pretends to come over a tunnel
        ("::ffff:10.0.0.9", {"x-forwarded-for": "10.0.0.1"}, "10.0.0.9"),
        ("2001:db8::1", {}, "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", {"x-forwarded-for": "::1"}, "2001:db8::/64"),
        ("2001:db8:0:1::1", {}, "2001:db8:0:1::/64"),
        ("fe80::1%eth0", {}, "fe80::/64"),
        ("127.0.0.1", {}, "127.0.0.1"),
        *((own, {"x-forwarded-for": "10.0.0.1"}, guard.TUNNEL) for own in ("127.0.0.1", "::1", "::ffff:127.0.0.1")),
        ("a socket", {"x-forwarded-for": "10.0.0.1"}, "a socket"),
    ],
)
def test_nobody_chooses_the_queue_that_their_passwords_wait_in(address, headers, queue):
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert guard.queue_of({"type": "http", "headers": raw, "client": (address, 1234)}) == queue
    assert guard.queue_of({"type": "http", "headers": raw, "client": None}) == ""


def test_every_path_in_a_call_is_found():
    assert list(named_files([1, None, {"a": [{"path": "x", "b": {"path": "y"}}]}, {"path": 3}])) == ["x", "y"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "my-machine", "127.0.0.1.evil.example", "", "*"])
def test_others_are_let_in_with_a_password_alone(host):
    with pytest.raises(ValueError, match=r"--host .*lets others see and change your pictures: add --password"):
        check_address(host, None, False, None)
    with pytest.raises(ValueError, match="--password must have 8 characters or more"):
        check_address(host, None, False, "short")
    with pytest.raises(ValueError, match="--password must not begin or end with blanks"):
        check_address(host, None, False, " " * 8)
    check_address(host, 7860, False, "long enough")
    assert not is_this_machine(host)


def test_sharing_needs_a_password():
    with pytest.raises(ValueError, match="--share lets others see"):
        check_address("127.0.0.1", None, True, None)
    check_address("127.0.0.1", None, True, "long enough")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_needs_no_password(host):
    check_address(host, None, False, None)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_one(port):
    with pytest.raises(ValueError, match="--port"):
        check_address("127.0.0.1", port, False, None)
