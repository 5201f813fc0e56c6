"""JSON with kombu's type tags."""

from __future__ import annotations

import enum
import json as stdlib
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celeriac.codec import json
from celeriac.exceptions import DecodeError, EncodeError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.text()
)
TAGGED = (
    st.datetimes()
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary()
)  # fmt: skip
TREES = st.recursive(
    SCALARS | TAGGED, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=30
)


@settings(max_examples=50)
@given(TREES)
def test_what_is_written_is_read_again(tree: Any) -> None:
    assert json.loads(json.dumps(tree)) == tree


@settings(max_examples=50)
@given(TREES)
def test_both_encoders_say_the_same(tree: Any) -> None:
    careful = stdlib.JSONEncoder(default=json.encode_hook).encode(tree)
    assert stdlib.loads(json.dumps(tree)) == stdlib.loads(careful)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 6000)
@example(b"NaN")
@example(b"-Infinity")
@example(b'"\\ud800"')
@example(b'{"__type__": "uuid", "__value__": 5}')
@example(b'{"__type__": {}, "__value__": 5}')
@example(b'{"__type__": "decimal", "__value__": "x"}')
@example(b'{"__type__": "datetime", "__value__": "x"}')
@example(b'{"__type__": "base64", "__value__": "x"}')
@example(b'{"__type__": "bytes", "__value__": []}')
@example(b'"\xed\xa0\x80"')
def test_decoding_raises_nothing_but_decode_error(data: bytes) -> None:
    try:
        json.loads(data)
    except DecodeError:
        pass


@given(st.recursive(st.none(), lambda inner: st.fixed_dictionaries({"__type__": st.text(), "__value__": inner})))
def test_tags_are_a_closed_table(tree: Any) -> None:
    try:
        json.loads(stdlib.dumps(tree))
    except DecodeError:
        pass


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(DecodeError, match="unknown type tag 'os'"):
        json.loads(b'{"__type__": "os", "__value__": "system"}')


def test_only_exactly_two_keys_make_a_tag() -> None:
    text = '{"__type__": "uuid", "__value__": {"hex": "05"}, "more": 1}'
    assert json.loads(text) == stdlib.loads(text)
    assert json.loads('{"__type__": "uuid"}') == {"__type__": "uuid"}


def test_tags_may_be_left_as_they_are() -> None:
    text = b'{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}}'
    assert json.loads(text, resolve=False) == stdlib.loads(text)
    assert json.loads(text) == uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 11, 22, tzinfo=UTC), '{"__type__": "datetime", "__value__": "2026-11-22T00:00:00+00:00"}'),
        (date(2026, 11, 22), '{"__type__": "date", "__value__": "2026-11-22"}'),
        (time(8, 6), '{"__type__": "time", "__value__": "08:06:00"}'),
        (Decimal("1.50"), '{"__type__": "decimal", "__value__": "1.50"}'),
        (b"text", '{"__type__": "bytes", "__value__": "text"}'),
        (b"\xff", '{"__type__": "base64", "__value__": "/w=="}'),
        (float("nan"), "NaN"),
        (2**70, "1180591620717411303424"),
        ("\ud800", '"\\ud800"'),
        ((1, (2,)), "[1, [2]]"),
        ({1: 2, None: 3, False: 4}, '{"1": 2, "null": 3, "false": 4}'),
        (OrderedDict(a=1), '{"a": 1}'),
        (enum.IntEnum("E", "A B").B, "2"),
        (enum.StrEnum("S", "A").A, '"a"'),
    ],
)
def test_the_text_is_kombus(value: Any, text: str) -> None:
    # repr, for NaN differs from itself
    assert repr(stdlib.loads(json.dumps(value))) == repr(stdlib.loads(text))


@dataclass
class Point:
    x: int


class Reducible:
    def __json__(self) -> list[int]:
        return [1]


@pytest.mark.parametrize("value", [{1}, object(), timedelta(1), Point(1), 1j, frozenset(), [[{"a": Point}]]])
def test_what_celery_refuses_is_refused_by_name(value: Any) -> None:
    with pytest.raises(EncodeError, match="cannot be written as JSON"):
        json.dumps(value)


def test_the_error_names_the_type() -> None:
    with pytest.raises(EncodeError, match=r"test_json\.Point"):
        json.dumps({"deep": [{"in": Point(1)}]})


def test_endless_trees_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError):
        json.dumps(endless)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EncodeError):
        json.dumps(deep)


def test_objects_may_reduce_themselves() -> None:
    assert json.loads(json.dumps({"a": Reducible()})) == {"a": [1]}


@pytest.fixture
def registered() -> Iterator[None]:
    json.register_type(Point, "point", lambda point: point.x, Point)
    json.register_type(timedelta, None, lambda delta: delta.total_seconds())
    yield
    del json._encoders[Point], json._decoders["point"], json._encoders[timedelta]


@pytest.mark.usefixtures("registered")
def test_users_register_types() -> None:
    assert json.loads(json.dumps([Point(3)])) == [Point(3)]
    assert json.loads(json.dumps(timedelta(seconds=3))) == 3.0


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"b":['])
def test_depth_is_limited(opening: bytes) -> None:
    levels = opening.count(b"[") + opening.count(b"{")
    closing = bytes({ord("["): ord("]"), ord("{"): ord("}")}[c] for c in reversed(opening) if c in b"[{")
    for repeat, refused in ((json.MAX_DEPTH // levels, False), (json.MAX_DEPTH // levels + 1, True)):
        text = opening * repeat + b"null" + closing * repeat
        if refused and repeat * levels > json.MAX_DEPTH:
            with pytest.raises(DecodeError, match="nested deeper than 128 levels"):
                json.loads(text)
        else:
            json.loads(text)


@given(st.text(alphabet='[]{}"\\a', min_size=200, max_size=400))
def test_brackets_in_texts_are_not_depth(text: str) -> None:
    assert json.loads(json.dumps([text] * 3)) == [text] * 3


def test_brackets_in_texts_hide_no_depth() -> None:
    text = b'["]\\"]", ' * 200 + b"1" + b"]" * 200
    with pytest.raises(DecodeError, match="nested deeper"):
        json.loads(text)


def test_many_shallow_containers_are_fine() -> None:
    rows = [{"a": [1, 2, "[{"]} for _ in range(2000)]
    assert json.loads(json.dumps(rows)) == rows


def test_plain_leaves_plain_values_alone_and_tags_the_rest() -> None:
    value = {"a": [1, "x"]}
    assert json.plain(value) is value
    assert json.plain({"at": date(2026, 11, 22)}) == {"at": {"__type__": "date", "__value__": "2026-11-22"}}
