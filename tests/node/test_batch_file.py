"""The files of a batch without a node: what a line may be, and that any beginning of an output is gone on from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node import AccelError, JobError
from ipfs_accel_node.node.commands import batch_file
from ipfs_accel_node.node.commands.batch_file import (
    InputLine,
    error_line,
    header_line,
    is_failed,
    lines_of,
    parse_line,
    read_kept,
    survey,
    value_line,
)

PATH = Path("out.jsonl")
HEADER = header_line("5e", "bafy", "echo", {"pooling": "cls"})
REPORT = {"node_name": "dësk", "backend": "cpu", "total_s": 0.5, "route": {}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)  # fmt: skip
names = st.none() | st.integers() | st.text(max_size=20)
values_out = st.tuples(names, json_values)


def rendered(results) -> list[bytes]:
    """Lines of an output; a `None` in the place of a value stands for a job that failed."""
    return [
        error_line(index, name, JobError("busy", "füll", ""))
        if value is None
        else value_line(index, name, value, REPORT)
        for index, (name, value) in enumerate(results)
    ]


def kept_of(data: bytes, header: bytes = HEADER):
    return read_kept(io.BytesIO(data), header, PATH)


# --- the input


@given(json_values, names, st.dictionaries(st.text().filter(lambda key: key not in batch_file_reserved), json_values))
def test_lines_are_read_as_they_were_written(value, name, params):
    whole = json.dumps({"input": value, "id": name, "params": params}).encode() + b"\r\n"
    assert parse_line(0, whole) == InputLine(value, params, name)
    assert parse_line(0, json.dumps({"input": value}).encode()) == InputLine(value)


batch_file_reserved = {"self", "model", "task", "inputs", "timeout", "on", "job_id", "on_progress"}

BAD = [
    (b"\n", "not JSON"),
    (b"nonsense\n", "not JSON"),
    (b'{"input": "a"', "not JSON"),
    (b'"a" "b"\n', "not JSON"),
    (b'"\xff"\n', "not text in UTF-8"),
    (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    (b'{"input": NaN}', "NaN is no number"),
    (b"5" * 5000, "not JSON"),
    (b"5", "neither a text nor an object"),
    (b'["a"]', "neither a text nor an object"),
    (b"null", "neither a text nor an object"),
    (b"{}", "neither a text nor an object"),
    (b'{"id": 1}', "neither a text nor an object"),
    (b'{"input": 1, "inputs": 2}', "unknown keys: inputs"),
    (b'{"input": 1, "params": 5}', "no object"),
    (b'{"input": 1, "params": ["a"]}', "no object"),
    (b'{"input": 1, "params": {"timeout": 5}}', "no parameter is called timeout"),
    (b'{"input": 1, "params": {"self": 5}}', "no parameter is called self"),
    (b'{"input": 1, "id": 1.5}', '"id"'),
    (b'{"input": 1, "id": true}', '"id"'),
    (b'{"input": 1, "id": {}}', '"id"'),
    (b'{"input": 1, "id": "' + b"x" * 1025 + b'"}', '"id"'),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=lambda case: ascii(case)[:40])
def test_a_bad_line_is_told_with_its_number(line, words):
    with pytest.raises(AccelError) as failed:
        parse_line(6, line)
    assert (failed.value.code, failed.value.message[:7]) == ("bad-input", "line 7 ")
    assert words in failed.value.message
    assert is_failed(error_line(6, None, failed.value))


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_an_error(data):
    try:
        assert isinstance(parse_line(0, data), InputLine)
    except AccelError as error:
        assert error.code == "bad-input"


@pytest.fixture
def short_lines(monkeypatch):
    monkeypatch.setattr(batch_file, "MAX_LINE", 10)
    monkeypatch.setattr(batch_file, "_READ_SIZE", 4)


@pytest.mark.parametrize("data", [b"", b"a", b"a\n", b"a\n\nb", b"123456789\nb\n", b"1234567890\nb\n",
                                  b"x" * 35 + b"\nb\n", b"a\n" + b"x" * 35,
                                  b"x" * 40 + b"\n" + b"y" * 11 + b"\n"])  # fmt: skip
def test_a_line_that_is_too_long_is_passed_over(short_lines, tmp_path, data):
    lines = list(lines_of(io.BytesIO(data)))
    assert lines == [line if len(line) <= 10 else None for line in io.BytesIO(data)]
    (tmp_path / "in").write_bytes(data)
    assert survey(tmp_path / "in")[1] == len(lines)
    with pytest.raises(AccelError, match="line 3 is over") as failed:
        parse_line(2, None)
    assert failed.value.code == "too-large"


# --- the output


@given(st.lists(values_out, max_size=6), st.data())
def test_any_beginning_of_an_output_is_gone_on_from(results, data):
    lines = rendered(results)
    whole = HEADER + b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    kept = kept_of(whole[:cut])
    assert whole[: kept.end] + (b"" if kept.end else HEADER) + b"".join(lines[kept.lines :]) == whole
    assert kept.end <= cut
    assert kept.lines == max(0, whole[:cut].count(b"\n") - 1), "a whole line would be done again"
    assert kept.failed == sum(value is None for _, value in results[: kept.lines])


@given(names, json_values)
def test_a_line_is_one_line_of_json(name, value):
    (line,) = rendered([(name, value)])
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    told = json.loads(line)
    assert (told["index"], told["id"]) == (0, name)
    assert is_failed(line) == (value is None)
    if value is not None:
        assert told["value"] == value
        assert told["report"] == {"node_name": "dësk", "backend": "cpu", "seconds": 0.5}


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": b"bytes"}, ...], ids=repr)
def test_a_value_without_a_form_in_json_is_an_error(value):
    line = value_line(3, "x", value, REPORT)
    assert is_failed(line)
    assert json.loads(line)["error"]["code"] == "internal"


def test_a_value_that_speaks_of_errors_is_none():
    assert not is_failed(value_line(0, None, {"error": {"code": "x"}}, REPORT))
    assert not is_failed(value_line(0, None, '"error": {', REPORT))


def test_a_lone_surrogate_can_be_written():
    assert json.loads(value_line(0, "\udcff", "\ud800x\\", REPORT))["value"] == "\ud800x\\"


@pytest.mark.parametrize(("other", "words"), [
    (header_line("00", "bafy", "echo", {"pooling": "cls"}), "not of the same input"),
    (header_line("5e", "bafz", "echo", {"pooling": "cls"}), "not of the same model"),
    (header_line("5e", "bafy", "else", {}), "not of the same task, params"),
    (HEADER[:-1] + b" \n", "not of the same header"),
    (b"my own notes\n", "no out file of a batch"),
    (b"my own notes", "no out file of a batch"),
    (b"\xff\xfe\n", "no out file of a batch"),
    (b"[1]\n", "no out file of a batch"),
    (b'{"batch": 5}\n', "no out file of a batch"),
    (HEADER + b"\n", "line 2 of out.jsonl was not written"),
    (HEADER + value_line(1, None, 1, REPORT), "line 2 of out.jsonl was not written"),
    (HEADER + value_line(0, None, 1, REPORT) + b"{}\n", "line 3 of out.jsonl was not written"),
])  # fmt: skip
def test_what_is_not_the_beginning_of_this_batch_is_refused(other, words):
    with pytest.raises(AccelError) as failed:
        kept_of(other)
    assert failed.value.code == "other-batch"
    assert words in failed.value.message


@given(st.binary(max_size=60))
def test_a_file_of_somebody_elses_is_never_written_over(data):
    try:
        kept = kept_of(data)
    except AccelError as error:
        assert error.code == "other-batch"
    else:
        assert (kept.end, HEADER.startswith(data)) == (0, True)
