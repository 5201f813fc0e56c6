"""Foreign text in log lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.codec.escape import block, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 你好", "Grüße, 你好"),
        ("a\nb\r\tc\x00\x1b[31m\x7f", "a\\x0ab\\x0d\\x09c\\x00\\x1b[31m\\x7f"),
        ("\x85\u2028\u2029", "\\x85\\u2028\\u2029"),
        ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"),
        (7, "7"),
        (None, "None"),
    ],
)
def test_one_line(text: object, shown: str) -> None:
    assert one_line(text) == shown


@given(st.text())
def test_nothing_makes_a_second_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert not [character for character in shown if ord(character) < 32 or 127 <= ord(character) < 160]


def test_long_ones_are_cut_and_bad_ones_named() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    assert one_line("x" * 100, 10) == "x" * 10 + "..."
    assert one_line(Bad()) == "<Bad: its str() raises>"


def test_a_block_is_indented() -> None:
    assert block("a\n[CRITICAL] b\x1b\n") == "  a\n  [CRITICAL] b\\x1b"
