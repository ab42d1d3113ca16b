"""A stand-in for the Hugging Face Hub: what `huggingface_hub` asks of it to upload and download a model, in memory.

Large files go through Git LFS, as on the Hub; a client of another process must run with `HF_HUB_DISABLE_XET`.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import transformers
import yaml


def use_hub(monkeypatch, url, cache):
    """Let huggingface_hub, which reads its settings when it is imported, talk to a server of this machine as "me"."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", url)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # made by its first user
    monkeypatch.setenv("HF_TOKEN", "me")


class HubServer(ThreadingHTTPServer):
    """Users are who their access token says; everybody owns the namespace of that name and no other."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.branches = {}  # (repo, branch) -> commit
        self.commits = {}  # commit -> {path: content}
        self.large_files = {}  # sha256 -> content
        self.private = set()  # repos
        self.unknown_requests = []
        self.busy = []  # parts of addresses, each of which is answered once with 503

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def files(self, repo, branch="main"):
        return self.commits[self.branches[repo, branch]]

    def commit(self, repo, branch, files):
        names = [(path, hashlib.sha256(content).hexdigest()) for path, content in sorted(files.items())]
        commit = hashlib.sha1(json.dumps([repo, names]).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[repo, branch] = commit
        return commit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    routes = []

    def log_message(self, *args):
        pass

    def handle_request(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.user = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        for part in self.server.busy:
            if part in self.path:
                self.server.busy.remove(part)
                return self.fail(503, None, "Service unavailable")
        for method, pattern, answer in self.routes:
            match = re.fullmatch(pattern, self.path.split("?")[0])
            if self.command in method and match:
                return answer(self, **match.groupdict())
        self.server.unknown_requests.append(f"{self.command} {self.path}")
        return self.fail(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def send(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, content, status=200, **headers):
        self.send(status, json.dumps(content).encode(), Content_Type="application/json", **headers)

    def fail(self, status, code=None, message=""):
        self.send_json({"error": message}, status, **({"X_Error_Code": code} if code else {}))

    def may_write(self, repo):
        """Whether the user owns a repository; answers the request where not."""
        if self.user == repo.split("/")[0]:
            return True
        self.fail(403 if self.user else 401, None, f"You don't have the rights to write to {repo}")
        return False

    def commit_of(self, repo, revision):
        return revision if revision in self.server.commits else self.server.branches.get((repo, revision))


def route(methods, pattern):
    """Register the answer to requests; `{repo}` stands for a repository's full name."""
    pattern = pattern.replace("{repo}", r"(?P<repo>[^/]+/[^/]+)").replace("{revision}", r"(?P<revision>[^/]+)")

    def register(answer):
        Handler.routes.append((methods.split(), pattern, answer))
        return answer

    return register


@route("GET", "/api/whoami-v2")
def who_am_i(handler):
    if handler.user is None or handler.user == "expired":
        return handler.fail(401, None, "Invalid credentials in Authorization header")
    role = "read" if handler.user == "reader" else "write"
    return handler.send_json({"name": handler.user, "orgs": [], "auth": {"accessToken": {"role": role}}})


@route("POST", "/api/repos/create")
def create_repo(handler):
    wanted = json.loads(handler.body)
    if handler.user is None or handler.user == "expired":
        return handler.fail(401, None, "Invalid credentials in Authorization header")
    repo = f"{wanted.get('organization') or handler.user}/{wanted['name']}"
    if not handler.may_write(repo):
        return None
    exists = (repo, "main") in handler.server.branches
    if not exists:
        handler.server.commit(repo, "main", {})
        if wanted.get("private") or wanted.get("visibility") == "private":
            handler.server.private.add(repo)
    return handler.send_json({"url": f"{handler.server.url}/{repo}"}, 409 if exists else 200)


@route("GET", "/api/models/{repo}/auth-check/write")
def check_write(handler, repo):
    if (repo, "main") not in handler.server.branches:
        handler.fail(404, "RepoNotFound")
    elif handler.may_write(repo):
        handler.send_json({})


@route("GET", "/api/models/{repo}(/revision/{revision})?")
def repo_info(handler, repo, revision):
    commit = handler.commit_of(repo, revision or "main")
    if commit is None:
        return handler.fail(404, "RevisionNotFound" if (repo, "main") in handler.server.branches else "RepoNotFound")
    files = [{"rfilename": path} for path in handler.server.commits[commit]]
    return handler.send_json(
        {
            "id": repo,
            "modelId": repo,
            "sha": commit,
            "siblings": files,
            "tags": [],
            "private": repo in handler.server.private,
        }
    )


@route("GET", "/api/models/{repo}/tree/{revision}")
def list_files(handler, repo, revision):
    commit = revision if revision in handler.server.commits else handler.commit_of(repo, revision)
    files = (handler.server.commits.get(commit) or {}).items()
    rows = [(path, len(content), hashlib.sha1(content).hexdigest()) for path, content in files]
    handler.send_json([{"type": "file", "path": path, "size": size, "oid": oid} for path, size, oid in rows])


@route("POST", "/api/models/{repo}/branch/{revision}")
def create_branch(handler, repo, revision):
    if handler.may_write(repo):
        handler.server.branches[repo, revision] = handler.server.branches[repo, "main"]
        handler.send_json({})


@route("POST", "/api/validate-yaml")
def validate_card(handler):
    """The rules of the Hub that an adapter's card could break."""
    metadata = yaml.safe_load(json.loads(handler.body)["content"].split("---\n")[1])
    names = [metadata.get("base_model", "a/b"), *metadata.get("datasets", [])]
    errors = [
        f"{name!r} is no name of a repository" for name in names if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)
    ]
    errors += [f"{tag!r} must be a string" for tag in metadata.get("tags", []) if not isinstance(tag, str)]
    answer = {"errors": [{"message": error} for error in errors], "warnings": []}
    handler.send_json(answer, 400 if errors else 200)


@route("POST", "/api/models/{repo}/preupload/{revision}")
def preupload(handler, repo, revision):
    def mode(path):
        return "lfs" if path.endswith((".safetensors", ".png")) else "regular"

    files = json.loads(handler.body)["files"]
    if handler.may_write(repo):
        handler.send_json(
            {"files": [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in files]}
        )


@route("POST", "/{repo}.git/info/lfs/objects/batch")
def lfs_batch(handler, repo):
    objects = json.loads(handler.body)["objects"]
    uploads = [
        {**wanted, "actions": {"upload": {"href": f"{handler.server.url}/lfs/{wanted['oid']}"}}} for wanted in objects
    ]
    if handler.may_write(repo):
        handler.send_json({"transfer": "basic", "objects": uploads})


@route("PUT", r"/lfs/(?P<oid>\w+)")
def lfs_upload(handler, oid):
    assert hashlib.sha256(handler.body).hexdigest() == oid
    handler.server.large_files[oid] = handler.body
    handler.send(200)


@route("POST", "/api/models/{repo}/commit/{revision}")
def commit(handler, repo, revision):
    if not handler.may_write(repo):
        return
    files = dict(handler.server.files(repo, revision))
    for line in map(json.loads, handler.body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "deletedFile":
            del files[value["path"]]
        elif line["key"] == "lfsFile":
            files[value["path"]] = handler.server.large_files[value["oid"]]
    oid = handler.server.commit(repo, revision, files)
    handler.send_json({"commitUrl": f"{handler.server.url}/{repo}/commit/{oid}", "commitOid": oid})


@route("HEAD GET", "/{repo}/resolve/{revision}/(?P<path>.+)")
def download(handler, repo, revision, path):
    commit = handler.commit_of(repo, revision)
    if commit is None:
        return handler.fail(404, "RevisionNotFound" if (repo, "main") in handler.server.branches else "RepoNotFound")
    content = handler.server.commits[commit].get(path)
    if content is None:
        return handler.send_json({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
    etag = hashlib.sha256(content).hexdigest()
    return handler.send(200, content, ETag=f'"{etag}"', X_Repo_Commit=commit)


# Data sets: a repository's name begins with "datasets/" here.


@route("GET", "/api/(?P<repo>datasets/[^/]+/[^/]+)(/revision/{revision})?")
def dataset_info(handler, repo, revision):
    repo_info(handler, repo, revision)


@route("GET", "/api/(?P<repo>datasets/[^/]+/[^/]+)/tree/{revision}(/(?P<path>.*))?")
def tree(handler, repo, revision, path):
    """The files of a commit as the Hub lists them, and folders of one level."""
    files = handler.server.commits[handler.commit_of(repo, revision)]
    found = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders(files)]
    found += [
        {"type": "file", "path": name, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
        for name, content in files.items()
    ]
    handler.send_json([entry for entry in found if path is None or entry["path"].startswith(f"{path}/")])


@route("HEAD GET", "/(?P<repo>datasets/[^/]+/[^/]+)/resolve/{revision}/(?P<path>.+)")
def dataset_download(handler, repo, revision, path):
    download(handler, repo, revision, path)


def folders(files):
    return sorted({path.rpartition("/")[0] for path in files} - {""})
