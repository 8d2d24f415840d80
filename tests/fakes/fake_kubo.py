"""An IPFS daemon and a gateway as their documentation says they are, on loopback, with faults on request."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote_plus, urlsplit

from ipfs_accel_node.node.content.car import CarReader, encode_header, encode_section
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, V0, V1_DAG_PB, cid_of, format_cid, parse_cid, parts
from ipfs_accel_node.node.content.leaves import BARE, Wrap
from ipfs_accel_node.node.content.profiles import Profile
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.node.content.unixfs import FILE, decode


class FakeKubo:
    """Blocks by digest, pins by CID; `fault` is what it does wrong, `asked` what it was asked.

    `lacking` are commands that it does not know; `providers` the events with which it tells who has a CID, `provided`
    those with which it tells of a provide. It knows no peers while these are None.
    """

    def __init__(self, authorization=None):
        self.blocks, self.pins, self.asked, self.fault = {}, set(), [], ""
        self.lacking, self.providers, self.provided, self.options, self.connected = set(), None, None, {}, []
        self.authorization = authorization
        self.released = threading.Event()
        self.headers = []

    def put(self, block, codec=RAW):
        digest = hashlib.sha256(block).digest()
        self.blocks[digest] = block
        return cid_of(codec, digest)

    def hold(self, store):
        """Has what a store has."""
        self.store = store

    def take_car(self, car):
        """How many blocks came."""
        with tempfile.TemporaryFile() as file:
            file.write(car)
            file.seek(0)
            reader, count = CarReader(file), 0
            for section in reader.sections():
                block = reader.read(section)
                assert hashlib.sha256(block).digest() == parts(section.cid).digest
                self.put(block)
                count += 1
        return count

    def walk(self, root):
        """The blocks below a CID, as `dag export` gives them: depth first, each once."""
        waiting, seen = [root], set()
        while waiting:
            cid = waiting.pop()
            if cid in seen:
                continue
            seen.add(cid)
            block = self.block(cid)
            yield cid, block
            if parts(cid).codec == DAG_PB:
                waiting += [link.cid for link in reversed(decode(block).links)]

    store = None

    def block(self, cid):
        found = self.blocks.get(parts(cid).digest)
        return found if found is not None or self.store is None else self.store.read_block(cid)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def kubo(self) -> FakeKubo:
        return self.server.kubo

    def do_GET(self):
        url = urlsplit(self.path)
        self._begin(url)
        if not url.path.startswith("/ipfs/"):
            return self._send(405, b"405 - Method Not Allowed")
        if self.headers.get("Accept") != "application/vnd.ipld.raw" or parse_qs(url.query).get("format") != ["raw"]:
            return self._send(400, b"raw blocks only")
        fault = self.kubo.fault
        if fault.startswith("redirects to "):
            return self._send(301, b"", {"Location": fault.removeprefix("redirects to ")})
        if fault == "redirects once" and "moved" not in url.query:
            return self._send(302, b"", {"Location": f"{self.path}&moved=1"})
        if fault == "redirects forever":
            return self._send(302, b"", {"Location": self.path})
        return self._answer_block(parse_cid(url.path.removeprefix("/ipfs/")), 404)

    def do_POST(self):
        url = urlsplit(self.path)
        body = self._body()
        self._begin(url)
        if self.kubo.authorization and self.headers.get("Authorization") != self.kubo.authorization:
            return self._send(403, b"403 - Forbidden")
        options = {key: values[0] for key, values in parse_qs(url.query).items()}
        command = url.path.removeprefix("/api/v0/")
        if command == "version" and self.kubo.fault == "is another program":
            return self._send(200, b"<html>hello</html>")
        if self.kubo.fault in ("hangs", f"{command} hangs"):
            self.kubo.released.wait(30)
            return None
        self.kubo.options[command] = options
        lacks = command in self.kubo.lacking
        answer = None if lacks else getattr(self, f"do_{command.replace('/', '_')}", None)
        return answer(options, body) if answer else self._send(404, b"404 page not found")

    def do_version(self, options, body):
        self._json({"Version": "0.39.0", "Commit": "", "Repo": "18", "System": "amd64/linux", "Golang": "go1.25"})

    def do_id(self, options, body):
        self._json({"ID": "12D3KooWfake", "PublicKey": "", "Addresses": None, "AgentVersion": "kubo/0.39.0"})

    def do_block_get(self, options, body):
        self._answer_block(parse_cid(options["arg"]), 500)

    def do_block_put(self, options, body):
        codec = {"dag-pb": DAG_PB, "raw": RAW}[options["cid-codec"]]
        if self.kubo.fault == "lies":
            body += b"x"
        self._json({"Key": format_cid(self.kubo.put(body, codec)), "Size": len(body)})

    def do_dag_import(self, options, body):
        count = self.kubo.take_car(body)
        if self.kubo.fault == "breaks off":
            return self._stream([], error="the disk is full")
        return self._stream([{"Stats": {"BlockCount": count, "BlockBytesCount": len(body)}}])

    def do_pin_add(self, options, body):
        if self.kubo.block(parse_cid(options["arg"])) is None:
            return self._error("ipld: could not find " + options["arg"])
        if self.kubo.fault == "breaks off":
            return self._stream([{"Progress": 3}], error="context canceled")
        self.kubo.pins.add(options["arg"])
        return self._json({"Pins": [options["arg"]]})

    def do_pin_rm(self, options, body):
        if options["arg"] not in self.kubo.pins:
            return self._error("not pinned or pinned indirectly")
        self.kubo.pins.discard(options["arg"])
        return self._json({"Pins": [options["arg"]]})

    def do_pin_ls(self, options, body):
        self._json({"Keys": {pin: {"Type": "recursive", "Name": ""} for pin in self.kubo.pins}})

    def do_dag_export(self, options, body):
        root, fault = parse_cid(options["arg"]), self.kubo.fault
        if self.kubo.block(root) is None:
            return self._error("block was not found locally (offline): ipld: could not find")
        sections = [encode_header([root])]
        for number, (cid, block) in enumerate(self.kubo.walk(root)):
            if fault == "the stream lies" and number > 12:
                block = bytes(len(block))
            if fault == "the stream breaks off" and number > 12:
                return self._chunks(sections, error="context canceled")
            sections.append(encode_section(cid, block))
        if fault == "the stream is no CAR":
            sections = [b"<html>hello</html>" * 100]
        if fault == "the stream is of no use":
            sections[1:1] = [encode_section(*_noise(number)) for number in range(70)]
        return self._chunks(sections)

    def do_add(self, options, body):
        """Cuts files up by what it is told, as a store of ours does, which the CID tests hold against Kubo's."""
        start = V0 if options["cid-version"] == "0" else V1_DAG_PB
        leaf = BARE if options["raw-leaves"] == "true" else Wrap(V0, FILE)
        chunk = int(options["chunker"].removeprefix("size-")) // (2 if self.kubo.fault == "cuts small" else 1)
        width, whole_block = int(options["max-file-links"]), options["max-file-links"] == "1024"
        profile = Profile("told", start, leaf, chunk, width, whole_block)
        with tempfile.TemporaryDirectory() as folder:
            names = _write_parts(self.parts, Path(folder))
            store = ModelStore(Path(folder) / "store")
            model = store.add(Path(folder) / "model", profile=profile)
            self.kubo.take_car(b"".join(store.car(model.cid_bytes)))
        told = [{"Name": name, "Hash": "Qm", "Size": "1"} for name in names if name != "model"]
        if self.kubo.fault == "breaks off":
            return self._stream(told, error="the disk is full")
        return self._stream([*told, {"Name": "model", "Hash": model.cid, "Size": "1"}])

    def do_swarm_connect(self, options, body):
        address = options["arg"].split("/")
        self.kubo.connected.append(options["arg"])
        try:
            socket.create_connection((address[2], int(address[4])), 2).close()
        except (OSError, ValueError):
            return self._error(f"connect {address[-1]} failure: failed to dial")
        return self._json({"Strings": [f"connect {address[-1]} success"]})

    def do_routing_findprovs(self, options, body):
        events = self.kubo.providers or []
        if self.kubo.fault == "goes on looking":
            return self._chunks((json.dumps(each).encode() + b"\n" for each in events), wait=True)
        return self._stream(events)

    def do_routing_provide(self, options, body):
        if self.kubo.block(parse_cid(options["arg"])) is None:
            return self._error(f"block {options['arg']} not found locally, cannot provide")
        if self.kubo.provided is None:
            return self._error("cannot provide, no connected peers")
        return self._stream(self.kubo.provided)

    do_dht_findprovs, do_dht_provide = do_routing_findprovs, do_routing_provide

    # --- how it answers

    def _begin(self, url):
        self.kubo.asked.append(url.path)
        self.kubo.headers.append(dict(self.headers))

    def _answer_block(self, cid, missing):
        block, fault = self.kubo.block(cid), self.kubo.fault
        if fault == "hangs":
            self.kubo.released.wait(30)
            return None
        if block is None:
            return (
                self._error("block was not found locally (offline): ipld: could not find")
                if missing == 500
                else (self._send(404, b"not found"))
            )
        if fault == "lies":
            block = bytes(len(block))
        if fault == "sends too much":
            return self._chunks([bytes(1 << 20)] * 64)
        if fault == "fails":
            return self._error("something is broken") if missing == 500 else self._send(500, b"broken")
        return self._chunks([block])

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data"):
            return data
        boundary = b"--" + kind.partition("boundary=")[2].encode()
        assert data.rstrip().endswith(b"\r\n" + boundary + b"--")
        whole = data[: data.rindex(b"\r\n" + boundary + b"--")]
        self.parts = [_part(each) for each in (b"\r\n" + whole).split(b"\r\n" + boundary + b"\r\n")[1:]]
        return self.parts[0][2]

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, answer):
        self._stream([answer])

    def _error(self, message):
        told = json.dumps({"Message": message, "Code": 0, "Type": "error"}).encode()
        self._send(500, told, {"Content-Type": "application/json"})

    def _stream(self, answers, error=None):
        """A line of JSON each; what fails later is told in a trailer."""
        self._chunks([json.dumps(each).encode() + b"\n" for each in answers], error)

    def _chunks(self, pieces, error=None, *, wait=False):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Stream-Error")
        self.end_headers()
        try:
            for piece in filter(None, pieces):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if wait:
                self.kubo.released.wait(30)
            trailer = f"X-Stream-Error: {error}\r\n".encode() if error else b""
            self.wfile.write(b"0\r\n" + trailer + b"\r\n")
        except OSError:
            self.close_connection = True


def _part(encoded):
    """Path, kind and content of a part."""
    head, _, content = encoded.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    name, path = re.fullmatch(r'form-data; name="(.*?)"; filename="(.*?)"', headers["Content-Disposition"]).groups()
    assert name.startswith("file")
    return unquote_plus(path), headers.get("Content-Type", ""), content


def _write_parts(sent, folder):
    """Writes what came into a folder, each folder before what is in it."""
    for path, kind, content in sent:
        target = folder / path
        if kind == "application/x-directory":
            target.mkdir()
        elif kind == "application/symlink":
            target.symlink_to(content.decode())
        else:
            target.write_bytes(content)
    return [path for path, _, _ in sent]


def _noise(number):
    block = bytes([number]) * (1 << 20)
    return cid_of(RAW, hashlib.sha256(block).digest()), block


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away in the middle is no matter; anything else shows in what the client gets."""


@contextmanager
def serving(kubo):
    """Its URL, while it serves."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.kubo = kubo
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        kubo.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
