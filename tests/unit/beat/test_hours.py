"""The time of the fleet: the server's, carried on by the monotonic clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from celeriac.beat.hours import Hours
from celeriac.exceptions import OperationalError


class Ledger:
    """A server whose clock shows ``clock``."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.asked = 0
        self.away = False

    def time(self, *, timeout: float) -> float:
        if self.away:
            raise OperationalError("away")
        self.asked += 1
        return self.clock

    def read(self, keys: Sequence[str], *, timeout: float) -> Any: ...

    def change(self, changes: Any, *, timeout: float) -> Any: ...

    def close(self) -> None: ...


class Untimed:
    """A ledger without a clock of its own."""

    def read(self, keys: Sequence[str], *, timeout: float) -> Any: ...

    def change(self, changes: Any, *, timeout: float) -> Any: ...

    def close(self) -> None: ...


class Machine:
    def __init__(self, wall: float) -> None:
        self.wall = wall
        self.ticks = 5.0

    def pass_time(self, seconds: float, ledger: Ledger) -> None:
        self.wall += seconds
        self.ticks += seconds
        ledger.clock += seconds


def test_the_servers_time_counts_and_is_asked_rarely(caplog: Any) -> None:
    ledger, machine = Ledger(), Machine(4600.0)
    hours = Hours(ledger, lambda: machine.wall, lambda: machine.ticks)
    assert hours.now() == 4600.0
    hours.ask()
    assert hours.now() == 1000.0
    machine.pass_time(5, ledger)
    hours.ask()
    assert hours.now() == 1005.0
    assert ledger.asked == 1
    machine.wall -= 7200
    assert hours.now() == 1005.0, "the wall clock does not count"
    machine.pass_time(6, ledger)
    hours.ask()
    assert ledger.asked == 2
    assert hours.skew == pytest.approx(-3600)
    assert caplog.text.count("This machine's clock is 3600.0 s ahead of") == 1
    machine.wall = ledger.clock
    caplog.set_level("INFO")
    machine.pass_time(11, ledger)
    hours.ask()
    assert "agrees with the ledger's server again" in caplog.text


@pytest.mark.parametrize("late", ["before it is asked", "on the way back"])
def test_a_process_that_stands_still_meanwhile_has_no_wrong_clock(caplog: Any, late: str) -> None:
    ledger, machine = Ledger(), Machine(1000.0)
    answer = ledger.time

    def slowly(*, timeout: float) -> float:
        if late == "before it is asked":
            machine.pass_time(6, ledger)
        told = answer(timeout=timeout)
        if late == "on the way back":
            machine.pass_time(6, ledger)
        return told

    ledger.time = slowly  # type: ignore[method-assign]
    Hours(ledger, lambda: machine.wall, lambda: machine.ticks).ask()
    assert "clock" not in caplog.text


def test_while_the_server_is_away_time_goes_on() -> None:
    ledger, machine = Ledger(), Machine(1000.0)
    hours = Hours(ledger, lambda: machine.wall, lambda: machine.ticks)
    hours.ask()
    ledger.away = True
    machine.pass_time(11, ledger)
    with pytest.raises(OperationalError):
        hours.ask()
    assert hours.now() == 1011.0


def test_without_a_clock_of_its_own_the_machines_counts() -> None:
    hours = Hours(Untimed(), lambda: 7.0, lambda: 1.0)
    hours.ask()
    assert hours.now() == 7.0
