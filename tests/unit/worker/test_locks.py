"""What a worker does about the locks of unique tasks: when it takes them, and step by step at their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.clock import SYSTEM
from celeriac.model import outcome as o
from celeriac.model.backoff import Backoff
from celeriac.model.ledger import LOCK, Change, Lock, replaced_key, sending_key
from celeriac.model.message import Delivery
from celeriac.model.settle import Accept
from celeriac.worker.locks import begin_locked
from tests.unit.worker.bench import FetcherBench
from tests.unit.worker.completing import Bench, on_bench
from tests.unit.worker.fakes import FakeBroker, FakeStore, UnifiedBroker, delivery, done, message


class LedgerBroker(FakeBroker):
    """One with a ledger."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.values: dict[str, bytes] = {}

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        self.faults.meet("read")
        self.log.append(("read", list(keys)))
        return [self.values.get(key) for key in keys]

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        self.faults.meet("change")
        self.log.append(("change", [change.key for change in changes]))
        made = []
        for change in changes:
            allowed = self.values.get(change.key) == change.expected
            if allowed and change.value is None:
                self.values.pop(change.key, None)
            elif allowed and change.value is not None:
                self.values[change.key] = change.value
            made.append(allowed)
        return made


class UnifiedLedgerBroker(UnifiedBroker, LedgerBroker):
    """One that finishes in one step."""


def locked(name: str, task: str = "t", **fields: Any) -> tuple[Delivery, Lock]:
    lock = Lock(f"lock-{name}", name)
    return delivery(task, id=name, headers={LOCK: lock.header()}, **fields), lock


def begin(
    broker: FakeBroker, *deliveries: Delivery, patience: float = 1.0, stopping: bool = False
) -> dict[str, o.Outcome]:
    class Clock:
        time = 0.0

        def monotonic(self) -> float:
            return self.time

        async def sleep(self, seconds: float) -> None:
            self.time += seconds

    backoff, clock, server = Backoff(rand=lambda: 1.0), Clock(), broker
    started = begin_locked(server, deliveries, backoff, lambda: stopping, clock, patience=patience)  # type: ignore[arg-type]
    return dict(asyncio.run(started))


def test_a_start_is_noted_once_a_batch() -> None:
    broker = LedgerBroker()
    batch = [locked(name) for name in ("a", "b")]
    broker.values = {lock.key: lock.waiting for _, lock in batch}
    assert begin(broker, *(each for each, _ in batch)) == {}
    assert broker.values == {"lock-a": b"a started", "lock-b": b"b started"}
    assert broker.log == [("change", ["lock-a", "lock-b"])]


def test_who_took_it_before_or_lost_it_to_time_runs() -> None:
    broker = LedgerBroker()
    again, over, taken = (locked(name)[0] for name in ("again", "over", "taken"))
    broker.values = {"lock-again": b"again started", "lock-taken": b"somebody"}
    assert begin(broker, again, over, taken) == {}
    assert broker.values == {"lock-again": b"again started", "lock-taken": b"somebody"}


def test_who_was_replaced_does_not() -> None:
    broker = LedgerBroker()
    old, new = locked("old"), locked("new")
    broker.values = {"lock-old": b"new", "lock-new": b"new", replaced_key("old"): b"new"}
    assert begin(broker, old[0], new[0]) == {old[0].token: o.Revoked("replaced by new")}


def test_who_may_be_replaced_at_this_moment_waits() -> None:
    """The one that has taken its lock is being sent, on another server."""
    broker = LedgerBroker()
    old, lost = locked("old")[0], locked("lost")[0]
    broker.values = {"lock-old": b"new", sending_key("new"): b"", "lock-lost": b"later"}
    assert begin(broker, old, lost) == {old.token: o.Postponed(0.5)}


@pytest.mark.parametrize("kept", [True, False])
def test_of_several_messages_of_one_slot_the_holder_alone_runs(kept: bool) -> None:
    broker = LedgerBroker()
    lock = Lock("slot", "", kept=kept, sole=True)
    first, second, again = (delivery(id=name, headers={LOCK: lock.header()}) for name in ("first", "second", "second"))
    broker.values = {"slot": b"second", sending_key("second"): b""}
    assert begin(broker, first, second) == {first.token: o.Revoked("another run of this slot")}
    assert broker.values["slot"] == b"second started"
    assert begin(broker, again) == {}, "it was taken before: its worker died"
    del broker.values["slot"]
    gone = {} if kept else {again.token: o.Revoked("another run of this slot")}
    assert begin(broker, again) == gone, "the run that held it has ended; one that is kept is gone with its time"


@pytest.mark.parametrize("call", ["change", "read"])
def test_the_ledger_is_asked_again_when_no_answer_came(call: str) -> None:
    broker = LedgerBroker()
    broker.faults.away(call, times=3)
    broker.values = {"lock-a": b"other", replaced_key("a"): b"other"}
    delivery, _ = locked("a")
    assert begin(broker, delivery) == {delivery.token: o.Revoked("replaced by other")}


def test_when_the_ledger_stays_away_they_run(caplog: pytest.LogCaptureFixture) -> None:
    broker = LedgerBroker()
    broker.faults.away("change")
    assert begin(broker, locked("a")[0], patience=0.0) == {}
    assert "Cannot note the start of 1 unique tasks: away" in caplog.text


def test_a_child_that_stops_meanwhile_gives_them_back() -> None:
    broker = LedgerBroker()
    broker.faults.away("change")
    delivery, _ = locked("a")
    assert begin(broker, delivery, stopping=True) == {delivery.token: o.Unstarted()}


def test_a_broker_without_a_ledger() -> None:
    assert begin(FakeBroker(), locked("a")[0]) == {}


def test_the_fetcher_asks_for_unique_tasks_only() -> None:
    bench, broker = FetcherBench(), LedgerBroker()
    bench.fetcher._broker = broker  # type: ignore[assignment]
    plain = delivery()
    asyncio.run(bench.fetcher.admit([plain]))
    assert broker.log == []
    mine, coroutine, replaced = locked("mine")[0], locked("co", "co")[0], locked("replaced")[0]
    nobody, later = locked("nobody", "nobody.knows")[0], locked("later")[0]
    later = replace(later, message=replace(later.message, due=4e9))  # type: ignore[type-var]
    broker.values = {replaced_key("replaced"): b"other", "lock-mine": b"mine", "lock-later": b"later"}
    asyncio.run(bench.fetcher.admit([mine, coroutine, replaced, nobody, later]))
    assert (bench.sync.inbox, bench.coroutines.inbox) == ([plain, mine], [coroutine])
    assert bench.outcome(replaced) == o.Revoked("replaced by other")
    assert broker.values["lock-later"] == b"later", "one that is not due has not started"
    assert broker.values["lock-mine"] == b"mine started"


def test_step_by_step_a_lock_is_freed_once_the_end_is_stored() -> None:
    mine, lock = locked("mine")
    other = Lock("lock-other", "mine")
    broker = LedgerBroker()
    broker.values = {lock.key: lock.started, other.key: b"somebody"}
    broker.faults.away("change")
    completion = replace(done(mine, publish=[message(id="next")], result=b"r"), frees=(lock, other))

    async def body(bench: Bench) -> None:
        await bench.write([completion])

    bench = on_bench(body, lambda: Bench(broker))
    assert broker.values == {other.key: b"somebody"}
    assert bench.names() == ["extend", "publish", "put", "extend", "change", "settle"]
    assert isinstance(completion.settlement, Accept)


@pytest.mark.parametrize("make", [UnifiedLedgerBroker, LedgerBroker])
def test_a_retry_renews_the_lock_first(make: type[LedgerBroker]) -> None:
    mine, lock = locked("mine")
    broker = make()
    store = FakeStore(server=broker.traits.server)
    broker.values = {lock.key: lock.started}
    broker.faults.away("change")
    due = SYSTEM.now() + 3600.0
    again = message(id="mine", headers={LOCK: replace(lock, life=60.0).header()}, due=due)
    other = message(id="other", headers={LOCK: Lock("lock-other", "other").header()})
    renewed: list[Change] = []
    change_ledger = broker.change_ledger

    async def change(changes: Sequence[Change]) -> Sequence[bool]:
        renewed[:] = changes
        return await change_ledger(changes)

    broker.change_ledger = change  # type: ignore[method-assign]

    async def body(bench: Bench) -> None:
        await bench.write([done(mine, publish=[other, again])])

    bench = on_bench(body, lambda: Bench(broker, store))
    (only,) = renewed
    assert (only.key, only.value, only.expected) == (lock.key, lock.started, lock.started)
    assert only.expires == pytest.approx(3660.0, abs=30.0)
    assert bench.names()[0] == "change"
    assert bench.names().count("change") == 1, "again after an outage, and then no more"
