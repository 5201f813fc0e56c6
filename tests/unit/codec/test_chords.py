"""Ends of members and bodies as bytes: Celery's text, and no byte that makes them raise anything but our errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.codec.chords import decode_body, decode_part, decode_shape, encode_body, encode_part
from celeriac.exceptions import ChordError, ContentDisallowed, DecodeError, EncodeError, TaskRevokedError

JSON = frozenset({"json"})
PICKLE = frozenset({"json", "pickle"})


def part(data: bytes, accept: frozenset[str] = JSON, serializer: str = "json") -> Any:
    return decode_part(data, accept=accept, serializer=serializer)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (None, "null"),
        ([1, (2, "x")], '[1,[2,"x"]]'),
        ({"a": {"b": 1.5}}, '{"a":{"b":1.5}}'),
        (float("nan"), "NaN"),
        (datetime(2030, 1, 1, tzinfo=UTC), '{"__type__":"datetime","__value__":"2030-01-01T00:00:00+00:00"}'),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_a_success_is_written_as_celery_does(value: Any, text: str) -> None:
    data = encode_part("id", "SUCCESS", value)
    assert data.decode().replace(", ", ",").replace(": ", ":") == f'[1,"id","SUCCESS",{text}]'
    back = part(data)
    assert (back.id, back.state) == ("id", "SUCCESS")
    if value == value:
        assert back.result == json.loads(json.dumps(value)) if not isinstance(value, datetime) else value


@pytest.mark.parametrize(
    ("error", "module"),
    [
        (ValueError("bad", 42), "builtins"),
        (TaskRevokedError("expired"), "celery.exceptions"),
        (ChordError("Dependency a raised b"), "celery.exceptions"),
    ],
)
def test_a_failure_is_names_and_arguments(error: Exception, module: str) -> None:
    data = encode_part("id", "FAILURE", error)
    stored = json.loads(data)[3]
    assert stored == {"exc_type": type(error).__name__, "exc_message": list(error.args), "exc_module": module}
    back = part(data).result
    assert (type(back), back.args) == (type(error), error.args)
    assert part(encode_part("id", "REVOKED", stored)).result.args == error.args


def test_arguments_of_an_exception_that_json_refuses_become_text() -> None:
    assert part(encode_part("id", "FAILURE", ValueError({1, 2}))).result.args == ("{1, 2}",)


@pytest.mark.parametrize("value", [{1, 2}, object(), {(1, 2): 3}, [b"\xff", {4}]])
def test_a_value_that_json_refuses(value: Any) -> None:
    with pytest.raises(EncodeError):
        encode_part("id", "SUCCESS", value)


def test_other_serializers() -> None:
    assert part(encode_part("id", "SUCCESS", {1, 2}, "pickle"), PICKLE, "pickle").result == {1, 2}
    assert isinstance(
        part(encode_part("id", "FAILURE", ValueError("x"), "pickle"), PICKLE, "pickle").result, ValueError
    )
    with pytest.raises(ContentDisallowed):
        part(encode_part("id", "SUCCESS", 1, "pickle"), JSON, "pickle")


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"5", b"[1, 2, 3]", b'[1, "id", "SUCCESS"]', b'[1, "id", 5, 1]', b"[" * 500, b"\xff", b'"abcd"'],
)
def test_what_is_no_end_of_a_member(data: bytes) -> None:
    with pytest.raises(DecodeError):
        part(data)


def test_an_id_of_another_kind_is_text() -> None:
    assert part(b'[1, 7, "SUCCESS", 1]').id == "7"


# -- bodies --------------------------------------------------------------------------------------------------------


def test_a_body_is_json_wherever_it_can_be() -> None:
    body = {"task": "t", "args": [1], "options": {"task_id": "x"}}
    for content_type in ("application/json", "application/x-python-serialize", "application/x-yaml"):
        data = encode_body(body, content_type)
        assert json.loads(data) == body
        assert decode_body(data, accept=JSON) == body


def test_a_body_that_json_refuses_is_as_its_message_was() -> None:
    body = {"task": "t", "args": [{1, 2}]}
    with pytest.raises(EncodeError):
        encode_body(body)
    data = encode_body(body, "application/x-python-serialize")
    assert data.startswith(b"application/x-python-serialize\0")
    assert decode_body(data, accept=PICKLE) == body
    with pytest.raises(ContentDisallowed):
        decode_body(data, accept=JSON)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b'{"task": 5}', b"\0", b"x/y\0abc", b"\xff\0{}", b"application/json\0[1]", b"{" * 500],
)
def test_what_is_no_body(data: bytes) -> None:
    with pytest.raises((DecodeError, ContentDisallowed)):
        decode_body(data, accept=PICKLE)


def test_the_shape_of_a_header() -> None:
    shape = [["g", None], [[["a", None], None]]]
    assert decode_shape(json.dumps({"result": shape}).encode()) == shape
    assert decode_shape(json.dumps(shape).encode()) == shape


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"5", b'{"result": 5}', b'[["g", null], null]', b'[["g", null]]'])
def test_what_is_no_shape(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_shape(data)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for decode in (part, decode_shape, lambda raw: decode_body(raw, accept=JSON)):
        try:
            decode(data)
        except (DecodeError, ContentDisallowed):
            pass
