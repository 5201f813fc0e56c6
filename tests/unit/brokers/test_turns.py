"""Turns: so many at a time, each who waits gets his, and a signal takes none of them along."""

from __future__ import annotations

import threading
import time

import pytest

from celeriac.brokers.turns import Turns
from tests.servers.base import wait_until
from tests.strikes import STRIKES, each_strike, struck

LONG = 60.0


def soon() -> float:
    return time.monotonic() + LONG


class Waiter(threading.Thread):
    """Waits for a turn and keeps it; ``got`` tells whether it came."""

    def __init__(self, turns: Turns, seconds: float = LONG) -> None:
        super().__init__(daemon=True)
        self._turns, self._deadline = turns, time.monotonic() + seconds
        self.got: bool | None = None
        self.start()

    def run(self) -> None:
        self.got = self._turns.take(self, self._deadline)


def waiting(turns: Turns, count: int) -> None:
    wait_until(lambda: len(turns._bells) == count, LONG)


def test_so_many_and_no_more() -> None:
    turns = Turns(2)
    assert turns.take("a", soon())
    assert turns.take("b", soon())
    assert not turns.take("c", 0.0)
    assert turns.taken == 2
    turns.end("a")
    assert turns.take("c", 0.0)


def test_any_number() -> None:
    turns = Turns(0)
    assert all(turns.take(each, 0.0) for each in range(100))


def test_what_was_not_taken_is_not_given_back() -> None:
    turns = Turns(1)
    assert turns.take("a", soon())
    turns.end("b")
    assert not turns.take("c", 0.0)
    turns.end("a")
    turns.end("a")
    assert turns.take("c", 0.0)
    assert not turns.take("d", 0.0)


def test_each_who_waits_gets_a_turn() -> None:
    turns = Turns(2)
    assert turns.take("a", soon())
    assert turns.take("b", soon())
    waiters = [Waiter(turns) for _ in range(4)]
    waiting(turns, 4)
    turns.end("a")
    turns.end("b")
    wait_until(lambda: sum(each.got is True for each in waiters) == 2, LONG)
    assert turns.taken == 2
    while waiters:
        ready = wait_until(lambda: [each for each in waiters if each.got], LONG)
        assert turns.taken <= 2
        for each in ready:
            turns.end(each)
            waiters.remove(each)
    assert turns.taken == 0
    assert turns._bells == []


def test_who_gives_up_takes_nobody_elses_turn() -> None:
    turns = Turns(1)
    assert turns.take("a", soon())
    hasty = Waiter(turns, 0.05)
    patient = Waiter(turns)
    wait_until(lambda: hasty.got is False, LONG)
    turns.end("a")
    wait_until(lambda: patient.got, LONG)


@pytest.mark.parametrize("error", STRIKES)
def test_a_signal_at_any_point(error: type[BaseException]) -> None:
    """Of two who wait for one turn the first is interrupted, wherever he is: the second gets it."""

    def run(at: int) -> str:
        turns, me = Turns(1), object()
        holder = object()
        assert turns.take(holder, soon())
        others: list[Waiter] = []

        def other_comes_and_holder_goes() -> None:
            wait_until(lambda: turns._bells or ended.is_set(), LONG)
            others.append(Waiter(turns))
            wait_until(lambda: len(turns._bells) == 2 or ended.is_set(), LONG)
            turns.end(holder)

        def call() -> None:
            try:
                assert turns.take(me, soon())
            finally:
                try:
                    turns.end(me)
                except BaseException:
                    turns.end(me)
                    raise

        ended = threading.Event()
        helper = threading.Thread(target=other_comes_and_holder_goes, daemon=True)
        helper.start()
        where, raised = struck(call, error, at)
        ended.set()
        helper.join(LONG)
        assert (type(raised) is error) is bool(where), f"{where}: {raised!r}"
        others[0].join(LONG)
        assert others[0].got, where
        turns.end(others[0])
        assert turns.taken == 0, where
        assert turns._bells == [], where
        return where

    assert len(each_strike(run)) > 20
