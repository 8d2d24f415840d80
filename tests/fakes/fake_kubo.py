"""An IPFS daemon and a gateway as their documentation says they are, on loopback, with faults on request."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from ipfs_accel_node.node.content.car import CarReader
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, cid_of, format_cid, parse_cid, parts


class FakeKubo:
    """Blocks by digest, pins by CID; `fault` is what it does wrong, `asked` what it was asked."""

    def __init__(self, authorization=None):
        self.blocks, self.pins, self.asked, self.fault = {}, set(), [], ""
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
        if self.kubo.fault == "hangs":
            self.kubo.released.wait(30)
            return None
        answer = getattr(self, f"do_{command.replace('/', '_')}", None)
        return answer(options, body) if answer else self._send(404, b"404 page not found")

    def do_version(self, options, body):
        self._json({"Version": "0.39.0", "Commit": "", "Repo": "18", "System": "amd64/linux", "Golang": "go1.25"})

    def do_id(self, options, body):
        self._json({"ID": "12D3KooWfake", "PublicKey": "", "Addresses": None, "AgentVersion": "kubo/0.39.0"})

    def do_block_get(self, options, body):
        self._answer_block(parse_cid(options["arg"]), 500)

    def do_block_stat(self, options, body):
        block = self.kubo.block(parse_cid(options["arg"]))
        self._json({"Key": options["arg"], "Size": len(block)}) if block else self._error("block was not found locally")

    def do_block_put(self, options, body):
        codec = {"dag-pb": DAG_PB, "raw": RAW}[options["cid-codec"]]
        if self.kubo.fault == "lies":
            body += b"x"
        self._json({"Key": format_cid(self.kubo.put(body, codec)), "Size": len(body)})

    def do_dag_import(self, options, body):
        import tempfile

        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.seek(0)
            reader, count = CarReader(file), 0
            for section in reader.sections():
                block = reader.read(section)
                assert hashlib.sha256(block).digest() == parts(section.cid).digest
                self.kubo.put(block)
                count += 1
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
        boundary = kind.partition("boundary=")[2].encode()
        head, _, rest = data.partition(b"\r\n\r\n")
        assert head.startswith(b"--" + boundary)
        assert b'name="file"' in head
        return rest[: rest.rindex(b"\r\n--" + boundary + b"--")]

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

    def _chunks(self, pieces, error=None):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Stream-Error")
        self.end_headers()
        try:
            for piece in filter(None, pieces):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            trailer = f"X-Stream-Error: {error}\r\n".encode() if error else b""
            self.wfile.write(b"0\r\n" + trailer + b"\r\n")
        except OSError:
            self.close_connection = True


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
