"""The text of an output is the same however its tokens come, and a stop text is never given out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.backends.families.text_stream import TextStream

ALPHABET = "abx "
PIECES = st.lists(st.text(ALPHABET, max_size=3), max_size=30)
STOPS = st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3)


def stream_of(pieces, stops=()):
    """Token n stands for piece n."""
    return TextStream(lambda token: pieces[token] or None, stops)


def given_out(stream, tokens, whole):
    out = []
    for token in tokens:
        if stream.stopped:
            break
        stream.add(token)
        out.append(stream.take())
    return [*out, stream.finish(whole)]


def expected(pieces, stops):
    """The text up to the first stop text that is whole, looking after each piece."""
    text = ""
    for piece in pieces:
        text += piece
        places = [text.find(stop) for stop in stops if stop in text]
        if places:
            return text[: min(places)]
    return text


@given(PIECES, STOPS)
def test_what_is_given_out_is_the_text_before_the_first_stop(pieces, stops):
    stream = stream_of(pieces, stops)
    out = given_out(stream, range(len(pieces)), "".join(pieces))
    assert "".join(out) == expected(pieces, stops) == stream.text
    assert all(stop not in "".join(out) for stop in stops)


@given(PIECES, STOPS, st.data())
def test_an_output_goes_on_at_any_cut_without_a_gap_or_a_repeat(pieces, stops, data):
    first = stream_of(pieces, stops)
    cut = data.draw(st.integers(0, len(pieces)))
    before = ""
    for token in range(cut):
        if first.stopped:
            break
        first.add(token)
        before += first.take()
    second = stream_of(pieces, stops)
    for token in first.token_ids:
        second.add(token)
    second.skip(len(before))
    rest = given_out(second, range(len(first.token_ids), len(pieces)), "".join(pieces))
    assert before + "".join(rest) == expected(pieces, stops)


@given(PIECES)
def test_without_stops_nothing_is_held_back(pieces):
    stream = stream_of(pieces)
    for token, piece in enumerate(pieces):
        stream.add(token)
        assert stream.take() == piece


def test_half_a_stop_is_held_back_until_it_is_none():
    stream = stream_of(["one EN", "D", "S", "END", "two"], ["END."])
    taken = []
    for token in range(4):
        stream.add(token)
        taken.append(stream.take())
    assert taken == ["one ", "", "ENDS", ""]
    assert stream.finish("one ENDSEND") == "END"


def test_what_the_detokenizer_kept_to_itself_comes_at_the_end():
    stream = stream_of(["a", "", ""])
    for token in range(3):
        stream.add(token)
    assert (stream.take(), stream.finish("a\ufffd")) == ("a", "\ufffd")


def test_an_attempt_after_the_end_gives_out_nothing_again():
    first = stream_of(["a", ""])
    again = stream_of(["a", ""])
    for token in range(2):
        first.add(token)
        again.add(token)
    again.skip(len(first.finish("a\ufffd")))
    assert (again.take(), again.finish("a\ufffd")) == ("", "")
