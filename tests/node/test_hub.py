"""Models from a hub, over a server that speaks the Hugging Face hub's HTTP: its lists, redirects, headers, refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from cluster import run_json, run_program
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node import hub
from ipfs_accel_node.node.content.hub_files import chosen
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.protocols.errors import AccelError

COMMIT, OLDER = "a" * 40, "b" * 40
WEIGHTS = bytes(range(256)) * 2000


@dataclass
class Repository:
    files: dict[str, bytes]
    gated: bool = False
    license: str = "apache-2.0"
    token: str = ""
    refuses: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    #: What a file's bytes are on their way, where they are not what the list says.
    sends: dict[str, Callable[[BaseHTTPRequestHandler, bytes, int], None]] = field(default_factory=dict)


class Hub:
    """Two servers, as the hub has: one with the lists and the small files, one with the large."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[tuple[str, str, str, str]] = []
        self.down = False
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler(name)) for name in ("hub", "cdn")]
        self.urls = [f"http://127.0.0.1:{server.server_port}" for server in self._servers]
        self._threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in self._servers]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self, name: str) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, name)

            def do_HEAD(self) -> None:
                hub.answer(self, name)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler, server: str) -> None:
        path = unquote(urlsplit(request.path).path)
        authorization = request.headers.get("Authorization", "")
        self.asked.append((server, request.command, path, authorization))
        if server == "cdn":
            name, _, file = path.removeprefix("/").partition("/files/")
            self.send_file(request, self.repositories[name], file)
        elif path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self.describe(request, name, revision or "main", authorization)
        else:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            self.resolve(request, name, *rest.split("/", 1))

    def describe(self, request, name, revision, authorization) -> None:
        repository = self.repositories.get(name)
        if repository is None or (repository.token and authorization != f"Bearer {repository.token}"):
            return refuse(request, 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if "info" in repository.refuses:
            return refuse(request, *repository.refuses["info"])
        if revision not in ("main", "v1", COMMIT):
            return refuse(request, 404, {"X-Error-Code": "RevisionNotFound"})
        siblings = [
            {"rfilename": file, "size": len(data), "blobId": git_id(data), **lfs(file, data)}
            for file, data in repository.files.items()
        ]
        described = {
            "_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": False, "disabled": False, "tags": [],
            "gated": "auto" if repository.gated else False, "downloads": 1, "likes": 1, "siblings": siblings,
            "cardData": {"license": repository.license},
        }  # fmt: skip
        reply(request, 200, json.dumps(described).encode(), {"Content-Type": "application/json"})
        return None

    def resolve(self, request, name, revision, file) -> None:
        repository = self.repositories[name]
        assert revision == COMMIT, "files are asked for by commit, so that none is of another revision"
        if "file" in repository.refuses:
            return refuse(request, *repository.refuses["file"])
        data = repository.files[file]
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if large := lfs(file, data).get("lfs"):
            headers |= {"X-Linked-Etag": f'"{large["sha256"]}"', "X-Linked-Size": str(len(data))}
            headers["Location"] = f"{self.urls[1]}/{name}/files/{file}"
            return reply(request, 302, b"", headers)
        return self.send_file(request, repository, file, {**headers, "ETag": f'"{git_id(data)}"'})

    def send_file(self, request, repository, file, headers=None) -> None:
        data, begin = repository.files[file], 0
        asked = request.headers.get("Range", "")
        if asked.startswith("bytes=") and asked.endswith("-"):
            begin = int(asked[6:-1])
        if request.command == "GET" and file in repository.sends:
            return repository.sends[file](request, data, begin)
        headers = dict(headers or {})
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return reply(request, 206 if begin else 200, data[begin:], headers)


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def lfs(file: str, data: bytes) -> dict[str, object]:
    if not file.endswith((".safetensors", ".bin")):
        return {}
    return {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}


def reply(request, status, body, headers) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        with suppress(ConnectionError):
            request.wfile.write(body)


def refuse(request, status, headers) -> None:
    reply(request, status, b'{"error":"refused"}', headers)


@pytest.fixture
def server(monkeypatch, tmp_path):
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.urls[0])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield hub
    hub.close()


def echo_files() -> dict[str, bytes]:
    """A model that any node can run, with weights that say nothing, and files that do not count."""
    return {
        "config.json": b'{"model_type": "echo", "echo": {}}',
        "model.safetensors": WEIGHTS,
        "tokenizer.json": b"{}",
        "README.md": b"# A model",
        "LICENSE": b"Apache",
        ".gitattributes": b"*.safetensors lfs",
        "modeling.py": b"import os",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"onnx",
        "model.fp16.safetensors": b"half",
    }


KEPT = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE"}


def fetch(reference, folder, **options):
    with hub.downloaded(hub.parse_reference(reference), folder, **options) as got:
        return got, {
            str(path.relative_to(got.folder)): path.read_bytes() for path in got.folder.rglob("*") if path.is_file()
        }


def failed(reference, folder, **options) -> AccelError:
    with pytest.raises(AccelError) as refused:
        fetch(reference, folder, **options)
    return refused.value


def test_a_repository_arrives_with_what_belongs_to_it(server, tmp_path):
    server.repositories["owner/model"] = Repository(echo_files())
    states = []
    got, files = fetch("hf:owner/model", tmp_path / "to", on_progress=lambda *told: states.append(told))
    assert set(files) == KEPT
    assert files["model.safetensors"] == WEIGHTS
    assert (got.origin, got.license, got.gated) == (f"hf:owner/model@{COMMIT}", "apache-2.0", False)
    total = sum(len(echo_files()[name]) for name in KEPT)
    assert states[-1] == ("downloading", total, total, "")
    assert not (tmp_path / "to").exists(), "what was used is not kept twice"


def test_a_token_goes_to_the_hub_and_to_nobody_else(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.repositories["owner/model"] = Repository(echo_files(), gated=True, token="hf_secret")
    got, _ = fetch("https://huggingface.co/owner/model/tree/v1", tmp_path / "to")
    assert got.gated
    sent = {(host, bool(authorization)) for host, _, _, authorization in server.asked}
    assert sent == {("hub", True), ("cdn", False)}


REFUSALS = [
    ({}, "unknown-model", "hf:owner/other"),
    ({}, "unknown-model", "hf:owner/model@nowhere"),
    ({"info": (429, {"Retry-After": "30"})}, "busy", "hf:owner/model"),
    ({"info": (403, {})}, "permission-denied", "hf:owner/model"),
    ({"file": (401, {"X-Error-Code": "GatedRepo"})}, "gated-model", "hf:owner/model"),
    ({"file": (403, {"X-Error-Code": "GatedRepo"})}, "gated-model", "hf:owner/model"),
    ({"file": (404, {"X-Error-Code": "EntryNotFound"})}, "content-not-found", "hf:owner/model"),
]


@pytest.mark.parametrize(("refuses", "code", "reference"), REFUSALS, ids=str)
def test_what_the_hub_refuses_has_a_code_and_says_what_to_do(server, tmp_path, refuses, code, reference):
    server.repositories["owner/model"] = Repository(echo_files(), refuses=refuses)
    error = failed(reference, tmp_path / "to")
    assert error.code == code
    assert error.hint or code == "content-not-found"


FILES = {
    "unsafe-model": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "not-a-model": {"config.json": b"{}", "model.gguf": b"gguf"},
}


@pytest.mark.parametrize("code", FILES)
def test_a_repository_without_safetensors_is_told(server, tmp_path, code):
    server.repositories["owner/model"] = Repository(FILES[code])
    error = failed("hf:owner/model", tmp_path / "to")
    assert error.code == code
    assert not any(server_name == "cdn" for server_name, *_ in server.asked)


def test_a_disk_too_small_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    server.repositories["owner/model"] = Repository(echo_files())
    usage = hub.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert failed("hf:owner/model", tmp_path / "to").code == "disk-full"
    assert len(server.asked) == 1


def test_a_hub_that_is_not_there_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert failed("hf:owner/model", tmp_path / "to").code == "network-unreachable"


def lying(request, data, begin):
    reply(request, 206 if begin else 200, bytes(len(data) - begin), {})


def test_bytes_that_are_not_what_the_list_says_are_refused(server, tmp_path):
    server.repositories["owner/model"] = Repository(echo_files(), sends={"model.safetensors": lying})
    assert failed("hf:owner/model", tmp_path / "to").code == "corrupt-content"
    server.repositories["owner/model"].sends.clear()
    _, files = fetch("hf:owner/model", tmp_path / "to")
    assert files["model.safetensors"] == WEIGHTS


def test_a_download_that_was_cut_off_goes_on_where_it_was(server, tmp_path):
    begins = []

    def cut(request, data, begin):
        begins.append(begin)
        whole = len(begins) > 1
        request.send_response(206 if begin else 200)
        request.send_header("Content-Length", str(len(data) - begin))
        if begin:
            request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        request.wfile.write(data[begin:] if whole else data[begin : -len(data) // 4])
        request.close_connection = True

    large = WEIGHTS * 40  # huggingface_hub keeps 10 MB at a time
    files = {**echo_files(), "model.safetensors": large}
    server.repositories["owner/model"] = Repository(files, sends={"model.safetensors": cut})
    _, files = fetch("hf:owner/model", tmp_path / "to")
    assert files["model.safetensors"] == large
    assert begins[0] == 0 < begins[1]


def test_a_hub_that_falls_silent_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SILENCE_S", 2.0)
    released = threading.Event()
    server.repositories["owner/model"] = Repository(
        echo_files(), sends={"model.safetensors": lambda *_: released.wait(30)}
    )
    try:
        error = failed("hf:owner/model", tmp_path / "to")
    finally:
        released.set()
    assert error.code == "network-unreachable"
    assert "goes on from there" in error.hint


@pytest.mark.parametrize("text", ["hf:", "hf:model", "hf:a/b/c", "hf:a/b@", "https://huggingface.co/a", "hf:../x@y z"])
def test_what_names_no_repository_is_told(text):
    with pytest.raises(AccelError, match="bad-input"):
        hub.parse_reference(text)


def test_from_the_command_line_without_a_node(server, tmp_path):
    server.repositories["owner/model"] = Repository(echo_files(), gated=True)
    data = tmp_path / "data"
    added = run_json("model", "add", "hf:owner/model", data_dir=data)
    assert (added["name"], added["license"], added["gated"]) == ("model", "apache-2.0", True)
    assert added["origin"] == f"hf:owner/model@{COMMIT}"
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in KEPT:
        (plain / name).write_bytes(echo_files()[name])
    assert run_json("model", "add", plain, data_dir=data)["cid"] == added["cid"], "the same files have the same CID"
    info = run_json("model", "info", "model", data_dir=data)
    assert info["gated"], "a gated model stays gated, whoever adds it again"
    assert "gated" in run_program("model", "info", "model", data_dir=data).stdout
    assert not any((data / "downloads").iterdir())
    assert import_folder(plain).root


NAMES = st.lists(
    st.sampled_from(["a", "..", ".x", "onnx", "model.safetensors", "config.json", "b.py"]), min_size=1, max_size=3
)


@given(st.lists(NAMES.map("/".join), max_size=8))
def test_nothing_that_is_chosen_leaves_the_folder_or_runs(names):
    for name in chosen(names):
        assert ".." not in name
        assert not name.startswith(("/", "."))
        assert not name.endswith(".py")


def test_the_weights_are_taken_once():
    assert chosen(["model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"]) == ["model.safetensors"]
    assert chosen(["unet.fp16.safetensors"]) == ["unet.fp16.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert chosen([*shards, "model.safetensors.index.json"]) == sorted([*shards, "model.safetensors.index.json"])
    assert chosen(["pytorch_model.bin", "config.json"]) == ["config.json"]
    assert chosen(["pytorch_model.bin", "config.json"], pickles=True) == ["config.json", "pytorch_model.bin"]
    assert chosen(["pytorch_model.bin", "model.safetensors"], pickles=True) == ["model.safetensors"]
