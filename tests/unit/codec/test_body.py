"""Bodies of protocol 2 and, read only, of protocol 1; hostile ones too."""

from __future__ import annotations

import json
import pickle
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celeriac.codec import serializers
from celeriac.codec.body import ERRORS, NO_EMBED, decode_body, encode_body
from celeriac.codec.compression import compress
from celeriac.codec.protocol1 import upgrade
from celeriac.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    InvalidTaskError,
    MessageTooLarge,
)
from celeriac.model.message import Message
from celeriac.model.outcome import Embed

ACCEPT = frozenset({"application/json"})
ALL = frozenset({"json", "msgpack", "yaml", "pickle"})
SIG = {"task": "t", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}


def message(body: bytes, content_type: str = "application/json", **headers: Any) -> Message:
    return Message(id="i", task="t", headers=headers, body=body, content_type=content_type)


def decode(body: bytes, content_type: str = "application/json", limit: int = 10_000, **headers: Any) -> Any:
    return decode_body(message(body, content_type, **headers), accept=ACCEPT, max_bytes=limit)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.uuids() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=40)
@given(st.lists(VALUES, max_size=4), st.dictionaries(st.text(), VALUES), st.sampled_from([None, "gzip", "bzip2"]))
def test_what_is_sent_arrives(args: list[Any], kwargs: dict[str, Any], compression: str | None) -> None:
    encoded = encode_body(args, kwargs, compression=compression)
    headers = {"compression": encoded.compression} if encoded.compression else {}
    found = decode_body(message(encoded.body, encoded.content_type, **headers), accept=ACCEPT, max_bytes=1 << 20)
    assert found == (args, kwargs, NO_EMBED)


@pytest.mark.parametrize("name", ["json", "msgpack", "yaml", "pickle"])
def test_every_serializer_carries_what_follows(name: str) -> None:
    encoded = encode_body((1, "a"), {"k": [2]}, {"callbacks": [SIG], "chain": [SIG, SIG]}, serializer=name)
    args, kwargs, embed = decode_body(message(encoded.body, encoded.content_type), accept=ALL, max_bytes=10_000)
    assert (args, kwargs) == ([1, "a"], {"k": [2]})
    assert embed == Embed(callbacks=[SIG], chain=[SIG, SIG])


def test_fast_and_careful_encoding_look_the_same() -> None:
    fast = json.loads(encode_body((1,), {"a": 2}).body)
    careful = json.loads(encode_body((1, UUID(int=5)), {"a": 2}).body)
    assert fast == [[1], {"a": 2}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    assert careful[1:] == fast[1:]
    assert json.loads(encode_body([], {}).body)[:2] == [[], {}]


def test_a_users_own_json_is_used() -> None:
    before = serializers.find("json")
    serializers.register("json", lambda obj: "[[7], {}, {}]", json.loads, "application/json")
    try:
        assert encode_body((1,), {}).body == b"[[7], {}, {}]"
        assert decode(b"[[8], {}, {}]") == ([8], {}, NO_EMBED)
    finally:
        serializers.register("json", before.encode, before.decode, "application/json", "binary")
        serializers._add(before)


def test_what_cannot_be_encoded_is_named() -> None:
    with pytest.raises(EncodeError, match=r"builtins\.set"):
        encode_body(({1},), {})
    with pytest.raises(ImproperlyConfigured, match="unknown serializer"):
        encode_body((), {}, serializer="jsno")
    with pytest.raises(ImproperlyConfigured, match="unknown compression"):
        encode_body((), {}, compression="zpi")


def test_a_body_beyond_the_limit_is_refused_before_compression() -> None:
    with pytest.raises(MessageTooLarge, match="max_message_bytes=1000"):
        encode_body(("x" * 1000,), {}, compression="gzip", max_bytes=1000)
    assert encode_body(("x" * 500,), {}, max_bytes=1000).body


@pytest.mark.parametrize("body", [b"[[],{},{}]", b"[[],{},null]", b"[null,null,null]", b'{"args": []}'])
def test_missing_parts_are_empty(body: bytes) -> None:
    assert decode(body) == ([], {}, NO_EMBED)


def test_one_signature_stands_for_a_list_of_one() -> None:
    assert decode(json.dumps([[], {}, {"callbacks": SIG, "more": 1}]).encode())[2] == Embed(callbacks=[SIG])


@pytest.mark.parametrize(
    "payload",
    [
        1,
        None,
        "text",
        [],
        [[], {}],
        [[], {}, {}, {}],
        ["ab", {}, {}],
        [{"a": 1}, {}, {}],
        [[], [1], {}],
        [[], {}, [1]],
        [[], {}, {"chain": "x"}],
        [[], {}, {"callbacks": [1]}],
        [[], {}, {"chord": [SIG]}],
        {"kwargs": {}},
    ],
)
def test_other_shapes_are_invalid(payload: Any) -> None:
    with pytest.raises(InvalidTaskError):
        decode(json.dumps(payload).encode())


def test_keys_of_keyword_arguments_are_texts() -> None:
    body = msgspec.msgpack.encode([[], {1: 2}, {}])
    with pytest.raises(InvalidTaskError, match="texts as keys"):
        decode_body(message(body, "application/x-msgpack"), accept=ALL, max_bytes=1000)


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "application/x-yaml", "pickle", "nonsense"])
def test_refused_content_is_not_read(content_type: str) -> None:
    for headers in ({}, {"compression": "gzip"}):
        with pytest.raises(ContentDisallowed):
            decode(pickle.dumps(1), content_type, **headers)


def test_json_may_be_refused_too() -> None:
    with pytest.raises(ContentDisallowed):
        decode_body(message(b"[[],{},{}]"), accept=frozenset({"msgpack"}), max_bytes=1000)


def test_too_large_deep_and_bombs() -> None:
    with pytest.raises(MessageTooLarge):
        decode(b"[[" + b"1," * 10_000 + b"1],{},{}]")
    with pytest.raises(MessageTooLarge):
        decode(compress(bytes(1_000_000), "gzip")[0], compression="application/x-gzip")
    with pytest.raises(DecodeError, match="nested deeper"):
        decode(b"[[" + b"[" * 200 + b"]" * 200 + b"],{},{}]")
    with pytest.raises(DecodeError, match="4300 digits"):
        decode(b"[[" + b"1" * 6000 + b"],{},{}]")


@settings(max_examples=60)
@given(
    st.binary(),
    st.sampled_from(["application/json", "application/x-msgpack", "application/x-yaml", "x/y", ""]),
    st.sampled_from(["utf-8", "latin-1", "binary", "nonsense", ""]),
    st.none() | st.sampled_from(["gzip", "bzip2", "x", "zstd", 5]),
)
@example(b"[[],{},{}]", "application/json", "utf-8", None)
@example(b'[[{"__type__":"uuid","__value__":1}],{},{}]', "application/json", "utf-8", None)
def test_decoding_raises_nothing_else(data: bytes, content_type: str, encoding: str, compression: Any) -> None:
    headers = {} if compression is None else {"compression": compression}
    hostile = Message(
        id="i", task="t", headers=headers, body=data, content_type=content_type, content_encoding=encoding
    )
    try:
        args, kwargs, embed = decode_body(hostile, accept=frozenset({"json", "msgpack", "yaml"}), max_bytes=1000)
    except ERRORS:
        return
    assert isinstance(args, list)
    assert isinstance(kwargs, dict)
    assert isinstance(embed, Embed)


# ---------------------------------------------------------------- protocol 1

V1 = {"task": "proj.add", "id": "the-id", "args": [2, 3], "kwargs": {"z": 1}, "retries": 2, "utc": True}


def test_protocol_1_becomes_protocol_2() -> None:
    upgraded = upgrade(
        json.dumps({**V1, "eta": "2026-11-22T08:06:45", "taskset": "g", "callbacks": [SIG]}).encode(),
        "application/json",
    )
    assert not isinstance(upgraded, str)
    headers, body = upgraded
    assert headers["task"] == "proj.add"
    assert headers["id"] == headers["root_id"] == "the-id"
    assert headers["eta"] == "2026-11-22T08:06:45+00:00"
    assert (headers["group"], headers["retries"], headers["argsrepr"]) == ("g", 2, "[2, 3]")
    assert decode(body) == ([2, 3], {"z": 1}, Embed(callbacks=[SIG]))


def test_without_utc_a_time_stays_local() -> None:
    upgraded = upgrade(
        msgspec.msgpack.encode({**V1, "eta": "2026-11-22T08:06:45", "utc": False}), "application/x-msgpack"
    )
    assert not isinstance(upgraded, str)
    assert upgraded[0]["eta"] == "2026-11-22T08:06:45"


@settings(max_examples=40)
@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda tree: json.dumps(tree).encode()))
@example(b'{"task": 5, "id": "x"}')
@example(b'{"task": "a", "id": "x", "args": "abc", "kwargs": 1, "eta": [], "timelimit": 3}')
@example(b'{"task": "a", "id": "x", "eta": "yesterday"}')
@example(b"[" * 500)
def test_upgrading_never_raises(data: bytes) -> None:
    for content_type in ("application/json", "application/x-msgpack", "application/x-python-serialize", ""):
        found = upgrade(data, content_type)
        assert isinstance(found, str) or isinstance(found[1], bytes)


def test_the_reason_says_why() -> None:
    assert "'application/x-python-serialize' is not read" in upgrade(pickle.dumps(V1), "application/x-python-serialize")
    assert "lacks the texts" in upgrade(b'{"task": "a"}', "application/json")
