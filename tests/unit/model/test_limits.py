"""Rates in Celery's words, and the arithmetic of a pace."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.model.limits import SLACK, Pace, per_second


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        (None, None), (0, None), ("", None), ("0/m", None), ("0", None), (5, 5.0), (0.5, 0.5), ("5", 5.0),
        ("10/s", 10.0), ("120/m", 2.0), ("3600/h", 1.0), ("0.5/s", 0.5), ("10/", 10.0), ("60 / m", 1.0),
    ],
)  # fmt: skip
def test_rates_in_celerys_words(limit: Any, rate: float | None) -> None:
    assert per_second(limit) == rate


@pytest.mark.parametrize("limit", ["fast", "10/d", "/m", "-1/s", -1, float("inf"), "nan", [1], "1/s/m"])
def test_what_is_no_rate(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"is not understood; write '10/s'"):
        per_second(limit)


def test_the_first_starts_at_once_and_the_others_are_in_line() -> None:
    pace, due = Pace().take(10.0, 100.0, reserved=False)
    assert due is None
    dues = []
    for _ in range(3):
        pace, due = pace.take(10.0, 100.0, reserved=False)
        dues.append(due)
    assert dues == [110.0, 120.0, 130.0]
    pace, due = pace.take(10.0, 110.01, reserved=True)
    assert due is None


def test_a_pace_that_says_nothing_equals_none() -> None:
    assert Pace(50.0, 60.0).take(10.0, 100.0, reserved=False)[1] is None


@given(
    st.floats(0.005, 2.0),
    st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(1, 4)), min_size=1, max_size=40),
    st.lists(st.floats(0.0, 0.4), min_size=1, max_size=40),
)
def test_no_window_sees_more_starts_and_everybody_starts(
    interval: float, arrivals: list[tuple[float, int]], delays: list[float]
) -> None:
    """Deliveries come in bursts, and come back late by any delay, in any order."""
    now, pace, starts, turn = 1000.0, Pace(), [], 0
    waiting: list[tuple[float, bool]] = []
    for gap, count in arrivals:
        now += gap
        waiting += [(now, False)] * count
    total = len(waiting)
    rounds = 0
    while waiting:
        waiting.sort()
        when, reserved = waiting.pop(0)
        pace, due = pace.take(interval, when, reserved=reserved)
        if due is None:
            starts.append(when)
        else:
            assert due >= when - SLACK
            turn += 1
            waiting.append((due + delays[turn % len(delays)], True))
        rounds += 1
        assert rounds < 200 * total
    assert len(starts) == total
    for first in starts:
        for window in (0.1, 1.0, 5.0):
            seen = sum(first <= each < first + window for each in starts)
            assert seen <= (window + SLACK) / interval + 1 + 1e-3
