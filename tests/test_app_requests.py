"""Requests made by hand to the whole page: whatever they ask for, nothing outside the project is read or written."""

import io
import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import PIL.Image
import pytest
from conftest import DEMO_CLIP

from peft_mmrl.projects.project import Project


httpx = pytest.importorskip("httpx", reason='needs the extra "app": pip install "peft_mmrl[app]"')
SECRET = "the secret of another folder"
STARTS = {"begin", "go_on", "push"}  # what starts trainings or goes to the Hub


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a secret and a project beside it that has one class, a link that leads out, and a picture."""
    place = tmp_path_factory.mktemp("place")
    (place / "secret.txt").write_text(SECRET)
    (place / "others").mkdir()
    PIL.Image.new("RGB", (40, 30), "red").save(place / "others" / "theirs.png")
    project = Project.open(place / "project", DEMO_CLIP)
    project.add_class("cat")
    PIL.Image.new("RGB", (40, 30), "blue").save(project.pictures / "cat" / "blue.png")
    (project.pictures / "cat" / "link.png").symlink_to(place / "others" / "theirs.png")
    (project.pictures / "linked").symlink_to(place / "others")
    return place


@pytest.fixture(scope="module")
def page(place):
    from peft_mmrl.app.serving import serve

    page = serve(Project.open(place / "project"))
    yield page
    page.close()


@pytest.fixture(scope="module")
def client(page):
    with httpx.Client(base_url=page.local_url, timeout=60) as client:
        yield client


def outside(place):
    """All that lies beside the project, with its content."""
    files = [path for path in place.rglob("*") if path.is_file() and (place / "project") not in path.parents]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def call(client, function, data, event=None):
    """What a function of the page answers to values for its inputs; None: it was refused."""
    asked = {"data": data, "fn_index": function, "session_hash": "byhand", "event_data": event, "trigger_id": None}
    joined = client.post("/gradio_api/queue/join", json=asked)
    if joined.status_code != 200:
        return None
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "byhand"}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["msg"] == "process_completed":
                return line
    return ""


def upload(client, name, content=b"content"):
    files = {"files": (name, content, "image/png")}
    return client.post("/gradio_api/upload", files=files)


HOSTILE = [
    "../../secret.txt",
    "{place}/secret.txt",
    "pictures/linked/theirs.png",
    "pictures/cat/link.png",
    "..",
    "/etc/passwd",
    "cat\0\u202egnp.tac",
    "a" * 5000,
    {"path": "{place}/secret.txt", "meta": {"_type": "gradio.FileData"}},
    [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
    {"path": "{place}/others/theirs.png", "meta": {"_type": "gradio.FileData"}},
    ["{place}/others/theirs.png"],
    {"path": "http://127.0.0.1:1/a.png", "meta": {"_type": "gradio.FileData"}},
    ["../../secret.txt", "pictures/cat/link.png"],
    -1,
    {"value": "../../secret.txt", "index": -1},
]


def test_no_call_reads_or_writes_outside_the_project(place, client):
    before = outside(place)
    functions = client.get("/config").json()["dependencies"]
    assert len(functions) > 30
    for function in functions:
        if function["api_name"] in STARTS:
            continue
        for one in HOSTILE:
            value = json.loads(json.dumps(one).replace("{place}", str(place)))
            event = {"index": value, "value": value, "marked": value}
            answer = call(client, function["id"], [value] * len(function["inputs"]), event)
            assert SECRET not in (answer or "") and "root:" not in (answer or "")
    assert outside(place) == before
    assert not os.path.lexists(place / "project" / "pictures" / "..gnp.tac")
    assert {path.name for path in place.iterdir()} == {"secret.txt", "others", "project"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # so Gradio tells what is refused outside of requests
def test_no_function_behind_the_page_does_either(place, page, capsys):
    """As if Gradio checked nothing of what it passes on."""
    import gradio as gr

    before = outside(place)
    for function in page.fns.values():
        if function.fn is None or function.name in STARTS:
            continue
        for one in HOSTILE:
            value = json.loads(json.dumps(one).replace("{place}", str(place)))
            event = [SimpleNamespace(marked=value)] if function.name == "_mark" else []
            try:
                answer = str(function.fn(*[value] * len(function.inputs), *event))
            except gr.Error as error:
                answer = str(error)
            assert SECRET not in answer and "root:" not in answer
    assert outside(place) == before
    assert {path.name for path in place.iterdir()} == {"secret.txt", "others", "project"}
    theirs = (place / "others" / "theirs.png").read_bytes()
    inside = [path for path in (place / "project").rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in inside if path.parent.name != "linked" and path.read_bytes() == theirs]


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil.png",
        "/tmp/evil.png",
        "..",
        ".",
        "a/../../../b.png",
        "C:\\evil.png",
        "..\\evil.png",
        "con.png",
        "\u202egnp.live",
        "e\u0301vil.png",
        "evil\n.png",
        "%2e%2e%2fevil.png",
        "\U0001f608.png",
        "a" * 300 + ".png",
        ".htaccess",
    ],
)
def test_an_upload_lands_in_the_project_whatever_it_is_called(place, client, name):
    before = outside(place)
    answer = upload(client, name)
    if answer.status_code == 200:
        for path in answer.json():
            assert os.path.realpath(path).startswith(str((place / "project" / ".uploads").resolve()) + os.sep)
            assert os.path.isfile(path)
    else:
        assert answer.status_code in (400, 403, 413)
    assert outside(place) == before


def test_what_was_uploaded_is_taken_in_and_stays_for_others_that_hold_it(place, client):
    picture = place / "others" / "theirs.png"
    path, again = (upload(client, "../dog.png", picture.read_bytes()).json()[0] for _ in range(2))
    assert path == again  # Gradio keeps equal files of one name once
    functions = client.get("/config").json()["dependencies"]
    show, drop = (next(one["id"] for one in functions if one["api_name"] == name) for name in ("show", "drop"))
    call(client, show, [None])  # the page is opened
    given = [{"path": path, "orig_name": "dog.png", "meta": {"_type": "gradio.FileData"}}]
    answer = call(client, drop, [given, "cat", None])
    assert "1 picture added" in answer
    assert (place / "project" / "pictures" / "cat" / "dog.png").read_bytes() == picture.read_bytes()
    assert "it is there already" in call(client, drop, [given, "cat", None])
    (hold,) = component(client, "try-picture")
    assert call(client, hold, given) is not None  # to be tried: not refused


def test_what_was_uploaded_goes_when_it_is_an_hour_old(page, client):
    from gradio.route_utils import delete_files_created_by_app

    frequency, age = page.delete_cache
    assert frequency <= age == 3600
    path = upload(client, "a.png").json()[0]
    delete_files_created_by_app(page, age)
    assert os.path.exists(path)
    time.sleep(0.1)
    delete_files_created_by_app(page, 0)
    assert not os.path.exists(path)


def dropped(client, name, content):
    """What the page sends of a file that was uploaded under this name."""
    path = upload(client, "a.png", content).json()[0]
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def drops(client):
    """Functions of the page, by what is dropped or chosen."""
    functions = client.get("/config").json()["dependencies"]
    call(client, next(one["id"] for one in functions if one["api_name"] == "show"), [None])  # the page is opened
    return {one["api_name"]: one["id"] for one in functions if one["api_name"] in ("drop", "drop_folder")}


def picture(number):
    content = io.BytesIO()
    PIL.Image.new("RGB", (40, 30), (number, 0, 0)).save(content, "PNG")
    return content.getvalue()


def test_folders_in_names_are_classes_and_lead_nowhere_else(place, client, drops):
    before, project = outside(place), place / "project"
    names = ["all/oak/1.png", "all/oak/../../../evil.png", "../../evil.png", "all/CON/4.png"]
    names += ["all/linked/5.png", "all/oak/\u202e/6.png", "all/x\0y/7.png", f"all/{'z/' * 3000}8.png"]
    given = [dropped(client, name, picture(number)) for number, name in enumerate(names)]
    mixed = [*given, dropped(client, "/etc/oak/3.png", picture(30))]  # some for a class, some for none
    assert "Nothing was taken" in call(client, drops["drop_folder"], [mixed, None, None])
    assert not (project / "pictures" / "oak").exists()
    answer = call(client, drops["drop_folder"], [given, None, None])
    assert "from the folder" in answer and "oak" in answer
    assert outside(place) == before
    assert {path.name for path in place.iterdir()} == {"secret.txt", "others", "project"}
    assert not list((project / "pictures").rglob("evil*")) and not list((project / "pictures" / "linked").glob("5*"))
    shutil.rmtree(project / "pictures" / "oak")


def test_pictures_go_into_the_class_they_were_dropped_for(place, client, drops):
    before, pictures = outside(place), place / "project" / "pictures"
    (pictures / "dog").mkdir()
    given = [dropped(client, f"/dog/{number}.png", picture(120 + number)) for number in range(2)]
    assert "2 pictures added to “dog”" in call(client, drops["drop"], [given, "cat", None])
    two = [dropped(client, f"/{name}/evil.png", picture(130)) for name in ("dog", "cat")]
    (choose,) = component(client, "classes")
    call(client, choose, ["cat"])  # what was said of the drops before goes
    assert " added" not in call(client, drops["drop"], [two, "cat", None])  # of which class?
    names = ("/../evil.png", "/none/evil.png", "//evil.png", "/linked/evil.png", "/dog", "/dog/", "/")
    for name in (*names, f"/{'z' * 3000}/evil.png"):
        answer = call(client, drops["drop"], [[dropped(client, name, picture(130))], "cat", None])
        assert answer is not None and " added" not in answer, name
    assert outside(place) == before and not list(place.rglob("evil*"))
    assert sorted(path.name for path in (pictures / "dog").iterdir()) == ["0.png", "1.png"]
    shutil.rmtree(pictures / "dog")


def test_yes_is_said_to_the_picture_that_was_answered(place, client, drops):
    before, shown = dropped(client, "before.png", picture(140)), dropped(client, "shown.png", picture(150))
    (agree,), cats = component(client, "agree"), place / "project" / "pictures" / "cat"
    count = len(list(cats.iterdir()))
    for guess in ([before["path"], "cat"], None, [], [shown["path"], None]):
        call(client, agree, [shown, guess])
        assert len(list(cats.iterdir())) == count, guess
    assert "Thank you" in call(client, agree, [shown, [shown["path"], "cat"]])
    assert len(list(cats.iterdir())) == count + 1


def test_no_event_that_counts_is_passed_over(client):
    """Gradio passes over an event of mode "once" while the one before it is answered."""
    config = client.get("/config").json()
    kinds = {one["id"]: one["type"] for one in config["components"]}
    modes = {}
    for function in config["dependencies"]:
        for source, event in function["targets"] or [(None, "then")]:
            if function["backend_fn"]:
                modes.setdefault((kinds.get(source), event), set()).add(function["trigger_mode"])
    assert modes["file", "upload"] == modes["uploadbutton", "upload"] == {"multiple"}  # given: each counts
    for shown in (("radio", "input"), ("dropdown", "input"), ("tabitem", "select"), ("image", "change")):
        assert modes[shown] <= {"multiple", "always_last"}, shown  # chosen: the last one is shown


def component(client, name):
    """The functions of the page that answer events of the component of this name."""
    config = client.get("/config").json()
    number = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == name)
    return [one["id"] for one in config["dependencies"] if number in [target[0] for target in one["targets"]]]


def test_a_click_that_comes_behind_a_drop_takes_no_other_picture_out(place, client, drops):
    project = Project.open(place / "project")
    for number in (2, 3):
        (project.pictures / "cat" / f"p{number}.png").write_bytes(picture(100 + number))
    (choose,), (mark,), (take_out,) = (component(client, name) for name in ("classes", "thumbnails", "take-out"))
    seen = re.search(r'data-shown=\\"(\w+)', call(client, choose, [None]))[1]
    call(client, drops["drop"], [[dropped(client, "a first one.png", picture(101))], "cat", None])
    call(client, mark, [None], {"shown": seen, "marked": [0]})
    now = re.search(r'data-shown=\\"(\w+)', call(client, take_out, [None, "cat"]))[1]
    assert project.removed_pictures() == []
    call(client, mark, [None], {"shown": now, "marked": [0]})
    call(client, take_out, [None, "cat"])
    assert project.removed_pictures() == ["removed/cat/a first one.png"]


@pytest.mark.parametrize(
    "given",
    ["x", ["x"], [None], [{"orig_name": "a/b.png"}], [{"path": 1, "orig_name": "a/b.png"}], {"path": "x"}],
    ids=str,
)
def test_what_was_not_dropped_is_not_taken(place, client, drops, given):
    (choose,) = component(client, "classes")
    call(client, choose, ["cat"])  # what was said of the drops before goes
    for function in drops.values():
        answer = call(client, function, [given, "cat", None])
        assert answer is None or " added" not in answer


def test_files_of_a_chosen_folder_whose_folders_are_not_told_go_into_no_class(place, client, drops):
    pictures = list((place / "project" / "pictures" / "cat").iterdir())
    given = [dropped(client, "1.png", picture(90))]
    assert "in which folders these pictures lay" in call(client, drops["drop_folder"], [given, "cat", None])
    assert list((place / "project" / "pictures" / "cat").iterdir()) == pictures


def test_a_file_that_is_too_large_is_not_taken(place, client, monkeypatch, page):
    monkeypatch.setattr(page, "max_file_size", 1000)
    assert upload(client, "large.png", b"0" * 2000).status_code == 413


def test_no_whole_picture_is_served(place, client):
    for path in ("pictures/cat/blue.png", "pictures/cat/link.png", "project.json"):
        assert client.get(f"/gradio_api/file={place / 'project' / path}").status_code == 403
    assert client.get(f"/gradio_api/file={place / 'secret.txt'}").status_code == 403


def test_whoever_comes_over_a_tunnel_does_not_choose_the_queue_of_their_passwords(client, monkeypatch):
    from peft_mmrl.app import guard

    queues, queue_of = [], guard.queue_of
    monkeypatch.setattr(guard, "queue_of", lambda scope: queues.append(queue_of(scope)) or queues[-1])
    for headers in ({}, {"x-forwarded-for": "10.0.0.1"}, {"x-forwarded-for": "10.0.0.2, 127.0.0.1"}):
        client.post("/login", data={"username": "a", "password": "b"}, headers=headers)
    assert queues == ["127.0.0.1", guard.TUNNEL, guard.TUNNEL]


def test_nothing_is_told_to_gradio(page):
    assert not page.analytics_enabled
    assert page.share_url is None
    assert not page.enable_monitoring


def test_links_in_the_place_of_its_own_folders_are_refused(tmp_path):
    from peft_mmrl.app.places import prepare_places

    project = Project.open(tmp_path / "project", DEMO_CLIP)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.txt").write_text("kept")
    (project.folder / ".uploads").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a link that leads elsewhere"):
        prepare_places(project)
    assert (tmp_path / "elsewhere" / "kept.txt").read_text() == "kept"


def test_a_password_is_asked_for(tmp_path, monkeypatch):
    from peft_mmrl.app import guard, serving

    monkeypatch.setattr(guard, "WRONG_PASSWORD_PAUSE", 0.01)
    page = serving.serve(Project.open(tmp_path / "project", DEMO_CLIP), password="open sesame")
    try:
        with httpx.Client(base_url=page.local_url) as client:
            assert "Pictures" not in client.get("/").text
            assert upload(client, "a.png").status_code == 401
            assert client.get("/config").status_code == 401
            assert client.post("/gradio_api/queue/join", json={"data": [], "fn_index": 0}).status_code == 401
            assert client.post("/login", data={"username": "me", "password": "open"}).status_code == 400
            monkeypatch.setattr(guard, "WRONG_PASSWORD_PAUSE", 0.2)
            begun = time.monotonic()
            with ThreadPoolExecutor(5) as pool:
                wrong = {"username": "me", "password": "open says me"}
                answers = list(pool.map(lambda _: httpx.post(f"{page.local_url}login", data=wrong), range(5)))
            assert [answer.status_code for answer in answers] == [400] * 5 and time.monotonic() - begun >= 5 * 0.2
            assert client.post("/login", data={"username": "me", "password": "open sesame"}).status_code == 200
            assert client.get("/config").status_code == 200
    finally:
        page.close()


def test_a_page_to_try_changes_nothing(tmp_path):
    from peft_mmrl.app.places import prepare_places
    from peft_mmrl.app.project_page import build_page

    project = Project.open(tmp_path / "project", DEMO_CLIP)
    prepare_places(project)
    names = {function.name for function in build_page(project, read_only=True).fns.values()}
    assert names <= {"begin", "show", "_ask", "_hold"}
