"""The inference session: the wire in hex, legal order, credits, and what no pair of sessions may ever do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.protocols import framing, inference
from ipfs_accel_node.protocols.bodies import WINDOW
from ipfs_accel_node.protocols.errors import LocalProtocolError, ProtocolError
from ipfs_accel_node.protocols.inference import Body, MessageType, Request
from ipfs_accel_node.protocols.inference_session import (
    LEGAL,
    CallReceived,
    Cancelled,
    FailedReceived,
    Limits,
    PayloadReceived,
    PongReceived,
    RefusedReceived,
    RequestReceived,
    ResultReceived,
    Session,
    State,
)

REQUEST = Request(b"0123456789abcdef", 1, "m", "t", {"a": 1}, {}, 1000, {"bytes": 3})

MESSAGES = [
    REQUEST,
    inference.Call("status", 0, b"x"),
    inference.Body(b"abc"),
    inference.Credit(65536),
    inference.Cancel("why"),
    inference.Accepted(2, 300),
    inference.Refused("busy", "full", ""),
    inference.Progress("loading", 1, 2, ""),
    inference.Chunk(3, [4, 5], "hi"),
    inference.Result({"n": 1}, 0, b"r"),
    inference.Failed("internal", "m", "h"),
    inference.Ping(7),
    inference.Pong(7),
]
WIRE = [
    "0000002d9c0101c4103031323334353637383961626364656601a16da17481a1610180cd03e881a562797465730300c400",
    "0000000e950201a673746174757300c40178",
    "00000008930301c403616263",
    "00000008930401ce00010000",
    "00000007930501a3776879",
    "0000000794060102cd012c",
    "0000000e950701a462757379a466756c6ca0",
    "0000000e960801a76c6f6164696e670102a0",
    "0000000a95090103920405a26869",
    "0000000b950a0181a16e0100c40172",
    "00000010950b01a8696e7465726e616ca16da168",
    "00000004930c0107",
    "00000004930d0107",
]


@pytest.mark.parametrize(("message", "snapshot"), list(zip(MESSAGES, WIRE, strict=True)))
def test_the_wire_never_changes(message, snapshot):
    wire = message.to_frame(1)
    assert wire.hex() == snapshot
    (frame,) = framing.Decoder().feed(wire)
    assert inference.parse(frame) == message
    longer = framing.Frame(frame.type, frame.request_id, (*frame.fields, "of a newer version"))
    assert inference.parse(longer) == message


@given(st.sampled_from(MESSAGES), st.data())
def test_fields_of_another_type_are_refused(message, data):
    (frame,) = framing.Decoder().feed(message.to_frame(1))
    place = data.draw(st.integers(0, len(frame.fields) - 1))
    wrong = data.draw(st.sampled_from([None, 1.5, -1, "x", b"y", [1.5], {"k": 1}, True, 1 << 60]))
    fields = (*frame.fields[:place], wrong, *frame.fields[place + 1 :])
    try:
        parsed = inference.parse(framing.Frame(frame.type, 1, fields))
    except ProtocolError:
        return
    assert type(wrong) is type(frame.fields[place])
    assert isinstance(parsed, type(message))


def talk(asker: Session, answerer: Session, rng: random.Random | None = None):
    """Carries bytes between two sessions until neither has any; the events of both."""
    events: tuple[list, list] = ([], [])
    moved = True
    while moved:
        moved = False
        for source, target, into in ((asker, answerer, events[1]), (answerer, asker, events[0])):
            while data := source.data_to_send():
                moved = True
                step = len(data) if rng is None else rng.randint(1, len(data))
                for at in range(0, len(data), step):
                    into.extend(target.receive(data[at : at + step]))
    return events


def pair(**limits):
    return Session(dialler=True), Session(dialler=False, limits=Limits(**limits))


def test_a_request_and_its_answer():
    asker, answerer = pair()
    request_id = asker.request(REQUEST, b"inputs")
    _, (received,) = talk(asker, answerer)
    assert received == RequestReceived(1, received.request, b"inputs")
    assert received.request.job_id == REQUEST.job_id
    answerer.accept(request_id, 0, 5)
    answerer.progress(request_id, "loading", 1, 2)
    answerer.chunk(request_id, 0, [1], "x")
    answerer.result(request_id, {"by": "me"}, b"value")
    events, _ = talk(asker, answerer)
    assert events[-1] == ResultReceived(1, {"by": "me"}, b"value")
    assert asker.open_requests == answerer.open_requests == 0


@pytest.mark.parametrize("size", [0, 10, 16_384, 16_385, 49_152, 49_153])
@pytest.mark.parametrize("report", [0, 16_300, 16_350, 16_384, 40_000, 49_000])
def test_a_result_arrives_however_large_it_and_its_report_are(size, report):
    asker, answerer = pair()
    request_id = asker.request(REQUEST, b"inputs")
    talk(asker, answerer)
    answerer.accept(request_id, 0, 5)
    answerer.result(request_id, {"route": "x" * report}, bytes(size))
    events, _ = talk(asker, answerer)
    assert events[-1] == ResultReceived(request_id, {"route": "x" * report}, bytes(size))


def test_both_sides_ask_under_their_own_ids():
    left, right = pair()
    assert [left.call("a", b""), left.call("b", b""), right.call("c", b"")] == [1, 3, 2]
    at_left, at_right = talk(left, right)
    assert at_left == [CallReceived(2, "c", b"")]
    assert at_right == [CallReceived(1, "a", b""), CallReceived(3, "b", b"")]


def test_a_body_waits_for_acceptance_and_never_passes_its_credit():
    asker, answerer = pair()
    payload = bytes(WINDOW * 3 + 17)
    request_id = asker.request(REQUEST, payload)
    _, events = talk(asker, answerer)
    assert [type(event) for event in events] == [RequestReceived]
    assert asker.queued_bytes == len(payload) - WINDOW
    answerer.accept(request_id, 0, 0)
    _, events = talk(asker, answerer)
    assert events == [PayloadReceived(1, payload)]
    answerer.result(request_id, {}, payload[::-1])
    events, _ = talk(asker, answerer)
    assert events[-1] == ResultReceived(1, {}, payload[::-1])
    assert asker.queued_bytes == answerer.queued_bytes == 0


def test_small_frames_pass_between_the_pieces_of_a_large_body():
    asker, _ = pair()
    asker.call("large", bytes(WINDOW))
    asker.data_to_send(70_000)
    asker.ping(1)
    assert framing.Decoder().feed(asker.data_to_send(20_000))[0].type == MessageType.PING


def test_a_body_over_its_credit_ends_the_conversation():
    asker, answerer = pair()
    asker.request(REQUEST, bytes(WINDOW * 2))
    talk(asker, answerer)
    with pytest.raises(ProtocolError, match="credit"):
        answerer.receive(Body(b"x").to_frame(1))


def test_too_large_and_too_many_are_refused_and_cost_nothing():
    asker, answerer = pair(max_payload=100_000, max_open=2)
    asker.request(REQUEST, bytes(100_001))
    (refused,), events = talk(asker, answerer)
    assert (type(refused), refused.code, events) == (FailedReceived, "too-large", [])
    for _ in range(3):
        asker.request(REQUEST, b"")
    (busy,), events = talk(asker, answerer)
    assert (busy.code, len(events), answerer.open_requests) == ("busy", 2, 2)


def test_a_cancelled_request_says_nothing_more():
    asker, answerer = pair()
    request_id = asker.request(REQUEST, b"")
    talk(asker, answerer)
    answerer.accept(request_id, 0, 0)
    asker.cancel(request_id, "changed my mind")
    events, told = talk(asker, answerer)
    assert (events, told) == ([], [Cancelled(1, "changed my mind")])
    answerer.progress(request_id, "computing", 0, 0)
    answerer.result(request_id, {}, b"late")
    assert talk(asker, answerer) == ([], [])
    assert asker.open_requests == answerer.open_requests == 0


def test_a_lost_connection_ends_everything_once():
    asker, answerer = pair()
    asker.request(REQUEST, bytes(WINDOW * 2))
    talk(asker, answerer)
    assert asker.connection_lost() == [FailedReceived(1, "peer-lost", "the connection was lost", "")]
    assert answerer.connection_lost() == [Cancelled(1, "the connection was lost")]
    for session in (asker, answerer):
        assert (session.connection_lost(), session.open_requests, session.queued_bytes) == ([], 0, 0)


def test_errors_fit_their_frame_whatever_they_quote():
    asker, answerer = pair()
    for _ in range(2):
        asker.call("m", b"")
    talk(asker, answerer)
    answerer.fail(1, "c" * 1000, "m" * 200_000, "h" * 200_000)
    answerer.progress(3, "s" * 200_000, 0, 0, "n" * 200_000)
    (failed, progress), _ = talk(asker, answerer)
    assert (len(failed.message), len(failed.hint), len(progress.note)) == (2000, 2000, 2000)
    assert len(failed.code) <= 64


def test_a_request_too_large_for_its_frame_is_never_opened():
    asker, answerer = pair()
    with pytest.raises(ValueError, match="over the limit"):
        asker.call("m" * 70_000, b"")
    assert asker.open_requests == 0
    assert asker.call("m", b"") == 1
    assert len(talk(asker, answerer)[1]) == 1


def test_pings_are_answered_by_the_session_itself():
    left, right = pair()
    left.ping(42)
    assert talk(left, right) == ([PongReceived(42)], [])


def test_an_unknown_message_fails_its_request_and_no_other():
    asker, answerer = pair()
    asker.request(REQUEST, b"")
    talk(asker, answerer)
    assert answerer.receive(framing.encode(99, 3, "what is this")) == []
    assert answerer.receive(framing.encode(99, 1)) == []
    asker._next_id = 5
    asker._open[3] = asker._open[1]
    (failed,) = asker.receive(answerer.data_to_send())
    assert (failed.request_id, failed.code) == (3, "unknown-message")


@pytest.mark.parametrize("state", [state for state in State if state is not State.DONE])
@pytest.mark.parametrize("kind", [MessageType.ACCEPTED, MessageType.REFUSED, MessageType.PROGRESS, MessageType.CHUNK,
                                  MessageType.RESULT, MessageType.FAILED])  # fmt: skip
def test_what_the_table_does_not_allow_is_refused_on_both_sides(state, kind):
    message = next(each for each in MESSAGES if kind == each.TYPE)
    asker, answerer = pair()
    request_id = asker.request(REQUEST, b"")
    talk(asker, answerer)
    if state is not State.WAITING:
        answerer.accept(request_id, 0, 0)
    if state is State.RESULT_BODY:
        answerer.result(request_id, {}, bytes(WINDOW * 2))
        asker.receive(answerer.data_to_send(1))
    asker.receive(answerer.data_to_send(1))
    assert asker._open[1].state == state
    if kind in LEGAL[state]:
        asker.receive(message.to_frame(1))
    else:
        with pytest.raises(ProtocolError, match="out of order"):
            asker.receive(message.to_frame(1))
        with pytest.raises(LocalProtocolError, match="out of order"):
            answerer._answer(request_id, message)


@pytest.mark.parametrize(
    "wire",
    [
        REQUEST.to_frame(2),  # of our own parity
        inference.Accepted(0, 0).to_frame(9),  # never opened
        inference.Body(b"x").to_frame(1),  # never opened
        inference.Cancel("").to_frame(0),
    ],
)
def test_ids_that_cannot_be_are_refused(wire):
    with pytest.raises(ProtocolError):
        Session(dialler=False).receive(wire)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_request_ends_exactly_once_whatever_happens(seed):
    """Two sessions, random sizes, random cuts, random cancels, refusals, failures and results."""
    rng = random.Random(seed)
    asker, answerer = pair(max_open=50)
    waiting, cancelled, ended = set(), set(), []
    for _ in range(rng.randint(1, 40)):
        if rng.random() < 0.6:
            size = rng.choice([0, 10, 50_000, WINDOW, WINDOW * 2])
            waiting.add(asker.request(REQUEST, bytes(size)) if rng.random() < 0.7 else asker.call("m", bytes(size)))
        still_open = sorted(waiting - {event.request_id for event in ended})
        if still_open and rng.random() < 0.3:
            request_id = rng.choice(still_open)
            asker.cancel(request_id)
            waiting.discard(request_id)
            cancelled.add(request_id)
        step(asker, answerer, rng, ended)
    for _ in range(300):
        step(asker, answerer, rng, ended)
    finished = [event.request_id for event in ended]
    assert len(finished) == len(set(finished))
    assert not cancelled & set(finished)
    ended += asker.connection_lost()
    answerer.connection_lost()
    assert waiting <= {event.request_id for event in ended}
    assert asker.open_requests == answerer.open_requests == asker._buffered == answerer._buffered == 0


def step(asker, answerer, rng, ended):
    for event in answerer.receive(asker.data_to_send(rng.randint(1, 100_000))):
        match event:
            case RequestReceived(request_id):
                if rng.random() < 0.2:
                    answerer.refuse(request_id, "busy", "")
                else:
                    answerer.accept(request_id, 0, 0)
                    if event.payload is not None:
                        answer(answerer, request_id, rng)
            case PayloadReceived(request_id) | CallReceived(request_id):
                answer(answerer, request_id, rng)
    for event in asker.receive(answerer.data_to_send(rng.randint(1, 100_000))):
        if isinstance(event, (ResultReceived, FailedReceived, RefusedReceived)):
            ended.append(event)


def answer(answerer, request_id, rng):
    if rng.random() < 0.3:
        answerer.fail(request_id, "internal", "")
    else:
        answerer.result(request_id, {}, bytes(rng.choice([0, 10, 60_000, WINDOW * 2])))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_events_or_a_protocol_error(data, framed):
    session = Session(dialler=True)
    session.request(REQUEST, b"")
    wire = len(data).to_bytes(4, "big") + data if framed else data
    try:
        session.receive(wire)
    except ProtocolError as error:
        assert error.code in ("protocol-error", "unknown-message")


def test_who_never_reads_the_answers_is_refused_and_then_dropped():
    _, answerer = pair(max_unread=10_000)
    for number in range(1, 201, 2):
        answerer.receive(inference.Call("m", 0, b"").to_frame(number))
        if number < 101:
            answerer.result(number, {}, bytes(1000))
    refused = [frame for frame in framing.Decoder().feed(answerer.data_to_send(1 << 20)) if frame.fields[0] == "busy"]
    assert 50 < len(refused) < 100
    with pytest.raises(ProtocolError, match="does not read"):
        for _ in range(70):
            answerer.receive(inference.Ping(1).to_frame(0) * 1000)


def test_a_call_has_small_arguments():
    asker, answerer = pair(max_call=100_000)
    asker.call("m", bytes(100_001))
    asker.call("m", bytes(100_000))
    (refused,), (received,) = talk(asker, answerer)
    assert (refused.request_id, refused.code, received.request_id) == (1, "too-large", 3)


@pytest.mark.parametrize("token", [-1, 1 << 31, True, "1"])
def test_a_token_id_that_is_none_ends_the_conversation(token):
    with pytest.raises(ProtocolError, match="token ids"):
        inference.parse(framing.Frame(int(MessageType.CHUNK), 1, (0, [5, token], "")))
