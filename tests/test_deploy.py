"""The files for running a node for good: their commands are ours, and what they name exists."""

from __future__ import annotations

import configparser
import fnmatch
import os
import plistlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from ipfs_accel_node.node import app
from ipfs_accel_node.node.cli import PROGRAM, build_parser

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "scripts" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


@pytest.fixture
def unit():
    parsed = configparser.ConfigParser(interpolation=None, strict=True)
    parsed.optionxform = str
    parsed.read(DEPLOY / "ipfs-accel-node.service")
    return parsed


@pytest.fixture
def agent():
    return plistlib.loads((DEPLOY / "io.github.ipfs-accel-node.plist").read_bytes())


def parse(command: str):
    """What our own parser makes of a command line that begins with the program's path; the rest is the shell's."""
    program, *arguments = shlex.split(re.sub(r"\d?>.*", "", command.removeprefix("exec ")))
    assert program.endswith(f"/ipfs-accel-node/.venv/bin/{PROGRAM}")
    return build_parser().parse_args(arguments)


def test_the_unit_starts_a_node_and_gives_it_time_to_drain(unit):
    service = unit["Service"]
    assert parse(service["ExecStart"]).command == "start:start"
    assert service["ExecStart"].startswith("%h/")
    assert int(service["TimeoutStopSec"]) > app._DRAIN_DEADLINE_S
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert (service["KillMode"], service["OOMPolicy"]) == ("mixed", "continue")
    assert service["StandardOutput"] == "null"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    program = tmp_path / "ipfs-accel-node" / ".venv" / "bin" / PROGRAM
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "--user", "verify", str(DEPLOY / "ipfs-accel-node.service")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_agent_starts_a_node_and_gives_it_time_to_drain(agent):
    shell, option, command = agent["ProgramArguments"]
    assert (shell, option) == ("/bin/sh", "-c")
    assert parse(command).command == "start:start"
    assert command.count(">/dev/null") == 1
    assert agent["ExitTimeOut"] > app._DRAIN_DEADLINE_S
    assert (agent["RunAtLoad"], agent["KeepAlive"]) == (True, {"SuccessfulExit": False})
    assert agent["Umask"] == 0o077


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_the_image_copies_exists_and_is_the_whole_package():
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert {"pyproject.toml", "__init__.py", "py.typed", "backends", "node", "protocols"} <= set(copied())
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert [source for source in copied() if not any(fnmatch.fnmatch(f"!{source}", rule) for rule in ignored)] == []


def test_the_images_commands_are_ours():
    (healthcheck,) = re.findall(r"^HEALTHCHECK .*CMD (\[.+\])$", DOCKERFILE, re.M)
    (entry,), (default,) = (
        re.findall(r"^ENTRYPOINT (\[.+\])$", DOCKERFILE, re.M),
        re.findall(r"^CMD (.+)$", DOCKERFILE, re.M),
    )
    program, *arguments = re.findall(r'"([^"]+)"', healthcheck)
    assert program == PROGRAM
    assert build_parser().parse_args(arguments).command == "node:status"
    assert re.findall(r'"([^"]+)"', entry) == [PROGRAM]
    assert build_parser().parse_args(re.findall(r'"([^"]+)"', default)).command == "start:start"


def test_the_image_runs_as_nobody_special_and_keeps_its_data():
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER node$", last, re.M)
    assert re.search(r"^VOLUME /data$", last, re.M)
    assert "IPFS_ACCEL_DATA_DIR=/data" in last
    assert re.search(r"^EXPOSE 4011\b", last, re.M)


def test_every_command_of_the_page_is_ours():
    page = (ROOT / "docs" / "running.md").read_text()
    lines = re.findall(r"^(?:docker exec (?:-i )?node )?ipfs-accel-node ([^\n#]+)", page, re.M)
    assert len(lines) >= 3
    for line in lines:
        build_parser().parse_args(shlex.split(line))
