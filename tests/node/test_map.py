"""Many jobs at once with both clients, against a door that answers as told."""

from __future__ import annotations

import gc
import inspect
import itertools
import threading
from contextlib import closing

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node import AccelError, AsyncClient, Client, JobError
from ipfs_accel_node.node import client_jobs, map_window
from ipfs_accel_node.node.map_window import InputError, Outcome, Window
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.inference_session import CallReceived, Cancelled, RequestReceived

INFO = {"cid": "c", "task": "own-task", "nodes": [{}, {}, {}]}


class Pile:
    """Holds every job until `size` of them are there, then answers them in the order that `order` gives.

    Attributes:
        most: how many were open at once.
    """

    def __init__(self, size, order=reversed):
        self.size = size
        self.order = order
        self.most = 0
        self._held = []

    def __call__(self, session, event):
        match event:
            case CallReceived(request_id, "model.info", _):
                session.result(request_id, {}, values.pack(INFO))
            case RequestReceived(request_id, _, payload):
                session.accept(request_id, 0, 0)
                self._held.append((request_id, payload))
                self.most = max(self.most, len(self._held))
                if len(self._held) == self.size:
                    for each in self.order(self._held):
                        self._answer(session, *each)
                    self._held.clear()

    def _answer(self, session, request_id, payload):
        value = values.unpack(payload)
        if isinstance(value, str) and value.startswith("fail"):
            session.fail(request_id, "worker-died", f"no {value}", "Hint.")
        else:
            session.result(request_id, {"node_name": "n"}, payload)


def first_input(held):
    """trio starts tasks in any order."""
    return [min(held, key=lambda each: each[1])]


def texts(count):
    return [f"text {number}" for number in range(count)]


@pytest.fixture(params=["asyncio", "trio"])
def run(request):
    """Runs an asynchronous function with a client of a door on either library, with a bound."""

    def run(door, main):
        async def bounded():
            with anyio.fail_after(60):
                async with AsyncClient(door.data_dir) as client:
                    await main(client)

        anyio.run(bounded, backend=request.param)

    return run


# --- the window, which does no input or output


@settings(deadline=None)
@given(st.integers(1, 8), st.booleans(), st.randoms(use_true_random=False), st.integers(0, 60))
def test_a_window_is_never_overrun_and_gives_everything_once(concurrency, ordered, random, count):
    window, open_, given_back, begun = Window(concurrency, ordered=ordered), [], [], 0
    while len(given_back) < count:
        if begun < count and window.has_room and random.random() < 0.7:
            open_.append(window.begin())
            begun += 1
        elif open_ and random.random() < 0.7:
            window.end(Outcome(open_.pop(random.randrange(len(open_)))))
        if random.random() < 0.7:
            has_next, outcome = window.has_next, window.next()
            assert has_next == (outcome is not None)
            given_back += [outcome.index] if outcome else []
        assert window.open == len(open_) <= concurrency
        assert begun - len(given_back) <= 4 * concurrency
        assert window.has_room or open_ or window.has_next or begun == count, "it is stuck"
    assert sorted(given_back) == list(range(count))
    assert not ordered or given_back == sorted(given_back)


def test_no_parameter_can_be_taken_for_an_argument():
    for submit in (Client.submit, AsyncClient.run):
        assert set(inspect.signature(submit).parameters) - {"params"} == map_window.RESERVED


# --- the blocking client


@pytest.mark.parametrize("inputs", [texts(30), (text for text in texts(30)), []], ids=["list", "generator", "empty"])
def test_values_come_in_the_order_of_the_inputs(open_door, inputs):
    door = open_door(Pile(5))
    with Client(door.data_dir) as client:
        assert list(client.map("m", inputs, "t", concurrency=5)) in (texts(30), [])


def test_values_as_they_come_with_their_index(open_door):
    door = open_door(Pile(5))
    with Client(door.data_dir) as client:
        got = list(client.map("m", texts(20), "t", concurrency=5, ordered=False))
    assert got[:2] == [(4, "text 4"), (3, "text 3")]
    assert dict(got) == dict(enumerate(texts(20)))


def test_what_is_not_given_comes_from_the_model(open_door):
    pile = Pile(6)
    door = open_door(pile)
    with Client(door.data_dir) as client:
        assert list(client.map("m", texts(18), pooling="cls", on="desk", timeout=7)) == texts(18)
    sent = door.wait_for(RequestReceived, 18)[0].request
    assert (sent.task, sent.params, sent.options, sent.remaining_ms) == (
        "own-task",
        {"pooling": "cls"},
        {"on": "desk"},
        7000,
    )
    assert pile.most == 6
    assert len(door.wait_for(CallReceived)) == 1


def test_a_slow_one_holds_up_others_only_so_far(open_door):
    """The first is answered when nothing else moves: then at most four times as many were begun as run at once."""
    first = []

    def answer(session, event):
        if isinstance(event, RequestReceived):
            session.accept(event.request_id, 0, 0)
            if not first:
                first.append((session, event))
            else:
                session.result(event.request_id, {}, event.payload)

    door = open_door(answer)
    with Client(door.data_dir) as client, closing(client.map("m", itertools.count(), "t", concurrency=3)) as found:
        got = []
        thread = threading.Thread(target=lambda: got.append(next(found)))
        thread.start()
        door.wait_for(RequestReceived, 12)
        session, event = first[0]
        session.result(event.request_id, {}, event.payload)
        door.send(session.data_to_send())
        thread.join(10)
        assert got == [0]
        assert list(itertools.islice(found, 30)) == list(range(1, 31))


def test_a_job_that_fails_raises_with_the_index_of_its_input(open_door):
    door = open_door(Pile(2))
    got = []
    with Client(door.data_dir) as client, pytest.raises(InputError, match="input 3: no fail") as failed:
        for value in client.map("m", ["a", "b", "c", "fail", "e", "f"], "t", concurrency=2):
            got.append(value)
    assert got == ["a", "b", "c"]
    assert (failed.value.index, failed.value.code, failed.value.hint) == (3, "worker-died", "Hint.")
    assert isinstance(failed.value, JobError)


def test_or_its_error_is_given_in_place_of_the_value(open_door):
    door = open_door(Pile(1))
    told = []
    tell = lambda *what: told.append(what)  # noqa: E731
    inputs = ["a", "fail", object(), "\udcff", "e"]
    with Client(door.data_dir) as client:
        got = list(client.map("m", inputs, "t", concurrency=1, on_error="return", on_progress=tell))
    assert (got[0], got[4]) == ("a", "e")
    assert [(error.index, error.code) for error in got[1:4]] == [(1, "worker-died"), (2, "bad-input"), (3, "bad-input")]
    assert told == [("running", 1, 5, ""), *(("running", n, 5, f"{n - 1} failed") for n in (2, 3, 4)),
                    ("running", 5, 5, "3 failed")]  # fmt: skip


def test_leaving_early_cancels_what_is_open(open_door):
    door = open_door(Pile(3, order=first_input))
    with Client(door.data_dir) as client:
        for value in client.map("m", itertools.count(), "t", concurrency=3):
            assert value == 0
            break
        gc.collect()
        assert len(door.wait_for(Cancelled, 2)) >= 2
        found = client.map("m", itertools.count(), "t", concurrency=3)
        next(found)
        found.close()
        door.wait_for(Cancelled, 4)
        assert list(found) == []


def test_inputs_that_fail_cancel_what_is_open(open_door):
    door = open_door(Pile(9))

    def inputs():
        yield "a"
        raise ValueError("mine")

    with Client(door.data_dir) as client:
        with pytest.raises(ValueError, match="mine"):
            list(client.map("m", inputs(), "t", concurrency=9))
        door.wait_for(Cancelled)


def test_each_job_ends_at_its_own_deadline(open_door, monkeypatch):
    monkeypatch.setattr(client_jobs, "GRACE_S", 0.0)
    door = open_door("nothing")
    with Client(door.data_dir) as client:
        got = list(client.map("m", texts(5), "t", concurrency=2, timeout=0.1, on_error="return"))
    assert [(error.index, error.code) for error in got] == [(index, "deadline-exceeded") for index in range(5)]
    door.wait_for(Cancelled, 5)


def test_without_a_node_it_ends_however_many_inputs_there_are(open_door):
    door = open_door(Pile(99))
    with Client(door.data_dir) as client:
        found = client.map("m", itertools.count(), "t", concurrency=2, on_error="return")
        thread = threading.Thread(target=lambda: (door.wait_for(RequestReceived, 2), door.close()))
        thread.start()
        with pytest.raises(AccelError, match="not-running"):
            for _ in zip(range(100), found, strict=False):
                pass
        thread.join(10)


WRONG = [{"concurrency": 0}, {"concurrency": 513}, {"concurrency": "4"}, {"on_error": "ignore"}, {"timeout": -1},
         {"job_id": b"0123456789abcdef"}, {"inputs": "one text"}, {"inputs": b"bytes"}, {"inputs": 5}]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_arguments_are_told_at_once(open_door, wrong):
    door = open_door(Pile(1))
    with Client(door.data_dir) as client, pytest.raises((AccelError, TypeError)):
        client.map(**{"model": "m", "inputs": ["a"], "task": "t", **wrong})


# --- the asynchronous client


@pytest.mark.parametrize("ordered", [True, False])
def test_async_values(run, open_door, ordered):
    pile = Pile(6)
    door = open_door(pile)

    async def slow_inputs():
        for text in texts(18):
            await anyio.lowlevel.checkpoint()
            yield text

    async def main(client):
        for inputs in (texts(18), slow_inputs()):
            got = [value async for value in client.map("m", inputs, ordered=ordered, pooling="cls")]
            assert got == texts(18) if ordered else dict(got) == dict(enumerate(texts(18)))

    run(door, main)
    assert pile.most == 6
    assert door.wait_for(RequestReceived)[0].request.params == {"pooling": "cls"}


def test_async_results_do_not_wait_for_inputs_that_are_slow_to_come(run, open_door):
    door = open_door(Pile(1))

    async def main(client):
        send, inputs = anyio.create_memory_object_stream(10)
        async with send, inputs, client.map("m", inputs, "t", concurrency=5) as found:
            for text in texts(3):
                await send.send(text)
                assert await anext(found) == text

    run(door, main)


def test_async_errors(run, open_door):
    door = open_door(Pile(2))

    async def failing():
        yield "a"
        yield "b"
        raise ValueError("mine")

    async def main(client):
        inputs = ["a", "b", "c", "fail", "e", "f"]
        got = []
        with pytest.raises(InputError, match="input 3: no fail") as failed:
            async for value in client.map("m", inputs, "t", concurrency=2):
                got.append(value)
        assert (got, failed.value.index) == (["a", "b", "c"], 3)
        returned = [each async for each in client.map("m", ["a", "fail"], "t", concurrency=2, on_error="return")]
        assert (returned[0], returned[1].index) == ("a", 1)
        found = client.map("m", failing(), "t", concurrency=2)
        assert [await anext(found), await anext(found)] == ["a", "b"]
        with pytest.raises(ValueError, match="mine"):
            await anext(found)
        with pytest.raises(StopAsyncIteration):
            await anext(found)
        for wrong in WRONG[:-1]:
            with pytest.raises(AccelError):
                client.map(**{"model": "m", "inputs": ["a"], "task": "t", **wrong})

    run(door, main)


def test_leaving_an_async_map_early_cancels_what_is_open(run, open_door):
    door = open_door(Pile(3, order=first_input))

    async def main(client):
        async for value in client.map("m", itertools.count(), "t", concurrency=3):
            assert value == 0
            break
        gc.collect()
        await anyio.to_thread.run_sync(door.wait_for, Cancelled, 2)
        async with client.map("m", itertools.count(), "t", concurrency=3) as found:
            await anext(found)
        await anyio.to_thread.run_sync(door.wait_for, Cancelled, 4)
        async with client.map("m", itertools.count(), "t", concurrency=3):
            pass
        unused = client.map("m", itertools.count(), "t", concurrency=3)
        await unused.aclose()

    run(door, main)


def test_cancelling_the_task_cancels_its_map(run, open_door):
    door = open_door("nothing")

    async def main(client):
        found = client.map("m", itertools.count(), "t", concurrency=3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, found)
            await anyio.to_thread.run_sync(door.wait_for, RequestReceived, 3)
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(door.wait_for, Cancelled, 3)
        with pytest.raises(StopAsyncIteration):
            await anext(found)

    run(door, main)


def test_an_async_map_ends_with_its_node(run, open_door):
    door = open_door("nothing")

    async def lose(client):
        with pytest.raises(AccelError, match="not-running"):
            async for _ in client.map("m", itertools.count(), "t", concurrency=2, on_error="return"):
                pass

    async def main(client):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose, client)
            await anyio.to_thread.run_sync(door.wait_for, RequestReceived, 2)
            await anyio.to_thread.run_sync(door.close)

    run(door, main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_map_ends_with_its_client(open_door, backend):
    door = open_door("nothing")

    async def expect(found):
        with pytest.raises(AccelError, match="closed"):
            await anext(found)

    async def main():
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks, AsyncClient(door.data_dir) as client:
                found = client.map("m", itertools.count(), "t", concurrency=3)
                tasks.start_soon(expect, found)
                await anyio.to_thread.run_sync(door.wait_for, RequestReceived, 3)
            with pytest.raises(RuntimeError, match="not open"):
                await anext(client.map("m", ["a", "b"], "t", concurrency=1))

    anyio.run(main, backend=backend)
