"""Arguments as PostgreSQL reads them in binary: compared with psycopg's own dumpers."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int2, Int4, Int8

from celeriac.brokers.postgres.wire import compiled

_TYPES = {"smallint": Int2, "integer": Int4, "bigint": Int8}


def _ours(kind: str, value: Any) -> bytes | None:
    return compiled("x", f"SELECT ?::{kind}").encoded([value])[0]


def _theirs(value: Any) -> bytes | None:
    (found,) = Transformer().dump_sequence([value], [PyFormat.BINARY])
    return None if found is None else bytes(found)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "ü"),
        ("text", ""),
        ("bytea", b"\0\xff"),
        ("boolean", True),
        ("boolean", False),
        ("smallint", -3),
        ("integer", 7),
        ("bigint", 2**60),
        ("float8", 1.5),
        ("float8", float("inf")),
    ],
)
def test_values(kind: str, value: Any) -> None:
    assert _ours(kind, value) == _theirs(_TYPES.get(kind, lambda same: same)(value))
    assert _ours(kind, None) is None


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ["a", "", "ü"]),
        ("text", ["a", None]),
        ("bytea", [b"x" * 300, b"", b"\0"]),
        ("bytea", [None, b"x"]),
        ("boolean", [True, False, True]),
        ("boolean", [None, False]),
        ("smallint", [0, 3, 6, 9]),
        ("integer", [1, None, -1]),
        ("bigint", [1, 2**56, -5]),
        ("float8", [1.5, None, 0.0]),
        ("float8", [1e300]),
    ],
)
def test_arrays(kind: str, values: list[Any]) -> None:
    wrap = _TYPES.get(kind, lambda same: same)
    expected = _theirs([None if value is None else wrap(value) for value in values])
    found = _ours(f"{kind}[]", values)
    assert expected is not None
    assert found is not None
    # That there may be a NULL may be said without need.
    assert (found[:4], found[8:]) == (expected[:4], expected[8:])
    assert found[4:8] >= expected[4:8]


@pytest.mark.parametrize("kind", ["text", "bytea", "boolean", "smallint", "integer", "bigint", "float8"])
def test_empty_arrays(kind: str) -> None:
    found = _ours(f"{kind}[]", [])
    assert found is not None
    assert (len(found), found[:4]) == (12, b"\0\0\0\0")


def test_json() -> None:
    theirs = _theirs(Jsonb("x"))
    assert _ours("jsonb", '"x"') == theirs


def test_arguments_are_numbered() -> None:
    statement = compiled("name", "SELECT f(?::text[], ?::float8), ?::text")
    assert (statement.name, statement.text) == (b"celeriac_name", b"SELECT f($1::text[], $2::float8), $3::text")
    assert len(statement.encoders) == 3
    with pytest.raises(ValueError, match="zip"):
        statement.encoded(["too few"])


def test_numbers_that_are_too_large_are_told() -> None:
    for kind, value in (("integer", 2**31), ("bigint[]", [2**63]), ("smallint[]", [None, 2**15])):
        with pytest.raises(ValueError, match="too large"):
            _ours(kind, value)
