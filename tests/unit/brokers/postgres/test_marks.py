"""Where claims begin to look."""

from __future__ import annotations

from celeriac.brokers.postgres.marks import Marks

QUICK, SLOW = 0.001, 0.1


def test_as_long_as_claims_are_quick_there_are_none() -> None:
    marks = Marks(1)
    for now in range(5):
        assert marks.start(now) is None
        marks.found(None, QUICK, None, 10, now)
    assert marks.rest(9) is None


def test_large_claims_may_take_longer() -> None:
    marks = Marks(1)
    marks.found(None, SLOW, None, 1000, 0)
    assert marks.start(0) is None


def test_a_slow_claim_begins_them() -> None:
    marks = Marks(2)
    marks.found(None, SLOW, None, 10, 5.0)
    assert marks.rest(5.0) == 0
    lowest = marks.start(5.0)
    assert lowest == [-(2**63)] * 16, "the first look is at all, and finds the marks"
    marks.found(lowest, SLOW, [7] * 16, 10, 5.0)
    assert marks.rest(5.0) == 2.0, "twenty times what it took"
    assert marks.start(6.9) == [7] * 16
    marks.found([7] * 16, QUICK, [8] * 16, 10, 6.9)
    assert marks.start(6.95) == [8] * 16
    assert marks.start(7.0) == lowest


def test_looks_at_all_are_a_second_apart() -> None:
    marks = Marks(1)
    marks.found(None, 0.02, None, 10, 0.0)
    marks.found(marks.start(0.0), 0.02, [1] * 8, 10, 0.0)
    assert marks.rest(0.0) == 1.0


def test_they_end_when_a_look_at_all_is_quick_again() -> None:
    marks = Marks(1)
    marks.found(None, SLOW, None, 10, 0.0)
    marks.found(marks.start(0.0), SLOW, [1] * 8, 10, 0.0)
    began = marks.start(1.0)
    marks.found(marks.start(3.0), QUICK, [2] * 8, 10, 3.0)
    assert marks.start(3.0) is None
    marks.found(began, QUICK, [3] * 8, 10, 3.1)
    assert marks.start(3.1) is None, "the answer of an earlier claim begins nothing"
