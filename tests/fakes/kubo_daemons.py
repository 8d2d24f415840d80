"""IPFS daemons for tests: the fake one, and a real one where there is an `ipfs` program on the path.

Both are alone: they know nobody, and nobody finds them. What a test asks of them itself goes over the RPC, so that it
is the same question for both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content.cid import DAG_PB, parse_cid
from ipfs_accel_node.node.content.kubo import Kubo
from ipfs_accel_node.node.content.kubo_address import parse_kubo

_START_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 20.0
#: Beside what the profile `test` sets: loopback, ports of the system's choice, no bootstrap nodes, no mDNS.
_SETTINGS = {
    "Addresses.API": "/ip4/127.0.0.1/tcp/0",
    "Addresses.Gateway": "/ip4/127.0.0.1/tcp/0",
    "Addresses.Swarm": ["/ip4/127.0.0.1/tcp/0"],
    "Bootstrap": [],
    "Discovery.MDNS.Enabled": False,
    "Routing.Type": "none",
}


class Daemon:
    """A daemon that runs: its address, as `--kubo` takes it, and what a test asks of it."""

    def __init__(self, address, authorization=None):
        self.address = address
        self.authorization = authorization

    def ask(self, command, sent=None, **options):
        """The JSON objects of an answer."""
        headers = {"Authorization": self.authorization} if self.authorization else {}
        url = f"{parse_kubo(self.address).url}/api/v0/{command}"
        files = None if sent is None else {"file": ("data", sent)}
        answer = httpx.post(url, params=options, headers=headers, files=files, timeout=30, trust_env=False)
        answer.raise_for_status()
        return [json.loads(line) for line in answer.content.splitlines()]

    def put(self, block, codec):
        """The binary CID of a block that it has now."""
        options = {"cid-codec": "dag-pb" if codec == DAG_PB else "raw", "mhtype": "sha2-256"}
        return parse_cid(self.ask("block/put", block, **options)[-1]["Key"])

    @property
    def pins(self):
        """The CIDs that are pinned whole, as texts."""
        return set(self.ask("pin/ls", type="recursive")[-1].get("Keys") or {})

    async def take(self, store, cid):
        """Has from now on the model that a store has."""

        async def pieces():
            for piece in store.car(cid):
                yield piece

        async with Kubo(parse_kubo(self.address), self.authorization) as kubo:
            await kubo.import_car(cid, pieces())


@contextmanager
def running(kind, folder, authorization=None):
    """A daemon of that kind; skips the test where there is no real one."""
    with ExitStack() as stack:
        if kind == "fake":
            address = stack.enter_context(serving(FakeKubo(authorization)))
        elif shutil.which("ipfs") is None:
            pytest.skip("no `ipfs` program on the path")
        else:
            address = stack.enter_context(_real(folder / "ipfs", authorization))
        yield Daemon(address, authorization)


@contextmanager
def _real(repository, authorization):
    """`ipfs daemon` with a repository of its own; the multiaddr of its RPC."""
    program = shutil.which("ipfs")
    environment = {**os.environ, "IPFS_PATH": str(repository), "IPFS_TELEMETRY": "off"}

    def ipfs(*arguments, check=True):
        command = [program, *arguments]
        subprocess.run(command, env=environment, check=check, capture_output=True, timeout=_START_DEADLINE_S)

    ipfs("init", "--profile", "test")
    for key, value in _SETTINGS.items():
        ipfs("config", "--json", key, json.dumps(value))
    ipfs("config", "--json", "AutoConf.Enabled", "false", check=False)  # which daemons before 0.37 do not know
    if authorization is not None:
        scheme, _, secret = authorization.partition(" ")
        allowed = {"AuthSecret": f"{scheme.lower()}:{secret}", "AllowedPaths": ["/api/v0"]}
        ipfs("config", "--json", "API.Authorizations", json.dumps({"tests": allowed}))
    with (repository / "daemon.log").open("wb") as log:
        process = subprocess.Popen([program, "daemon"], env=environment, stdout=log, stderr=log)
    try:
        yield _address(process, repository)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process, repository):
    """Where its RPC listens, which it writes down when it does."""
    api, deadline = repository / "api", time.monotonic() + _START_DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        if api.exists() and (address := api.read_text().strip()):
            return address
        time.sleep(0.05)
    raise AssertionError(f"`ipfs daemon` did not start: {(repository / 'daemon.log').read_text()[-1000:]}")
