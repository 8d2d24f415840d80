"""How long a reader waits when the node that writes its text is killed: from its last token to the next one.

The real SmolLM2 is warm on two nodes with one thread each; a third, which computes nothing, is asked. In each round
the node that writes is killed with SIGKILL in the middle of a text. What the other one takes to read the prompt and the
text so far is measured beside it, undisturbed, in the same round: the rest of the gap is recovery.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import real_model
from bench.report import Figure, finish, median_and_p99, note, options
from cluster import NodeProcess
from ipfs_accel_node import Client
from striking import measured, wait_until

FLOOR_S = 3.0
GOAL_S = 1.0
TOKENS = 96
_KILLED_AFTER = 40
_WARM_DEADLINE_S = 300.0
_QUESTION = [{"role": "user", "content": "Write a short story about a lighthouse keeper and a storm."}]


@dataclass(frozen=True)
class Round:
    """Seconds: the longest wait of the reader, the same node's prefill undisturbed, and its usual time a token."""

    gap_s: float
    prefill_s: float
    token_s: float
    equal: bool

    @property
    def recovery_s(self) -> float:
        return max(0.0, self.gap_s - self.prefill_s)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="kills, of which the median counts (default 5)")
    parser.add_argument("--backend", default="openvino", help="what both nodes compute with (openvino)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder:
        rounds = measure(Path(folder), asked.rounds, asked.backend)
    gap, worst = median_and_p99([each.gap_s for each in rounds])
    figures = [
        Figure("the reader waits, median", gap, "s", floor=FLOOR_S),
        Figure("the reader waits, longest", worst, "s", floor=FLOOR_S),
        Figure("of that, reading the text so far", median_and_p99([each.prefill_s for each in rounds])[0], "s"),
        Figure("the rest", median_and_p99([each.recovery_s for each in rounds])[0], "s", goal=GOAL_S),
        Figure("a token, undisturbed", median_and_p99([each.token_s for each in rounds])[0] * 1e3, "ms"),
        Figure("texts equal to the undisturbed one", sum(each.equal for each in rounds) / len(rounds), "of 1",
               floor=1.0, more_is_better=True),
    ]  # fmt: skip
    return finish("recovery", figures, asked.json)


def measure(folder: Path, rounds: int, backend: str) -> list[Round]:
    with ExitStack() as stack:
        entry = stack.enter_context(NodeProcess("entry", folder / "entry", "--backends", "none"))
        token = entry.wait_ready()["token"]
        flags = ("--backends", backend, "--threads", "1", "--join", token)
        writers = {name: stack.enter_context(NodeProcess(name, folder / name, *flags)) for name in ("one", "other")}
        client = stack.enter_context(entry.client())
        cid = _give_model(list(writers.values()))
        _wait_warm(client, cid, set(writers))
        return [_round(client, cid, writers) for _ in range(rounds)]


def _give_model(writers: list[NodeProcess]) -> str:
    note("giving both nodes the model; the first time it is converted, a minute or two")
    with writers[0].client() as first, writers[1].client() as second:
        cid = str(first.add_model(real_model.ensure("smollm2"), name="smollm2")["cid"])
        writers[1].wait_known(cid)
        second.get_model(cid)
    return cid


def _wait_warm(client: Client, cid: str, names: set[str]) -> None:
    wait_until(lambda: set(measured(client, cid)) == names, _WARM_DEADLINE_S, "both nodes warm and measured")


def _round(client: Client, cid: str, writers: dict[str, NodeProcess]) -> Round:
    stream = client.generate(cid, _QUESTION, max_new_tokens=TOKENS, ignore_eos=True, stream=True)
    times, killed, place = [], "", 0
    for _ in stream:
        times.append(time.perf_counter())
        if not killed and len(times) >= _KILLED_AFTER:
            killed, place = _writing(client), len(times)
            writers[killed].kill()
    assert killed, "the text was over before its node was killed"
    outcomes = [attempt["outcome"] for attempt in stream.report["attempts"]]
    assert outcomes == ["peer-lost", "ok"], outcomes
    other = str(stream.report["node_name"])
    note(f"{killed} was killed, {other} went on")
    prefill_s, token_s, text = _undisturbed(client, cid, other, stream.text)
    writers[killed].ready = {}
    writers[killed].start()
    _wait_warm(client, cid, set(writers))
    gap_s = max(after - before for before, after in itertools.pairwise(times[place - 1 :]))
    return Round(gap_s, prefill_s, token_s, text == stream.text)


def _writing(client: Client) -> str:
    """The name of the node that writes the only text there is."""
    return str(client.status()["running"][0]["node_name"])


def _undisturbed(client: Client, cid: str, node: str, text: str) -> tuple[float, float, str]:
    """On that node: the seconds to read as much as was there at the kill, a token's, and the text without a kill."""
    whole = client.generate(cid, _QUESTION, max_new_tokens=TOKENS, ignore_eos=True, on=node)
    half = text[: len(text) * _KILLED_AFTER // TOKENS]
    read = client.generate(cid, [*_QUESTION, {"role": "assistant", "content": half}], max_new_tokens=1, on=node)
    writing_s = whole.report["compute_s"] - whole.report["first_token_s"]
    return read.report["first_token_s"], writing_s / (TOKENS - 1), whole.text


if __name__ == "__main__":
    sys.exit(main())
