"""Text from a model through a node: both clients, the command line, and a text that survives its node."""

from __future__ import annotations

import json
import subprocess

import anyio
import pytest
import real_model
from cluster import PROGRAM, NodeProcess, environment
from ipfs_accel_node import AccelError, AsyncClient, Generation, JobError
from ipfs_accel_node.backends.making import make_sentence_model
from striking import measured, wait_until

pytestmark = [pytest.mark.engines, pytest.mark.network]
ASKED = {"max_new_tokens": 24, "ignore_eos": True}
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    with NodeProcess("writer", folder / "data", "--backends", "cpu", "--threads", "1") as process:
        with process.client() as client:
            client.make_model("llama", "tiny")
            client.add_model(make_sentence_model(folder / "sentence"), "sentence")
            wait_until(lambda: {"tiny", "sentence"} == {m["name"] for m in client.models() if m["nodes"]}, 120)
        yield process


@pytest.fixture
def client(node):
    with node.client() as client:
        yield client


def run(node, *arguments, status=0):
    done = subprocess.run(
        [PROGRAM, "--data-dir", str(node.data_dir), "run", *arguments],
        capture_output=True, text=True, timeout=120, env=environment(),
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def test_a_text_whole_and_as_a_stream_is_the_same(client):
    whole = client.generate("tiny", "once", **ASKED)
    assert isinstance(whole, Generation)
    assert str(whole) == whole.text
    assert (whole.prompt_tokens, whole.completion_tokens, whole.finish_reason) == (4, 24, "length")
    assert whole.report["counts"] == {"prompt_tokens": 4, "output_tokens": 24}
    assert whole.report["weights"] == "random"  # as its folder says
    stream = client.generate("tiny", "once", stream=True, **ASKED)
    pieces = list(stream)
    assert "".join(pieces) == stream.text == whole.text
    assert stream.token_ids == whole.token_ids == stream.generation().token_ids


def test_messages_a_stop_text_and_a_seed(client):
    whole = client.generate("tiny", MESSAGES, **ASKED)
    assert whole.prompt_tokens == client.generate("tiny", "hello", chat=True, **ASKED).prompt_tokens > 5
    stopped = client.generate("tiny", MESSAGES, stop=whole.text[6:8], **ASKED)
    assert whole.text.startswith(stopped.text)
    assert stopped.finish_reason == "stop"
    drawn = client.generate("tiny", "x", temperature=1.0, **ASKED)
    assert client.generate("tiny", "x", temperature=1.0, seed=drawn.seed, **ASKED).text == drawn.text


def test_reading_and_writing_are_measured_and_predicted(client, node):
    offer = wait_until(
        lambda: measured(client, next(m["cid"] for m in client.models() if m["name"] == "tiny")).get("writer"), 120
    )
    assert offer["count"] >= 15
    job = client.submit("tiny", "text-generation", "x", max_new_tokens=200, ignore_eos=True)
    job.result(60)
    short = client.submit("tiny", "text-generation", "x", max_new_tokens=1)
    short.result(60)
    long_s, short_s = (each.report["route"]["candidates"][0]["parts"]["compute"] for each in (job, short))
    assert long_s > 5 * short_s > 0


@pytest.mark.parametrize(
    ("prompt", "options", "code"),
    [("", {}, "bad-input"), ([{"role": "user"}], {}, "bad-input"), ("x" * 5000, {}, "too-large"),
     ("x", {"temperature": -1}, "bad-input"), ("x", {"stop": [""]}, "bad-input"), (5, {}, "bad-input"),
     ("x", {"on": "nobody"}, "unknown-peer"), ("x", {"job_id": "zz"}, "bad-input")],
)  # fmt: skip
def test_mistakes_are_told_with_a_code(client, prompt, options, code):
    with pytest.raises(AccelError) as failed:
        client.generate("tiny", prompt, **options)
    assert failed.value.code == code


def test_a_mistake_in_an_options_name_is_told_as_python_does(client):
    with pytest.raises(TypeError, match="max_tokens"):
        client.generate("tiny", "x", max_tokens=4)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_asynchronous_client(node, client, backend):
    whole = client.generate("tiny", "once", **ASKED)

    async def main():
        async with AsyncClient(node.data_dir) as client:
            assert (await client.generate("tiny", "once", **ASKED)).text == whole.text
            stream = await client.generate("tiny", "once", stream=True, **ASKED)
            assert "".join([piece async for piece in stream]) == stream.text == whole.text
            assert (await stream.generation()).token_ids == whole.token_ids
            async with await client.generate("tiny", "x", stream=True, max_new_tokens=400, ignore_eos=True) as left:
                assert await anext(left)
            with pytest.raises(JobError, match="cancelled"):
                await left.result(10)
            failing = await client.generate("tiny", "", stream=True)
            with pytest.raises(JobError, match="bad-input"):
                await anext(failing)
            again = await client.resume_stream(stream)
            assert "".join([piece async for piece in again]) == ""
            assert again.text == whole.text

    anyio.run(main, backend=backend)


def test_a_model_is_made_by_an_asynchronous_client_and_its_results_say_so(node):
    async def main():
        async with AsyncClient(node.data_dir) as client:
            states = []
            made = await client.make_model("bert", seed=5, on_progress=lambda state, *_: states.append(state))
            assert (made["name"], made["why_not"], "making" in states) == ("bert-tiny-random", "", True)
            assert list((node.data_dir / "downloads").iterdir()) == []
            job = await client.submit("bert-tiny-random", "feature-extraction", "x", timeout=60)
            assert (await job.result()).shape == (64,)
            assert job.report["weights"] == "random"
            with pytest.raises(AccelError) as refused:
                await client.make_model("nothing")
            assert refused.value.code == "bad-input"

    anyio.run(main)


def test_run_prints_a_text_whole_or_as_it_comes(node, client):
    flags = ("--max-new-tokens", "24", "--param", "ignore_eos=true")
    whole = run(node, "tiny", "--input", "once", "--raw", *flags)
    expected = client.generate("tiny", "once", **ASKED).text
    assert whole.stdout.startswith(expected)
    assert "4 tokens read, 24 written" in whole.stdout
    assert "weights: random" in whole.stdout
    assert run(node, "tiny", "--input", "once", "--raw", "--stream", *flags).stdout.startswith(expected)
    document = json.loads(run(node, "tiny", "--input", "once", "--json", *flags).stdout)
    assert document["value"]["completion_tokens"] == 24
    assert document["value"]["prompt_tokens"] > 4
    *pieces, last = map(json.loads, run(node, "tiny", "--input", "x", "--stream", "--json", *flags).stdout.splitlines())
    assert "".join(piece["text"] for piece in pieces) == last["value"]["generated_text"]
    as_raw = json.loads(run(node, "tiny", "--input", "once", "--param", "chat=false", "--json", *flags).stdout)
    assert as_raw["value"]["generated_text"] == expected
    two = json.loads(
        run(node, "tiny", "--input", "a", "--input", "b", "--system", "Be brief.", "--json", *flags).stdout
    )
    assert len(two["value"]) == 2


def test_a_batch_of_texts_is_one_of_messages(node, tmp_path):
    lines = ["hello", {"input": MESSAGES}, {"input": "hello", "params": {"chat": False}}, {"input": 5}]
    batch, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    batch.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--param", "max_new_tokens=4", "--param", "ignore_eos=true")
    run(node, "tiny", "--batch", str(batch), "--out", str(out), *flags, status=1)
    _, first, second, raw, wrong = map(json.loads, out.read_text().splitlines())
    assert first["value"] == second["value"]
    assert first["report"]["weights"] == "random"
    assert len(first["value"]["token_ids"]) == 4
    assert raw["value"]["prompt_tokens"] == 5 < first["value"]["prompt_tokens"]
    assert wrong["error"]["code"] == "bad-input"


def test_flags_for_texts_are_refused_elsewhere(node):
    assert (
        "--stream is for models that write text" in run(node, "sentence", "--input", "x", "--stream", status=2).stderr
    )
    assert "bad-input" in run(node, "tiny", "--input", "x", "--temperature", "-1", status=2).stderr
    assert "no parameter foo" in run(node, "tiny", "--input", "x", "--param", "foo=1", status=2).stderr


def test_the_real_model_goes_on_where_its_node_was_killed(tmp_path):
    question = [{"role": "user", "content": "Write a short story about a lighthouse keeper."}]
    asked = {"max_new_tokens": 48, "ignore_eos": True}
    with NodeProcess("entry", tmp_path / "entry", "--backends", "none") as entry:
        flags = ("--threads", "1", "--join", entry.wait_ready()["token"])
        with (
            NodeProcess("torch", tmp_path / "torch", "--backends", "cpu", *flags) as torch,
            NodeProcess("intel", tmp_path / "intel", "--backends", "openvino", *flags) as intel,
            entry.client() as client,
        ):
            nodes = {"torch": torch, "intel": intel}
            with torch.client() as at_torch, intel.client() as at_intel:
                cid = at_torch.add_model(real_model.ensure("smollm2"), "smollm2")["cid"]
                intel.wait_known(cid)
                at_intel.get_model(cid)
            wait_until(lambda: set(measured(client, cid)) == set(nodes), 400, "both nodes warm and measured")
            undisturbed = {name: client.generate("smollm2", question, on=name, **asked).text for name in nodes}
            assert undisturbed["torch"] == undisturbed["intel"]
            stream, killed = client.generate("smollm2", question, stream=True, **asked), ""
            for _ in stream:
                if not killed and len(stream.token_ids) >= 20:
                    killed = client.status()["running"][0]["node_name"]
                    nodes[killed].kill()
            assert killed
            assert stream.text == undisturbed["torch"]
            assert [attempt["outcome"] for attempt in stream.report["attempts"]] == ["peer-lost", "ok"]
            assert sum(attempt["outputs"] for attempt in stream.report["attempts"]) == 48
            assert [attempt["precision"] for attempt in stream.report["attempts"]] == ["f32", "f32"]
