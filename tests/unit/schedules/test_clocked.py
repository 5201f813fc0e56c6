"""clocked: once."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from celeriac.schedules import clocked

SLOT = datetime(2026, 11, 30, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_it_comes_once() -> None:
    once = clocked(SLOT)
    assert once.next_after(SLOT - SECOND) == SLOT
    assert once.next_after(SLOT) is None
    assert list(once.slots_between(SLOT - SECOND, SLOT + SECOND)) == [SLOT]
    assert once.latest_between(SLOT - SECOND, SLOT + SECOND) == SLOT


def test_is_due() -> None:
    now = SLOT - SECOND
    once = clocked(SLOT, nowfun=lambda: now)
    assert once.is_due(now) == (False, 1.0)
    assert once.is_due(None) == (False, 1.0)
    now = SLOT + SECOND
    due, following = once.is_due(SLOT - SECOND)
    assert (due, following > 10**8) == (True, True)
    due, following = once.is_due(SLOT)
    assert (due, following > 10**8) == (False, True)
    assert once.remaining_estimate(SLOT).days > 10_000


def test_naive_times() -> None:
    assert clocked(datetime(2026, 11, 30, 12)) == clocked(SLOT)
    assert clocked(datetime(2026, 11, 30, 13), tz="Europe/Oslo") == clocked(SLOT)
    with pytest.raises(TypeError, match=r"^clocked_time: '2026' is no datetime$"):
        clocked("2026")  # type: ignore[arg-type]


def test_how_it_prints_compares_and_is_copied() -> None:
    once = clocked(SLOT)
    assert repr(once) == "<clocked: 2026-11-30 12:00:00+00:00>"
    assert once != clocked(SLOT + SECOND)
    assert once != SLOT
    assert pickle.loads(pickle.dumps(once)) == once
