"""The time of a server: its clock counts, not the machine's."""

from __future__ import annotations

import time

import pytest

from celeriac.clock import ServerTime


def test_before_the_first_answer_it_is_the_machines() -> None:
    assert ServerTime().now() == pytest.approx(time.time(), abs=5)


def test_it_goes_on_from_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerTime()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    clock.heard(5000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 103.5)
    assert clock.now() == 5003.5


def test_a_jump_of_the_machines_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerTime()
    clock.heard(5000.0)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert clock.now() == pytest.approx(5000.0, abs=5)


def _at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: seconds)


def test_a_slow_answer_does_not_set_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerTime()
    _at(monkeypatch, 100.0)
    clock.heard(5000.0)
    _at(monkeypatch, 101.0)
    clock.heard(5000.9)  # it was 100 ms under way
    assert clock.now() == pytest.approx(5001.0, abs=0.001)


def test_a_quicker_answer_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerTime()
    _at(monkeypatch, 100.0)
    clock.heard(4999.9)
    _at(monkeypatch, 101.0)
    clock.heard(5001.0)
    assert clock.now() == 5001.0


def test_it_follows_a_clock_that_is_slower_than_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """By 0.02 %, for an hour: never ahead by as much as a millisecond."""
    clock = ServerTime()
    for second in range(3600):
        _at(monkeypatch, 100.0 + second)
        clock.heard(5000.0 + second * 0.9998)
        assert clock.now() - (5000.0 + second * 0.9998) == pytest.approx(0.0, abs=0.001)


def test_a_server_whose_clock_was_set_back_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerTime()
    _at(monkeypatch, 100.0)
    clock.heard(5000.0)
    _at(monkeypatch, 101.0)
    clock.heard(4990.0)
    assert clock.now() == 4990.0
