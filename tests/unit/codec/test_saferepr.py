"""Display texts by Celery's rules (compared with its own on random values when this was written; see test_golden)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.codec.redaction import hides
from celeriac.codec.saferepr import _slowly, saferepr


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((), "()"),
        ([], "[]"),
        ({}, "{}"),
        (set(), "set()"),
        ((2, 3), "(2, 3)"),
        ((1,), "(1,)"),
        (("it's",), "('it\\'s',)"),
        (('say "x"\n',), "('say \"x\"\n',)"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': {...}}}}"),
        ([[[[1]]]], "[[[[...]]]]"),
        ((b"text", b"\xff"), "(b'text', b'ff')"),
        ({1}, "{1}"),
        (frozenset({1}), "frozenset({1})"),
        (Decimal("1.50"), "Decimal('1.50')"),
        (range(3), "range(0, 3)"),
        (float("nan"), "nan"),
        (None, "None"),
    ],
)
def test_texts(value: Any, text: str) -> None:
    assert saferepr(value) == text


def test_long_values_are_cut() -> None:
    assert saferepr(("x" * 5000, 1), 100) == "('" + "x" * 99 + "...', ...)"
    assert saferepr(list(range(1000)), 20) == "[0, 1, 2, 3, 4, 5, 6..., ...]"
    assert len(saferepr([["y" * 300] * 300] * 300, 1024)) < 1200


def test_it_never_raises() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    class BadDict(dict[str, int]):
        def __iter__(self) -> Any:
            raise RuntimeError("no")

    assert "Unrepresentable" in saferepr([Bad()])
    assert "Unrepresentable" in saferepr(BadDict(a=1))
    endless: list[Any] = []
    endless.append(endless)
    assert "Recursion" in saferepr(endless, maxlevels=0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=40)
@given(VALUES, st.integers(1, 200))
def test_the_fast_way_says_what_the_careful_one_says(value: Any, maxlen: int) -> None:
    assert saferepr(value, maxlen) == _slowly(value, maxlen, 3, hides())
    assert saferepr(value, 10_000) == _slowly(value, 10_000, 3, hides())
