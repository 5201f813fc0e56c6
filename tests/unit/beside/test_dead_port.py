"""Dead letters that take locks on another server: what is held when sending them again fails in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from celeriac.beside.dead_port import BesideDeadLetters
from celeriac.exceptions import OperationalError
from celeriac.model.dead import Replay, Stayed
from celeriac.model.ledger import LOCK, Change, Lock
from tests.unit.beside.fakes import FakeLedger
from tests.unit.worker.fakes import message


class Letters:
    """Sends all letters again; ``errors`` are those of the next calls."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.errors: list[BaseException | None] = []

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        self.sent += [each.key for each in replays]
        return []


class Bench:
    def __init__(self) -> None:
        self.ledger, self.letters = FakeLedger(), Letters()
        self.port = BesideDeadLetters(self.letters, self.ledger)  # type: ignore[arg-type]

    def replay(self, *names: str, lock: str = "") -> Any:
        return self.port.replay([_replay(name, lock or f"lock {name}") for name in names], timeout=5.0)


def _replay(name: str, lock: str) -> Replay:
    made = message(id=name, queue="q", headers={LOCK: Lock(lock, name).header()})
    return Replay(key=f"letter {name}", message=made, change=Change(lock, name.encode(), None, 100.0))


def test_locks_first_then_letters() -> None:
    bench = Bench()
    bench.ledger.values["lock b"] = b"x"
    (stayed,) = bench.replay("a", "b")
    assert (stayed.key, stayed.gone, stayed.there) == ("letter b", False, b"x")
    assert bench.letters.sent == ["letter a"]
    assert (bench.ledger.values["lock a"], bench.ledger.lives["lock a"]) == (b"a", 100.0)


@pytest.mark.parametrize("error", [OperationalError("away"), TypeError("no JSON")])
def test_what_was_not_sent_leaves_no_lock(error: Exception) -> None:
    bench = Bench()
    bench.letters.errors = [error]
    with pytest.raises(type(error)):
        bench.replay("a", "b")
    assert bench.ledger.values == {}


def test_who_is_interrupted_may_have_sent_them() -> None:
    bench = Bench()
    bench.letters.errors = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        bench.replay("a")
    assert bench.ledger.values["lock a"] == b"a"
    assert (bench.ledger.lives["lock a"] or 0) == pytest.approx(10.0, abs=1.0), "for a short time"


def test_a_ledger_that_goes_away_among_the_locks() -> None:
    bench = Bench()
    real, calls = bench.ledger.change, iter(range(100))

    def change(changes: Any, *, timeout: float) -> Any:
        if next(calls) == 1:
            error = OperationalError("the answer was lost")
            error.uncertain = True
            raise error
        return real(changes, timeout=timeout)

    bench.ledger.change = change  # type: ignore[method-assign]
    with pytest.raises(OperationalError) as caught:
        bench.replay("a", "b")
    assert not caught.value.uncertain, "none is sent"
    assert bench.ledger.values == {}, "the first lock is free again"


def test_those_before_are_sent_when_a_later_step_fails() -> None:
    bench = Bench()
    bench.letters.errors = [None, OperationalError("away")]
    bench.ledger.before_change = [lambda: None, lambda: bench.ledger.values.pop("lock")]  # the first has ended by then
    with pytest.raises(OperationalError) as caught:
        bench.replay("a", "b", lock="lock")
    assert bench.letters.sent == ["letter a"]
    assert caught.value.uncertain
