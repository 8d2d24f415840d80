"""A text that is read while it is written: whole to its one reader, cancelled by who leaves, taken up again whole."""

from __future__ import annotations

import threading

import anyio
import pytest
from ipfs_accel_node import AsyncClient, AsyncTextStream, Client, JobError, TextStream
from ipfs_accel_node.protocols.inference_session import Cancelled, RequestReceived
from ipfs_accel_node.protocols.resumption import OPTION, unpack_payload
from ipfs_accel_node.protocols.values import pack
from striking import wait_until

WHOLE = {"generated_text": "abc", "token_ids": [1, 2, 3], "finish_reason": "length", "prompt_tokens": 1, "seed": None}


def gives(*pieces, value=None):
    """A node that writes the pieces, a token each, and then what `value` says; nothing when it is None."""

    def answer(session, event):
        if isinstance(event, RequestReceived):
            session.accept(event.request_id, 0, 0)
            begin = len(unpack_payload(event.payload, event.request.options).token_ids)
            for offset, piece in list(enumerate(pieces))[begin:]:
                session.chunk(event.request_id, offset, [offset + 1], piece)
            if value is not None:
                session.result(event.request_id, {"job_id": event.request.job_id.hex()}, pack(value))

    return answer


def wait_for_tokens(stream, count):
    with stream._news:
        assert stream._news.wait_for(lambda: len(stream.token_ids) == count, 10)


def test_every_piece_is_read_then_the_result_is_there(open_door):
    door = open_door(gives("a", "b", value=WHOLE))
    with Client(door.data_dir) as client:
        stream = client.generate("m", "x", stream=True)
        assert isinstance(stream, TextStream)
        assert "".join(stream) == stream.text == stream.generation().text == "abc"
        assert list(stream) == []


def test_what_was_not_read_of_a_stream_is_read_of_the_one_that_goes_on(open_door):
    door = open_door(gives("a", "b"))
    with Client(door.data_dir) as client:
        stream = client.generate("m", "x", stream=True)
        wait_for_tokens(stream, 2)
        door.close()
        with pytest.raises(JobError, match="peer-lost"):
            stream.generation()
    again = open_door(gives("a", "b", "c", value=WHOLE))
    with Client(again.data_dir) as client:
        rest = client.resume_stream(stream)
        assert "".join(rest) == rest.text == "abc"
        (asked,) = again.wait_for(RequestReceived)
        assert (asked.request.options[OPTION], asked.request.job_id.hex()) == (True, stream.job_id)


def test_a_stream_that_is_taken_up_before_its_end_ends(open_door):
    door = open_door(gives("a", "b"))
    with Client(door.data_dir) as client:
        stream = client.generate("m", "x", stream=True)
        wait_for_tokens(stream, 2)
        assert next(iter(client.resume_stream(stream))) == "ab"
        with pytest.raises(JobError, match="cancelled"):
            stream.result(5)
        door.wait_for(Cancelled)


def test_a_callback_cannot_read_the_stream(open_door):
    known, refused, streams = threading.Event(), [], []

    def on_progress(*_):
        with pytest.raises(RuntimeError, match="cannot wait"):
            next(iter(streams[0]))
        refused.append(True)

    def answering(session, event):
        if isinstance(event, RequestReceived):
            assert known.wait(10)
            session.accept(event.request_id, 0, 0)
            session.progress(event.request_id, "running", 0, 1)

    door = open_door(answering)
    with Client(door.data_dir) as client:
        streams.append(client.generate("m", "x", stream=True, on_progress=on_progress))
        known.set()
        door.wait_for(Cancelled)
        wait_until(lambda: refused, what="the refusal")
        assert refused == [True]


@pytest.mark.parametrize("value", [5, [], {"generated_text": "abc"}, {**WHOLE, "token_ids": 5}])
def test_a_value_that_is_no_text_is_an_error_with_a_code(open_door, value):
    door = open_door(gives("a", value=value))
    with Client(door.data_dir) as client:
        stream = client.generate("m", "x", stream=True)
        with pytest.raises(JobError, match="protocol-error"):
            list(stream)
        assert stream.text == "a"
        with pytest.raises(JobError, match="protocol-error"):
            client.generate("m", "x")

    async def main():
        async with AsyncClient(door.data_dir) as client:
            stream = await client.generate("m", "x", stream=True)
            assert isinstance(stream, AsyncTextStream)
            with pytest.raises(JobError, match="protocol-error"):
                [piece async for piece in stream]
            with pytest.raises(JobError, match="protocol-error"):
                await client.generate("m", "x")

    anyio.run(main)


def test_the_asynchronous_client_gives_what_was_not_read_too(open_door):
    door = open_door(gives("a", "b", "c", value=WHOLE))

    async def main():
        async with AsyncClient(door.data_dir) as client:
            stream = await client.generate("m", "x", stream=True)
            await stream.result(10)
            rest = await client.resume_stream(stream)
            assert "".join([piece async for piece in rest]) == rest.text == "abc"

    anyio.run(main)
