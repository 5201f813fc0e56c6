"""The server's clock counts, not the machine's."""

from __future__ import annotations

import time

import pytest

from celeriac.brokers.redis.servertime import ServerTime


def test_before_the_first_answer_it_is_the_machines() -> None:
    assert ServerTime().now() == pytest.approx(time.time(), abs=1)


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
    assert clock.now() == pytest.approx(5000.0, abs=1)
