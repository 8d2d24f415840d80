"""Tab in real shells: what is offered, and that nothing but the shell hears of a node that is not there."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cluster import PROGRAM, NodeProcess, environment, make_echo_model

DEADLINE_S = 30.0
#: A peer could call a model so.
HOSTILE = "$(touch pwned);`id`"


def needs(shell: str):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    with NodeProcess("desk", folder / "desk", "--backends", "echo") as node, node.client() as client:
        client.add_model(make_echo_model(folder / "one"), "minilm")
        client.add_model(make_echo_model(folder / "two", work_ms=1), "pinned-one")
        client.add_model(make_echo_model(folder / "three", work_ms=2), HOSTILE)
        client.pin_model("pinned-one")
        yield node


def shell_environment(data_dir: Path) -> dict[str, str]:
    return {
        **environment(),
        "IPFS_ACCEL_DATA_DIR": str(data_dir),
        "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}",
        "TERM": "dumb",
        "HOME": str(data_dir),
    }


def asked(line: str, data_dir: Path) -> list[str]:
    """What the program answers a shell that asks, as argcomplete's script for bash does."""
    variables = {
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"
    }  # fmt: skip
    reader, writer = os.pipe()
    done = subprocess.run(
        ["bash", "-c", f'exec "{PROGRAM}" 8>&{writer} 9>/dev/null'],
        env={**shell_environment(data_dir), **variables}, pass_fds=[writer], capture_output=True, timeout=DEADLINE_S,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as answer:
        offered = answer.read()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return offered.split("\013") if offered else []


def test_commands_models_and_nodes_are_offered(desk, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with desk.client() as client:
        cid = client.model_info("minilm")["cid"]
    for line, offered in {
        "ipfs-accel-node p": ["peers", "pin", "pause"],
        "ipfs-accel-node pin ": ["add", "ls", "rm"],
        "ipfs-accel-node pin rm ": ["pinned-one"],
        "ipfs-accel-node pin add mi": ["minilm"],
        "ipfs-accel-node model rm p": [],
        "ipfs-accel-node run m": ["minilm"],
        f"ipfs-accel-node run {cid[:20]}": [cid],
        "ipfs-accel-node run minilm --on ": ["local"],
        "ipfs-accel-node run minilm --exp": ["--explain"],
        "ipfs-accel-node start --precision ": ["auto", "f32", "bf16", "fp16", "int8", "int4"],
        "ipfs-accel-node completion ": ["bash", "zsh", "fish"],
        "ipfs-accel-node model make wa": ["wav2vec2"],
        "ipfs-accel-node model make bert --size ": ["tiny", "reference"],
        f"ipfs-accel-node model make bert --out {tmp_path}/f": [f"{tmp_path}/folder/"],
        f"ipfs-accel-node model add {tmp_path}/f": [f"{tmp_path}/folder/"],
        f"ipfs-accel-node run minilm --input-file {tmp_path}/f": [f"{tmp_path}/file", f"{tmp_path}/folder/"],
    }.items():
        assert sorted(asked(line, desk.data_dir)) == sorted(offered), line


def test_a_name_that_a_shell_might_read_is_not_offered(desk):
    offered = asked("ipfs-accel-node run ", desk.data_dir)
    assert {"minilm", "pinned-one"} <= set(offered)
    assert not any("$" in name or "`" in name for name in offered)


def test_without_a_node_there_is_nothing_and_no_noise(tmp_path):
    assert asked("ipfs-accel-node run ", tmp_path / "nowhere") == []
    assert asked("ipfs-accel-node mod", tmp_path / "nowhere") == ["model"]
    assert list(tmp_path.iterdir()) == []


def script_of(shell: str) -> str:
    done = subprocess.run([PROGRAM, "completion", shell], capture_output=True, text=True, timeout=20, check=True)
    assert "ipfs-accel-node" in done.stdout
    return done.stdout


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, *command: str, data_dir: Path) -> None:
        self.outer, inner = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=shell_environment(data_dir), start_new_session=True
        )
        os.close(inner)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.outer)

    def type(self, text: str) -> None:
        os.write(self.outer, text.encode())

    def see(self, wanted: str) -> None:
        """Reads on until the pattern comes; what was before it is not looked at again."""
        end = time.monotonic() + DEADLINE_S
        while not (found := re.search(wanted, self.shown)):
            assert select.select([self.outer], [], [], max(0.0, end - time.monotonic()))[0], self.shown
            self.shown += os.read(self.outer, 1 << 16).decode(errors="replace")
        self.shown = self.shown[found.end() :]


@needs("bash")
def test_bash(desk, tmp_path):
    (tmp_path / "script").write_text(script_of("bash"))
    with Terminal("bash", "--norc", "--noprofile", "-i", data_dir=desk.data_dir) as bash:
        bash.type(f"PS1='> '; bind 'set bell-style none'; source {tmp_path}/script; echo ready''now\n")
        bash.see("readynow")
        bash.type("ipfs-accel-node pin r\t")
        bash.see("pin rm ")
        bash.type("\t")
        bash.see("pinned-one ")
        bash.type("\n")
        bash.see("may be removed again")
        bash.type("ipfs-accel-node pin add pin\t\n")
        bash.see("stays on this node")


@needs("zsh")
def test_zsh(desk, tmp_path):
    (tmp_path / "script").write_text(script_of("zsh"))
    with Terminal("zsh", "-f", "-i", data_dir=desk.data_dir) as zsh:
        zsh.type(f"autoload -U compinit; compinit -u -D; source {tmp_path}/script; echo ready''now\n")
        zsh.see("readynow")
        zsh.type("ipfs-accel-node pin r\t")
        zsh.see("m ")
        zsh.type("\t\n")
        zsh.see("pinned-one may be removed again")
        zsh.type("ipfs-accel-node pin add pin\t\n")
        zsh.see("stays on this node")


@needs("fish")
def test_fish(desk, tmp_path):
    (tmp_path / "script").write_text(script_of("fish"))

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {tmp_path}/script; complete -C '{line}'"],
            env=shell_environment(desk.data_dir), capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [each.split("\t")[0] for each in done.stdout.splitlines()]

    assert offered("ipfs-accel-node pin rm ") == ["pinned-one"]
    assert sorted(offered("ipfs-accel-node pin ")) == ["add", "ls", "rm"]
