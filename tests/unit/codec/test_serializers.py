"""The registry of serializers, and what each of them refuses."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celeriac.codec import serializers
from celeriac.exceptions import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured

ALL = frozenset({"json", "msgpack", "yaml", "pickle"})


class Canary:
    """Says so when it is unpickled."""

    sang = False

    def __reduce__(self) -> Any:
        return sing, ()


def sing() -> None:
    Canary.sang = True


@pytest.mark.parametrize("name", ["json", "msgpack", "yaml", "pickle"])
def test_plain_values_go_there_and_back(name: str) -> None:
    value = {"a": [1, 2.5, None, True, "grün 🥕"]}
    content_type, encoding, data = serializers.dumps(value, name)
    assert isinstance(data, bytes)
    assert serializers.loads(data, content_type, encoding, frozenset({name})) == value
    assert serializers.loads(data, content_type, encoding, frozenset({content_type})) == value
    assert serializers.find(name) is serializers.find(content_type)


@pytest.mark.parametrize("name", ["pickle", "yaml"])
def test_what_is_not_accepted_is_not_even_read(name: str) -> None:
    content_type = serializers.find(name).content_type
    with pytest.raises(ContentDisallowed, match="accept_content"):
        serializers.loads(pickle.dumps(Canary()), content_type, "binary", frozenset({"json", "msgpack"}))
    assert not Canary.sang


def test_an_unknown_content_type_is_refused() -> None:
    with pytest.raises(ContentDisallowed, match="unknown content type"):
        serializers.loads(b"x", "application/x-evil", "utf-8", frozenset({"application/x-evil"}))


@pytest.mark.parametrize("value", [{1}, UUID(int=5), datetime.now(UTC), object(), 2**70, {"a": [object()]}])
def test_msgpack_refuses_what_celerys_refuses(value: Any) -> None:
    with pytest.raises(EncodeError, match="msgpack cannot encode"):
        serializers.dumps(value, "msgpack")


def test_an_encode_error_names_the_type() -> None:
    with pytest.raises(EncodeError, match=r"uuid\.UUID"):
        serializers.dumps([UUID(int=5)], "msgpack")
    with pytest.raises(EncodeError, match="pickle cannot encode"):
        serializers.dumps(lambda: None, "pickle")
    with pytest.raises(EncodeError, match="yaml cannot encode"):
        serializers.dumps(object(), "yaml")


def test_an_unknown_serializer_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match="unknown serializer 'jsno'; registered are json, msgpack"):
        serializers.dumps(1, "jsno")


@given(st.binary())
@example(b"\x91" * 2000 + b"\xc0")
@example(b"\x91" * 200 + b"\xc0")
@example(b"\xd6\xff\x00\x00\x00\x00")
@example(b"\xc7\x00\x05")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
def test_msgpack_raises_nothing_but_decode_error(data: bytes) -> None:
    try:
        serializers.loads(data, "msgpack", "binary", ALL)
    except DecodeError:
        pass


@given(st.binary(max_size=50), st.sampled_from(["json", "yaml"]), st.text(max_size=10))
@example(b"!!python/object/apply:os.system ['true']", "yaml", "utf-8")
@example(b"[1]", "json", "no-such-encoding")
@example(b"\xff", "json", "utf-16")
@example(b"[1]", "json", "rot13")
def test_text_serializers_raise_nothing_but_decode_error(data: bytes, name: str, encoding: str) -> None:
    try:
        serializers.loads(data, name, encoding, ALL)
    except DecodeError:
        pass


def test_other_encodings_are_read() -> None:
    assert serializers.loads('["grün"]'.encode("latin-1"), "json", "latin-1", ALL) == ["grün"]


@pytest.fixture
def reverse() -> Iterator[None]:
    serializers.register("reverse", lambda obj: str(obj)[::-1], lambda text: text[::-1], "text/x-reverse", "utf-8")
    yield
    serializers.unregister("reverse")


@pytest.mark.usefixtures("reverse")
def test_users_register_serializers() -> None:
    assert serializers.dumps("grün", "reverse") == ("text/x-reverse", "utf-8", "nürg".encode())
    assert serializers.loads("nürg".encode(), "text/x-reverse", "utf-8", frozenset({"reverse"})) == "grün"


def test_unregister_wants_a_known_name() -> None:
    with pytest.raises(ImproperlyConfigured):
        serializers.unregister("nonsense")


def test_accept_set_turns_names_into_content_types() -> None:
    assert serializers.accept_set(["json", "application/x-msgpack", "own"]) == {
        "application/json",
        "application/x-msgpack",
        "own",
    }
